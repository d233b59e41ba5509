"""Every keyword of every public method, given values of every wrong sort: success or a WarpmemError, and all
that is stored stays readable."""

from __future__ import annotations

import inspect
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, Message, NewEntity, NewItem, NewRelation, Ranking, Scope
from warpmem.errors import WarpmemError


class Quoted(str):
    """A string of a type of its own, as template engines and NumPy have them."""


@pytest.fixture(autouse=True)
def _where_files_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


VALUES: list[Any] = [
    None, 0, 5, -1, 10**400, 1.5, float("nan"), True, "", "x", "\ud800", "a\0b", b"x", [], ["x"], [[]], {},
    {"x": {}}, (), set(), object(), np.ones(3), np.ones(256), np.float32(1), datetime(2026, 1, 1),
    Quoted("x"), np.str_("x"), [Quoted("x")], Quoted("text"), Quoted("code"),
    datetime(2026, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC), Scope(user_id="u"), Ranking(),
    Message(role="user", content="x"), NewItem(text="x"), NewEntity(name="x"),
    NewRelation(subject="x", predicate="y", object="z"), Memory, len, iter(()),
]  # fmt: skip
"""Wrong for nearly every argument."""

REQUIRED: dict[str, dict[str, Any]] = {
    "add": {"content": "text", "user_id": "u"},
    "add_many": {"items": ["text"], "user_id": "u"},
    "add_document": {"content": "text", "name": "n", "user_id": "u"},
    "search": {"query": "text", "user_id": "u"},
    "search_many": {"queries": ["text"], "scopes": [Scope(user_id="u")]},
    "context": {"query": "text", "user_id": "u"},
    "name_entity": {"name": "Ada", "user_id": "u"},
    "relate": {"subject": "Ada", "predicate": "knows", "object": "Bob", "user_id": "u"},
    "entities": {"user_id": "u"},
    "relations": {"user_id": "u"},
    "list": {"user_id": "u"},
    "count": {"user_id": "u"},
    "delete_all": {"user_id": "nobody"},
    "get": {"id": ""},
    "get_many": {"ids": [""]},
    "update": {"id": "", "priority": 0.5},
    "revert": {"id": "", "version": 1},
    "extract": {"ids": []},
    "extract_pending": {},
    "revoke": {"source": "web"},
    "reinstate": {"source": "web"},
    "delete": {"id": ""},
    "history": {"id": ""},
    "changes": {},
    "owners": {},
    "erase": {"user_id": "nobody"},
    "timeline": {"user_id": "u"},
    "warm": {"user_id": "u"},
    "evict": {"user_id": "u"},
    "costs": {},
    "run_jobs": {},
    "training_stream": {},
    "backup": {"root": "/nowhere"},
    "export": {"file": "/nowhere/file"},
    "import_": {"file": "/nowhere/file"},
}


@pytest.mark.parametrize("method", REQUIRED)
def test_no_argument_breaks_out_of_the_error_tree(method: str) -> None:
    with warpmem.open(embedder="hashing") as memory:
        item_id = memory.add("steady text", user_id="u").id
        base = {name: item_id if value == "" else value for name, value in REQUIRED[method].items()}
        call = getattr(memory, method)
        names = [name for name in inspect.signature(call).parameters if name != "search"]
        if method == "context":
            names += [name for name in inspect.signature(memory.search).parameters if name not in names]
        for name in names:
            for value in VALUES:
                arguments = {**base, name: value}
                try:
                    if isinstance(found := call(**arguments), warpmem.TrainingStream):
                        next(found, None)
                except WarpmemError:
                    pass
                except BaseException as error:
                    raise AssertionError(
                        f"{method}({name}={type(value).__name__}) let {error!r} out"
                    ) from error
        for scope in memory.owners():
            for item in memory.list(scope, include_past=True, limit=10_000):
                memory.history(item.id)
            memory.search("text", scope=scope, k=4096)


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_of_arguments_of_add_and_search_does(seed: int) -> None:
    rng = random.Random(seed)
    with warpmem.open(embedder="hashing") as memory:
        for method in ("add", "search", "search_many"):
            call = getattr(memory, method)
            names = list(inspect.signature(call).parameters)
            for _ in range(400):
                arguments = {
                    **REQUIRED[method],
                    **{name: rng.choice(VALUES) for name in rng.sample(names, 2)},
                }
                try:
                    call(**arguments)
                except WarpmemError:
                    pass
                except BaseException as error:
                    kinds = {name: type(value).__name__ for name, value in arguments.items()}
                    raise AssertionError(f"seed {seed}: {method}{kinds} let {error!r} out") from error


@pytest.mark.parametrize("field", NewItem.__struct_fields__)
def test_no_field_of_a_new_item_does(field: str) -> None:
    with warpmem.open(embedder="hashing") as memory:
        for value in VALUES:
            fields = {"text": "text", "scope": Scope(user_id="u"), field: value}
            try:
                memory.add(NewItem(**fields))
            except WarpmemError:
                continue
            except BaseException as error:
                raise AssertionError(f"NewItem({field}={type(value).__name__}) let {error!r} out") from error
        memory.list(user_id="u", include_past=True)
        memory.delete_all(user_id="u")


OPENING = [name for name in inspect.signature(warpmem.open).parameters if name not in ("path", "options")]


@pytest.mark.parametrize(
    "name", [*OPENING, "durability", "backend", "isa", "item_cache", "min_free_bytes", "nonsense"]
)
def test_no_setting_does(name: str) -> None:
    for value in VALUES:
        try:
            warpmem.open(**{name: value}).close()
        except WarpmemError:
            continue
        except BaseException as error:
            raise AssertionError(f"open({name}={type(value).__name__}) let {error!r} out") from error
