"""A Memory as the store of LangGraph, and so of LangMem's tools and managers.

    with warpmem.open("memory.db", mode="hybrid") as memory:
        store = MemoryStore(memory, user=1)
        tools = [create_manage_memory_tool(("memories", "{user_id}"))]
        agent = create_react_agent(model, tools=tools, store=store)

Values are durable when `put` returns, a value that is put again ends the one before it (which stays in the
memory's timeline and history), and a search is exact within its user. What is stored here is found by
`memory.search` of the same user, too; what is not stored here is not found by the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InputError, MissingDependency, NotFound, StoreReadOnly
from ..memory import Memory
from ..memory.facade import check_memory
from ..types import MemoryItem, NewItem, Scope
from ..types.paths import path_of
from ..types.scalars import float_of, int_of

try:
    from langgraph.store.base import (
        BaseStore,
        GetOp,
        Item,
        ListNamespacesOp,
        MatchCondition,
        PutOp,
        SearchItem,
        SearchOp,
        TTLConfig,
        get_text_at_path,
        validate_op_namespace,
    )
except ModuleNotFoundError as error:
    raise MissingDependency(
        "the store needs LangGraph: python -m pip install 'warpmem[langgraph]'"
    ) from error

_PAGE = 1000
_OPERATORS = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_LONGEST = 60_000_000
"""Minutes a value may live: a century and more."""
_FRESH = 0.9
"""The share of its time to live below which reading a value gives it all of that again."""


class MemoryStore(BaseStore):  # type: ignore[misc]
    """The values of namespaces as items of a Memory. Thread-safe, as the Memory is.

    user: which element of a namespace, from 0, names the user whose the value is; None: no namespace has one.
    corpus: whose values are that have no such element; without it they are refused. A search and a listing
    of namespaces stay within one user or the corpus, too: a prefix that ends before the user's element means
    the corpus, never all users. fields: paths of what of a value is found by a query, as in LangGraph's
    `index`, but together as one text; None, or where a value has none of them: all of its text. mode: of
    searches, as in `Memory.search`; None: the store's own.
    ttl: as in LangGraph; a value that is read lives on for its whole time again when a tenth of it has
    passed, with `refresh_ttl`, by another version of its item.

    A value may take 64 KiB as JSON. Filters go by one field or a field of an object in a value, compared with
    a text, a number, a truth value or None. Raises InputError for what cannot be stored or asked.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: Memory,
        *,
        user: int | None,
        corpus: str | None = None,
        fields: Sequence[str] | None = None,
        mode: str | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        place = int_of(user)
        if user is not None and (place is None or place < 0):
            raise InputError("user must be the place of an element in a namespace, from 0, or None")
        if user is None and corpus is None:
            raise InputError(
                "whose values are these? Name the user's element of a namespace, a corpus, or both"
            )
        self._memory = check_memory(memory)
        self._user = place
        self._corpus = None if corpus is None else Scope(corpus_id=corpus)
        self._fields = None if fields is None else list(fields)
        self._mode = mode
        self.ttl_config = ttl

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Carry out operations: reads see what was before; then all that is put is stored in one change."""
        results: list[Any] = []
        puts: dict[tuple[tuple[str, ...], str], PutOp] = {}
        for op in ops:
            validate_op_namespace(op)
            result: Any = None
            if isinstance(op, GetOp):
                result = self._get(op)
            elif isinstance(op, SearchOp):
                result = self._search(op)
            elif isinstance(op, ListNamespacesOp):
                result = self._list_namespaces(op)
            elif isinstance(op, PutOp):
                puts[op.namespace, op.key] = op
            else:
                raise InputError(f"unknown operation {type(op).__name__}")
            results.append(result)
        self._put(puts.values())
        return results

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """The same in a worker thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    # ------------------------------------------------------------------------------------------- reading

    def _get(self, op: GetOp) -> Item | None:
        item = self._value(op.namespace, op.key)
        if item is None:
            return None
        self._read([item], op.refresh_ttl)
        return Item(**_told(item))

    def _search(self, op: SearchOp) -> list[SearchItem]:
        if min(op.limit, op.offset) < 0:
            raise InputError("limit and offset must not be negative")
        scope, filters = self._scope(op.namespace_prefix), _filters(op)
        end = op.offset + op.limit
        found: list[tuple[MemoryItem, float | None]]
        if not op.limit:
            return []
        if op.query:
            hits = self._memory.search(op.query, k=end, scope=scope, filters=filters, mode=self._mode)  # type: ignore[arg-type]
            found = [(hit.item, hit.score) for hit in itertools.islice(hits, op.offset, None)]
        else:
            newest = self._items(scope, filters)
            found = [(item, None) for item in itertools.islice(newest, op.offset, end)]
        self._read([item for item, _ in found], op.refresh_ttl)
        return [SearchItem(**_told(item), score=score) for item, score in found]

    def _list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        known: set[tuple[str, ...]] = set()
        for scope in self._scopes(conditions):
            for item in self._items(scope, {"metadata.langgraph.within": {"exists": True}}):
                known.add(tuple(item.metadata["langgraph"]["namespace"]))
        matching = (space for space in known if all(_matches(space, condition) for condition in conditions))
        ends = sorted({space[: op.max_depth] for space in matching})
        return ends[op.offset : op.offset + op.limit]

    def _items(self, scope: Scope, filters: Mapping[str, Any]) -> Iterator[MemoryItem]:
        """All current items that pass, the newest first."""
        cursor: str | None = None
        while True:
            page = self._memory.list(scope, filters=filters, reverse=True, limit=_PAGE, cursor=cursor)
            yield from page.items
            cursor = page.cursor
            if cursor is None:
                return

    def _value(self, namespace: tuple[str, ...], key: str) -> MemoryItem | None:
        return self._memory.value(_key(namespace, key), scope=self._scope(namespace))

    def _read(self, items: Iterable[MemoryItem], refresh: bool) -> None:
        if not refresh:
            return
        for item in items:
            minutes = item.metadata["langgraph"].get("ttl")
            if minutes is None or item.expires_at is None:
                continue
            whole, now = timedelta(minutes=minutes), datetime.now(UTC)
            if item.expires_at - now < whole * _FRESH:
                # It was deleted meanwhile; or another process writes the store, and this one cannot.
                with contextlib.suppress(NotFound, StoreReadOnly):
                    self._memory.update(item.id, expires_at=now + whole)

    # ------------------------------------------------------------------------------------------- writing

    def _put(self, ops: Iterable[PutOp]) -> None:
        new: list[NewItem] = []
        gone: list[MemoryItem] = []
        for op in ops:
            known = self._value(op.namespace, op.key)
            if op.value is not None:
                new.append(self._new(op, known))
            elif known is not None:
                gone.append(known)
        if new:
            self._memory.add(new)
        for item in gone:
            with contextlib.suppress(NotFound):  # somebody else was faster
                self._memory.delete(item.id)

    def _new(self, op: PutOp, known: MemoryItem | None) -> NewItem:
        assert op.value is not None
        now = datetime.now(UTC)
        ends = itertools.accumulate(op.namespace, lambda path, label: f"{path}.{label}")
        about: dict[str, Any] = {
            "namespace": list(op.namespace),
            "within": list(ends),
            "key": op.key,
            "since": now.isoformat() if known is None else known.metadata["langgraph"]["since"],
        }
        if op.ttl is not None:
            about |= {"ttl": _minutes(op.ttl), "put": now.isoformat()}
        if op.index is False:
            about["unindexed"] = True
        return NewItem(
            text=_text(op, self._fields),
            scope=self._scope(op.namespace),
            key=_key(op.namespace, op.key),
            metadata={"langgraph": about, "value": dict(op.value)},
            expires_at=None if op.ttl is None else now + timedelta(minutes=op.ttl),
        )

    # -------------------------------------------------------------------------------------------- whose

    def _scope(self, namespace: tuple[str, ...]) -> Scope:
        if self._user is not None and len(namespace) > self._user:
            return Scope(user_id=namespace[self._user])
        if self._corpus is None:
            raise InputError(
                f"the namespace {'.'.join(namespace)!r} names no user: its element {self._user} would. "
                "For values of no user, name a corpus"
            )
        return self._corpus

    def _scopes(self, conditions: Sequence[MatchCondition]) -> list[Scope]:
        """Where namespaces that meet the conditions can be."""
        place = self._user
        for condition in conditions:
            path = condition.path
            named = place is not None and len(path) > place and path[place] != "*"
            if named and condition.match_type == "prefix":
                return [Scope(user_id=path[place])]
        if self._corpus is None:
            raise InputError(f"name the user in a prefix: its element {self._user}")
        return [self._corpus]


def _key(namespace: tuple[str, ...], key: str) -> str:
    """Labels hold neither a period nor NUL, so this is one namespace's key and no other's."""
    return f"{'.'.join(namespace)}\0{key}"


def _minutes(ttl: Any) -> float:
    minutes = float_of(ttl)
    if minutes is None or not 0 < minutes <= _LONGEST:
        raise InputError(f"ttl is minutes, more than 0 and up to {_LONGEST:,}")
    return minutes


def _told(item: MemoryItem) -> dict[str, Any]:
    about = item.metadata["langgraph"]
    return {
        "namespace": tuple(about["namespace"]),
        "key": about["key"],
        "value": item.metadata["value"],
        "created_at": datetime.fromisoformat(about["since"]),
        "updated_at": datetime.fromisoformat(about["put"]) if "put" in about else item.touched_at,
    }


def _text(op: PutOp, fields: list[str] | None) -> str:
    """What of a value is embedded and found by its words."""
    if op.index is False:
        return str(op.key)
    paths = op.index if op.index is not None else fields or ()
    named = [text for path in paths for text in get_text_at_path(op.value, path) if text.strip()]
    found: list[str] = named or [text for text in _leaves(op.value) if text.strip()]
    return "\n".join(found) or json.dumps(op.value, ensure_ascii=False, default=str)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)


def _filters(op: SearchOp) -> dict[str, Any]:
    """A filter of LangGraph's as one of a Memory's, within the namespace."""
    parts: list[dict[str, Any]] = [{"metadata.langgraph.within": {"exists": True}}]
    if op.namespace_prefix:
        parts.append({"metadata.langgraph.within": {"contains": ".".join(op.namespace_prefix)}})
    if op.query:
        parts.append({"metadata.langgraph.unindexed": {"exists": False}})
    for name, wanted in (op.filter or {}).items():
        parts += _conditions(f"metadata.value.{_label(name)}", wanted)
    return {"and": parts}


def _conditions(path: str, wanted: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(wanted, Mapping):
        yield _compared(path, "$eq", wanted)
    elif any(isinstance(name, str) and name.startswith("$") for name in wanted):
        for operator, operand in wanted.items():
            yield _compared(path, operator, operand)
    elif not wanted:
        raise InputError("a filter compares with a field of an object; an empty object has none")
    else:
        for name, part in wanted.items():
            yield from _conditions(f"{path}.{_label(name)}", part)


def _compared(path: str, operator: str, operand: Any) -> dict[str, Any]:
    if operator not in _OPERATORS:
        raise InputError(f"unknown operator {operator!r} in a filter; there are {', '.join(_OPERATORS)}")
    if operand is not None and not isinstance(operand, str | int | float):
        raise InputError(
            f"a filter compares with a text, a number, a truth value or None, not {type(operand).__name__}"
        )
    if operator == "$ne":  # what is missing differs from everything but None
        return {"not": _compared(path, "$eq", operand)}
    if operand is None and operator == "$eq":
        return {"or": [{path: {"exists": False}}, {path: {"eq": None}}]}
    return {path: {_OPERATORS[operator]: operand}}


def _label(name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"a field in a filter is named by a text, not {type(name).__name__}")
    return path_of([name])


def _matches(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[len(namespace) - len(path) :]
    )
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
