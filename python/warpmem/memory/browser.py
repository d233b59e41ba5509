"""Reading without a query: by id, by page, by history, by change feed."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..config import Config
from ..errors import InputError, NotFound
from ..ops.clock import to_datetime, to_micros
from ..ops.ids import format_id, owner_of, parse_id
from ..policy.filters import compile_filter
from ..policy.reconcile import is_current
from ..protocols import Log
from ..records import Record, StoreIdentity
from ..types import Change, ItemPage, MemoryItem, Order, PendingWork, ReembedStatus, Scope, Stats, Version
from ..types.scalars import int_of
from . import arguments
from .cache import ItemCache, own
from .digests import Digests

_MAX_PAGE = 10_000
_AHEAD = 8
_CURSOR_BYTES = {"recorded": 20, "valid_from": 28}


class Browser:
    """Listings and lookups. Thread-safe."""

    def __init__(self, log: Log, cache: ItemCache) -> None:
        self._log = log
        self._cache = cache
        self._digests = Digests(log.identity.salt)

    def get_many(self, ids: Sequence[str], scope: Scope | None) -> tuple[MemoryItem | None, ...]:
        if isinstance(ids, str) or not isinstance(ids, Sequence):
            raise InputError("get_many takes a list of ids; use get for one")
        keys: list[bytes | None] = []
        for entry in ids:
            try:
                keys.append(parse_id(entry))
            except NotFound:
                keys.append(None)
        found = iter(self._cache.fetch([key for key in keys if key is not None]))
        records = [None if key is None else next(found) for key in keys]
        return tuple(
            own(record.item)
            if record is not None and (scope is None or scope.covers(record.item.scope))
            else None
            for record in records
        )

    def page(
        self,
        scope: Scope,
        kinds: Sequence[str] | None,
        filters: Mapping[str, Any] | None,
        order: Order,
        reverse: bool,
        limit: int,
        cursor: str | None,
        include_past: bool,
        quarantined: bool,
    ) -> ItemPage:
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        if not isinstance(order, str) or order not in _CURSOR_BYTES:
            raise InputError("order must be 'recorded' or 'valid_from'")
        arguments.check_flag(reverse, "reverse")
        after = None if cursor is None else _parse_cursor(cursor, order)
        found = self._matching(scope, kinds, filters, order, reverse, after, include_past, quarantined)
        return _page(found, limit)

    def timeline(
        self,
        scope: Scope,
        since: datetime | None,
        until: datetime | None,
        kinds: Sequence[str] | None,
        key: str | None,
        reverse: bool,
        limit: int,
        cursor: str | None,
    ) -> ItemPage:
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        arguments.check_flag(reverse, "reverse")
        filters: dict[str, Any] = {}
        if since is not None or until is not None:
            arguments.check_period((since, until), "(since, until)", ("since", "until"))
            filters["valid"] = {"during": [since, until]}
        if key is not None:
            filters["key"] = arguments.check_name(key, "key")
        after = None if cursor is None else _parse_cursor(cursor, "valid_from")
        end = None if reverse else until
        found = self._matching(scope, kinds, filters, "valid_from", reverse, after, True, False, end)
        return _page(found, limit)

    def value(self, scope: Scope, key: str, as_of: datetime | None, quarantined: bool) -> MemoryItem | None:
        arguments.check_flag(quarantined, "quarantined")
        slot = self._digests.slot_of(scope, arguments.check_name(key, "key"), quarantined)
        then = None if as_of is None else to_micros(as_of, "as_of")
        owner = self._log.owner(scope.owner)
        if owner is None:
            return None
        chain = self._log.key_chain(owner, slot)
        while True:  # until no value came or went between the two reads
            at = self._log.now() if then is None else then
            begun = [item for begins, item in chain if begins <= at]
            record = self._cache.fetch(begun[-1:])[0] if begun else None
            before, chain = chain, self._log.key_chain(owner, slot)
            if chain == before:
                return own(record.item) if record is not None and is_current(record.item, at) else None

    def count(
        self,
        scope: Scope,
        kinds: Sequence[str] | None,
        filters: Mapping[str, Any] | None,
        include_past: bool,
        quarantined: bool,
    ) -> int:
        matching = self._matching(scope, kinds, filters, "recorded", False, None, include_past, quarantined)
        return sum(1 for _ in matching)

    def _matching(
        self,
        scope: Scope,
        kinds: Sequence[str] | None,
        filters: Mapping[str, Any] | None,
        order: Order,
        reverse: bool,
        after: bytes | None,
        include_past: bool,
        quarantined: bool,
        until: datetime | None = None,
    ) -> Iterator[tuple[bytes, Record]]:
        """until: where nothing begins earlier, in the order of `valid_from`, there is no more."""
        arguments.check_flag(include_past, "include_past")
        arguments.check_flag(quarantined, "quarantined")
        compiled = None if filters is None else compile_filter(filters)
        wanted = None if kinds is None else arguments.check_kinds(kinds)
        owner = self._log.owner(scope.owner)
        if owner is None:
            return
        if after is not None and after[:4] != owner.to_bytes(4, "big"):
            raise InputError("this cursor belongs to another scope")
        now = self._log.now()
        for position, record in self._log.records(owner, order=order, reverse=reverse, after=after):
            item = record.item
            if until is not None and item.valid_from >= until:
                return
            if (
                scope.covers(item.scope)
                and (wanted is None or item.kind in wanted)
                and (include_past or is_current(item, now))
                and (quarantined or not item.quarantined)
                and (compiled is None or compiled.matches(item))
            ):
                yield position, record

    def following(
        self, items: Sequence[MemoryItem], filters: Mapping[str, Any] | None, now: int
    ) -> dict[str, MemoryItem]:
        """By id, what was added next in the item's run (of one kind, agent and run), if it is near among all
        that the owner added, is current at `now`, not in quarantine, and passes the filters."""
        compiled = None if filters is None else compile_filter(filters)
        found: dict[str, MemoryItem] = {}
        for item in items:
            if item.scope.run_id is None:
                continue
            key = parse_id(item.id)
            ahead = self._log.records(owner_of(key), order="recorded", reverse=False, after=key)
            for _, record in itertools.islice(ahead, _AHEAD):
                other = record.item
                if other.scope == item.scope and other.kind == item.kind:
                    if (
                        is_current(other, now)
                        and not other.quarantined
                        and (compiled is None or compiled.matches(other))
                    ):
                        found[item.id] = own(other)
                    break
        return found

    def history(self, item_id: str, scope: Scope | None) -> tuple[Version, ...]:
        versions = self._log.history(parse_id(item_id))
        seen = [past.record.item for past in versions if past.record is not None]
        if not versions or (scope is not None and not any(scope.covers(item.scope) for item in seen)):
            raise NotFound("no such item in this scope")
        return tuple(
            Version(operation, to_datetime(at), None if record is None else record.item, reason)
            for operation, at, record, reason in versions
        )

    def changes(self, since: int, limit: int) -> tuple[Change, ...]:
        cursor = int_of(since)
        if cursor is None or not 0 <= cursor < 1 << 63:
            raise InputError("since must be a cursor: an integer of at least 0")
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        found = []
        for entry in self._log.entries(cursor):
            item_id = scope = None
            if entry.operation != "erase":
                user, agent, run, corpus = entry.scope
                item_id = format_id(entry.key)
                scope = Scope(user_id=user, agent_id=agent, run_id=run, corpus_id=corpus)
            when = to_datetime(entry.at)
            found.append(Change(entry.sequence, when, entry.operation, item_id, scope, entry.version))
            if len(found) == limit:
                break
        return tuple(found)

    def owners(self, after: Scope | None, limit: int) -> tuple[Scope, ...]:
        limit = arguments.check_count(limit, "limit", _MAX_PAGE)
        number = 0
        if after is not None:
            known = self._log.owner(after.owner)
            if known is None:
                raise InputError("after must be a scope that owners() returned")
            number = known
        found = itertools.islice(self._log.owners(number), limit)
        return tuple(Scope(**{f"{owner.type}_id": owner.id}) for _, owner in found)

    def stats(
        self,
        config: Config,
        identity: StoreIdentity,
        rows: Mapping[str, int],
        device: Mapping[str, Any],
        backend: str,
        reason: str,
        reembedding: bool,
        models: Mapping[str, Mapping[str, Any]],
        spaces: dict[str, dict[str, Any]],
        pending: Mapping[str, PendingWork],
    ) -> Stats:
        lag_changes, lag_seconds, lag_errors = self._log.lag()
        totals = self._log.totals()
        return Stats(
            path=config.path or ":memory:",
            items=totals["items"],
            owners=totals["owners"],
            sequence=totals["sequence"],
            model_id=identity.model_id,
            dimension=identity.dimension,
            durability=config.durability,
            backend=backend,
            backend_reason=reason,
            loaded_owners=rows["owners"],
            unloaded_owners=rows["unloaded"],
            index_rows=rows["rows"],
            index_bytes=rows["bytes"],
            device=dict(device),
            item_cache=self._cache.sizes(),
            storage=self._log.sizes(),
            read_only=self._log.read_only,
            pending_erasures=self._log.erasures.pending(),
            lag_changes=lag_changes,
            lag_seconds=lag_seconds,
            lag_errors=lag_errors,
            reembed=self._reembed(reembedding),
            models={name: dict(counters) for name, counters in models.items()},
            spaces=spaces,
            pending=dict(pending),
        )

    def _reembed(self, running: bool) -> ReembedStatus | None:
        job = self._log.job()
        if job is None:
            return None
        started = to_datetime(job.started_at)
        return ReembedStatus(job.model_id, job.dimension, job.rows, started, running, job.done)


def _page(found: Iterator[tuple[bytes, Record]], limit: int) -> ItemPage:
    items: list[MemoryItem] = []
    last = b""
    for position, record in found:
        if len(items) == limit:
            return ItemPage(tuple(items), base64.urlsafe_b64encode(last).decode("ascii"))
        items.append(record.item)
        last = position
    return ItemPage(tuple(items), None)


def _parse_cursor(cursor: str, order: Order) -> bytes:
    try:
        after = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except (ValueError, binascii.Error, AttributeError) as error:
        raise InputError("this is not a cursor of a listing") from error
    if len(after) != _CURSOR_BYTES[order]:
        raise InputError("this cursor belongs to a listing with another order")
    return after
