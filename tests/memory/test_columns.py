"""Declared metadata keys: the scan decides filters over them, and nothing else about a search changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import InputError
from warpmem.index import searched_partitions
from warpmem.memory.masks import FilterMasks

DIMENSION = 8
DECLARED = {"year": "number", "lang": "string", "done": "boolean", "a.b": "number", '"a.b"': "number"}
NUMBERS = (0, -0.0, 1, 1.0, 2, 2.5, -3, 1e300, -1e-300, 2**53, 2**53 + 2)
STRINGS = ("", "de", "en", "fr", "zz", "1", "de\x00")
ODD: tuple[Any, ...] = (None, [], ["de"], {"b": 1}, {"b": "x"}, "1", True, 1)


def values(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, usual in (("year", NUMBERS), ("lang", STRINGS), ("done", (True, False))):
        if rng.random() < 0.8:
            found[name] = rng.choice(usual if rng.random() < 0.8 else ODD)
    if rng.random() < 0.7:
        found["a"] = {"b": rng.choice(NUMBERS)} if rng.random() < 0.8 else rng.choice(ODD)
    if rng.random() < 0.7:
        found["a.b"] = rng.choice(NUMBERS if rng.random() < 0.8 else ODD)
    return found


def condition(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(list(DECLARED))
    usual: dict[str, tuple[Any, ...]] = {
        "number": (*NUMBERS, 2**53 + 1, 10**200),
        "string": STRINGS,
        "boolean": (True, False),
    }
    pool = usual[DECLARED[name]]
    if rng.random() < 0.1:
        pool = (None, "x", 3, True)
    operator = rng.choice(("eq", "ne", "in", "nin", "exists", "gt", "gte", "lt", "lte"))
    if operator == "exists":
        operand: Any = rng.random() < 0.5
    elif operator in ("in", "nin"):
        operand = [rng.choice(pool) for _ in range(rng.randrange(4))]
    else:
        operand = rng.choice(pool)
        if operator not in ("eq", "ne") and (operand is None or isinstance(operand, bool)):
            operand = 1
    return {f"metadata.{name}": {operator: operand}}


def random_filter(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    choice = rng.random()
    if depth > 3 or choice < 0.5:
        return condition(rng)
    if choice < 0.65:
        return {"not": random_filter(rng, depth + 1)}
    if choice < 0.8:
        return {"and": [random_filter(rng, depth + 1) for _ in range(rng.randrange(3))]}
    if choice < 0.95:
        return {"or": [random_filter(rng, depth + 1) for _ in range(rng.randrange(3))]}
    return {**condition(rng), **condition(rng)}


def found(memory: Memory, filters: Any, **options: Any) -> list[tuple[str, int, float]]:
    result = memory.search(vector=np.ones(DIMENSION), user_id="u", k=500, filters=filters, **options)
    return [(hit.item.id, hit.item.version, hit.score) for hit in result]


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Canonical texts of the filters that were evaluated on items."""
    seen: list[bytes] = []
    mask = FilterMasks.get

    def counted(self: FilterMasks, owner: int, compiled: Any, deadline: Any) -> Any:
        seen.append(compiled.canonical)
        return mask(self, owner, compiled, deadline)

    monkeypatch.setattr(FilterMasks, "get", counted)
    return seen


@pytest.fixture(params=["as added", "loaded", "from the checkpoint"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """(a store with declared keys, the same items without)."""
    rng = random.Random(7)
    path = tmp_path / "s"
    settings: dict[str, Any] = {"dimension": DIMENSION, "durability": "os", "checkpoint_rows": 0}
    with warpmem.open(path, columns=DECLARED, **settings) as memory:
        memory.search(vector=np.ones(DIMENSION), user_id="u")
        items = [
            NewItem(text=f"t{i}", metadata=values(rng), vector=random_vector(rng), kind="event")
            for i in range(150)
        ]
        ids = [result.id for result in memory.add_many(items, user_id="u")]
        for item_id in rng.sample(ids, 40):
            memory.update(item_id, metadata=values(rng))
        for item_id in rng.sample(ids, 10):
            memory.delete(item_id)
        moment = memory.list(user_id="u", limit=1).items[0].recorded_at
        memory.search(vector=np.ones(DIMENSION), user_id="u")
        if request.param == "from the checkpoint":
            memory.checkpoint()
        if request.param == "as added":
            with warpmem.open(path, read_only=True, **settings) as plain:
                yield memory, plain, moment
            return
    with warpmem.open(path, columns=DECLARED, **settings) as memory:
        assert ("owners" in memory._index.restored) == (request.param == "from the checkpoint")  # type: ignore[attr-defined]
        with warpmem.open(path, read_only=True, **settings) as plain:
            yield memory, plain, moment


def random_vector(rng: random.Random) -> Any:
    return np.array([rng.gauss(0, 1) for _ in range(DIMENSION)], np.float32)


def test_same_answers_as_filters_over_items(stores: Any, masks: list[bytes]) -> None:
    memory, plain, moment = stores
    rng = random.Random(3)
    decided = 0
    for _ in range(300):
        filters = random_filter(rng)
        before = len(masks)
        got = found(memory, filters)
        decided += len(masks) == before
        assert got == found(plain, filters), filters
        if rng.random() < 0.2:
            assert found(memory, filters, known_at=moment) == found(plain, filters, known_at=moment), filters
    assert 100 < decided < 300, "some are decided by the scan, those over other types are not"


def test_a_number_that_no_float_holds(masks: list[bytes]) -> None:
    with warpmem.open(None, dimension=DIMENSION, columns={"n": "number"}) as memory:
        for n in (2**53, 2**53 + 1, 2**53 + 2):
            memory.add(f"t{n}", user_id="u", metadata={"n": n}, vector=np.ones(DIMENSION))
            for bound in (2**53, 2**53 + 1, 2**53 + 2):
                expected = {m for m in range(2**53, n + 1) if m > bound}
                result = memory.search(
                    vector=np.ones(DIMENSION), user_id="u", filters={"metadata.n": {"gt": bound}}
                )
                assert {hit.item.metadata["n"] for hit in result} == expected
    assert masks, "the second value is not exact, and from then on items are asked"


def test_one_key_in_two_spellings(masks: list[bytes]) -> None:
    with warpmem.open(None, dimension=DIMENSION, columns={'"n"': "number", '"a.b"': "string"}) as memory:
        memory.add("t", user_id="u", metadata={"n": 1, "a.b": "x"}, vector=np.ones(DIMENSION))
        for name in ("n", '"n"', '"\\u006e"'):
            assert len(found(memory, {f"metadata.{name}": 1, 'metadata."a.b"': "x"})) == 1
            assert not found(memory, {f"metadata.{name}": 2})
    assert not masks


def test_several_owners_have_codes_of_their_own() -> None:
    with warpmem.open(None, dimension=DIMENSION, columns={"lang": "string"}) as memory:
        for user, langs in (("a", ("x", "y")), ("b", ("y", "z", "x"))):
            for lang in langs:
                memory.add(f"{user} {lang}", user_id=user, metadata={"lang": lang}, vector=np.ones(DIMENSION))
        result = memory.search(
            vector=np.ones(DIMENSION),
            scopes=[warpmem.Scope(user_id="a"), warpmem.Scope(user_id="b")],
            filters={"metadata.lang": {"in": ["x", "z"]}},
            kinds=["fact"],
        )
        assert sorted(hit.item.text for hit in result) == ["a x", "b x", "b z"]


@pytest.mark.parametrize("tries", [16, 0])
def test_strings_that_appear_during_searches(monkeypatch: pytest.MonkeyPatch, tries: int) -> None:
    """A filter that excludes a string excludes it also when the first row with it comes during the scan."""
    monkeypatch.setattr(searched_partitions, "_TRIES", tries)
    with warpmem.open(None, dimension=DIMENSION, columns={"lang": "string"}) as memory:
        memory.add("first", user_id="u", metadata={"lang": "en"}, vector=np.ones(DIMENSION))
        memory.search(vector=np.ones(DIMENSION), user_id="u")
        index: Any = memory._index
        compile_terms, new = index._columns.terms, iter(range(1000))

        def late(*arguments: Any) -> Any:
            compiled = compile_terms(*arguments)
            number = next(new)
            if number < 3:
                memory.add(f"late {number}", user_id="u", metadata={"lang": "xx"}, vector=np.ones(DIMENSION))
            return compiled

        index._columns.terms = late
        filters = {"metadata.lang": {"ne": "xx"}}
        for _ in range(4):
            assert [
                hit.item.text
                for hit in memory.search(vector=np.ones(DIMENSION), user_id="u", filters=filters)
            ] == ["first"]


@pytest.mark.parametrize(
    "columns",
    [
        {"": "number"},
        {"a..b": "number"},
        {"a": "float"},
        {f"k{i}": "number" for i in range(65)},
        ["a"],
        {'"a': "number"},
    ],
)
def test_bad_declarations(columns: Any) -> None:
    with pytest.raises(InputError):
        warpmem.open(None, dimension=DIMENSION, columns=columns)
