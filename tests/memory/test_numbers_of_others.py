"""Numbers that are not Python's own, as NumPy and pandas hand them out: taken wherever a number is, and
nothing of them stays."""

from __future__ import annotations

import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

import public_api
import warpmem
from warpmem import (
    AsyncMemory,
    Budget,
    Config,
    Memory,
    NewItem,
    Price,
    RankBy,
    Ranking,
    Scope,
    ScopeWeight,
    VectorIndex,
)
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.given import GivenVectors
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, InvalidFilter, InvalidMetadata
from warpmem.types.scalars import float_of, int_of

U = Scope(user_id="u")
Call = Callable[[Memory, str], dict[str, Any]]

MEMORY: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {
    ("add", "priority"): (0.5, {"content": "other", "scope": U}),
    ("add", "trust"): (0.5, {"content": "other", "scope": U}),
    ("add_document", "max_tokens"): (64, {"content": "text", "name": "n", "scope": U}),
    ("add_document", "priority"): (0.5, {"content": "text", "name": "n", "scope": U}),
    ("add_document", "trust"): (0.5, {"content": "text", "name": "n", "scope": U}),
    ("update", "priority"): (0.5, {}),
    ("update", "trust"): (0.5, {}),
    ("update", "expected_version"): (1, {"priority": 0.5}),
    ("revert", "version"): (1, {}),
    ("revert", "expected_version"): (1, {"version": 1}),
    ("import_", "batch"): (2, {"file": "in.jsonl"}),
    ("training_stream", "min_trust"): (0.5, {}),
    ("run_jobs", "seconds"): (1, {"names": ["deduplicate"]}),
    ("reembed", "batch"): (2, {"embedder": "hashing"}),
    ("reembed", "dimension"): (4, {"embedder": None, "given": lambda items: np.ones((len(items), 4))}),
    ("name_entity", "trust"): (0.5, {"name": "Ada", "scope": U}),
    ("relate", "trust"): (0.5, {"subject": "Ada", "predicate": "in", "object": "Rome", "scope": U}),
    ("entities", "limit"): (1, {"scope": U}),
    ("relations", "limit"): (1, {"scope": U}),
    ("list", "limit"): (1, {"scope": U}),
    ("timeline", "limit"): (1, {"scope": U}),
    ("owners", "limit"): (1, {}),
    ("changes", "limit"): (1, {}),
    ("changes", "since"): (1, {}),
    ("search", "k"): (1, {"query": "text", "scope": U}),
    ("search", "min_similarity"): (0.5, {"query": "text", "scope": U}),
    ("search", "deadline"): (100, {"query": "text", "scope": U}),
    ("search", "rerank"): (3, {"query": "text", "scope": U}),
    ("search_many", "k"): (1, {"queries": ["text"], "scopes": [U]}),
    ("search_many", "min_similarity"): (0.5, {"queries": ["text"], "scopes": [U]}),
    ("search_many", "deadline"): (100, {"queries": ["text"], "scopes": [U]}),
    ("search_many", "rerank"): (3, {"queries": ["text"], "scopes": [U]}),
    ("context", "max_tokens"): (100, {"query": "text", "scope": U}),
    ("context", "k"): (3, {"query": "text", "scope": U}),
}
"""Of each number that a method of Memory takes: one that is right, and what else the call needs."""

INDEX: dict[tuple[str, str], float] = {
    ("__init__", "dim"): 4,
    ("__init__", "recall"): 0.5,
    ("__init__", "threads"): 1,
    ("__init__", "device"): 0,
    ("__init__", "vram_bytes"): 1 << 20,
    ("__init__", "pinned_bytes"): 0,
    ("__init__", "rebuild_ms"): 5,
    ("load", "threads"): 1,
    ("load", "device"): 0,
    ("load", "vram_bytes"): 1 << 20,
    ("load", "pinned_bytes"): 0,
    ("load", "rebuild_ms"): 5,
    ("search", "k"): 1,
    ("search", "n_probes"): 1,
    ("search", "refine"): 1,
    ("search", "within"): 1,
}


def _numeric(annotation: Any) -> Literal["int", "float"] | None:
    """Which numbers an argument takes, callbacks and tuples aside."""
    plain = re.sub(r"(Callable|tuple)\[.*\]", "", str(annotation))
    found = re.search(r"\b(float|int)\b", plain)
    return None if found is None else found[1]  # type: ignore[return-value]


def _parameters(kind: type, *more: str) -> Iterator[tuple[tuple[str, str], Literal["int", "float"]]]:
    methods = {**public_api.public_methods(kind), **{name: getattr(kind, name) for name in more}}
    for name, method in methods.items():
        for parameter in inspect.signature(method).parameters.values():
            if (wanted := _numeric(parameter.annotation)) is not None:
                yield (name, parameter.name), wanted


def _like(value: float, wanted: str) -> list[Any]:
    """The same number in other types. A float's may be an integer, too, where it is one."""
    if wanted == "int":
        return [np.int64(value), np.uint32(value), Indexed(int(value))]
    whole = [np.int16(value)] if value == int(value) else []
    return [np.float32(value), np.float64(value), np.float16(value), Fraction(value), *whole]


class Indexed:
    """An integer of another library."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.fixture(autouse=True)
def _where_files_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"text": "a", "user_id": "u"}\n{"text": "b", "user_id": "u"}\n')


def _opened() -> Memory:
    return warpmem.open(embedder=HashingEmbedder(32), reranker="overlap")


@pytest.fixture
def memory() -> Iterator[Memory]:
    with _opened() as memory:
        yield memory


KINDS = dict(_parameters(Memory))


def test_every_number_of_a_method_is_among_these() -> None:
    assert set(MEMORY) == set(KINDS)
    assert set(INDEX) == set(dict(_parameters(VectorIndex, "__init__")))


@pytest.mark.parametrize(("method", "name"), MEMORY)
def test_methods_take_numbers_of_other_types(method: str, name: str) -> None:
    value, besides = MEMORY[method, name]
    for number in _like(value, KINDS[method, name]):
        with _opened() as memory:
            item = memory.add("text", user_id="u").id
            first = {"id": item} if method in ("update", "revert") else {}
            getattr(memory, method)(**first, **besides, **{name: number})
            for item in memory.list(U, include_past=True, quarantined=True):
                assert [type(of) for of in (item.priority, item.trust, item.version)] == [float, float, int]


@pytest.mark.parametrize(("method", "name"), MEMORY)
def test_methods_refuse_booleans_and_what_is_no_number(memory: Memory, method: str, name: str) -> None:
    _, besides = MEMORY[method, name]
    first = {"id": memory.add("text", user_id="u").id} if method in ("update", "revert") else {}
    wrong: list[Any] = [np.bool_(True), "1", np.ones(2), float("nan"), np.float32("nan"), np.float32("inf")]
    for value in wrong if name == "rerank" else [*wrong, True]:
        with pytest.raises(InputError):
            getattr(memory, method)(**first, **besides, **{name: value})


@pytest.mark.parametrize(("method", "name"), INDEX)
def test_an_index_takes_numbers_of_other_types(tmp_path: Path, method: str, name: str) -> None:
    wanted = dict(_parameters(VectorIndex, "__init__"))[method, name]
    index = VectorIndex(4, recall=0.9)
    index.add(np.eye(4))
    index.save(tmp_path / "index")

    def call(value: Any) -> None:
        if method == "search":
            index.search(np.ones(4), **{name: value})
        elif method == "load":
            VectorIndex.load(tmp_path / "index", **{name: value})
        else:
            VectorIndex(**{"dim": 4, name: value})

    for number in _like(INDEX[method, name], wanted):
        call(number)
    for value in (np.bool_(True), True, "1", np.float32("nan")):
        with pytest.raises(InputError):
            call(value)


@pytest.mark.parametrize("name", [name for name, kind in Config.__annotations__.items() if _numeric(kind)])
def test_options_are_plain_numbers(name: str) -> None:
    """Where open() is told them, and where a Config is made."""
    value = {"near_duplicate": 0.5}.get(name, 1 << 20)
    kind = type(value)
    for number in (np.float32(value),) if kind is float else (np.int64(value), np.uint32(value)):
        config = Config(**{name: number})
        assert type(getattr(config, name)) is kind
        with warpmem.open(embedder="hashing", **{name: number}) as memory:
            assert getattr(memory._config, name) == value
            assert type(getattr(memory._config, name)) is kind
    for wrong in (np.bool_(True), True, np.float32("nan")):
        with pytest.raises(InputError):
            warpmem.open(embedder="hashing", **{name: wrong})


def test_tables_of_options_are_plain_numbers() -> None:
    with warpmem.open(
        embedder="hashing",
        embedder_options={"dimension": np.int64(32)},
        prices={"m": {"per_million_tokens": np.float32(0.5)}},
        owner_limit=Budget(money=np.int64(3)),
        forgetting={"max_items": np.int64(5), "grace_days": np.float32(1.5)},
    ) as memory:
        config, dimension = memory._config, memory.stats().dimension
    assert config.forgetting is not None
    numbers = [
        dimension, config.prices["m"].per_million_tokens, config.owner_limit.money,
        config.forgetting.max_items, config.forgetting.grace_days,
    ]  # fmt: skip
    assert numbers == [32, 0.5, 3, 5, 1.5]
    assert [type(number) for number in numbers] == [int, float, float, int, float]


def test_parts_of_a_store_take_numbers_of_other_types() -> None:
    one: Any = np.int64(1)
    assert type(Price(per_device_second=one).per_device_second) is float
    assert [type(each.dimension) for each in (HashingEmbedder(one), GivenVectors(one))] == [int, int]
    function = CallableEmbedder(lambda texts: np.ones((len(texts), 1)), "m", one, parallel=one)
    assert (type(function.dimension), type(function.parallel)) == (int, int)
    with warpmem.open(dimension=one) as memory:
        assert type(memory.stats().dimension) is int
        AsyncMemory(memory, threads=one)
        stream = memory.training_stream(shard=(np.int64(0), np.uint8(2)))
        assert list(stream) == []


@pytest.mark.parametrize("path", ["add", "update", "document", "entity", "item"])
def test_metadata_holds_what_numpy_means(memory: Memory, path: str) -> None:
    """It was refused, but for float64."""
    given: Any = {
        "n": np.int32(3),
        "x": np.float32(0.5),
        "on": np.bool_(False),
        "all": [np.uint64(2**64 - 1)],
    }
    plain = {"n": 3, "x": 0.5, "on": False, "all": [2**64 - 1]}
    if path == "update":
        item = memory.update(memory.add("text", user_id="u").id, metadata=given).id
    elif path == "document":
        item = memory.add_document("text", name="n", user_id="u", metadata=given).id
    elif path == "entity":
        item = memory.name_entity("Ada", user_id="u", metadata=given).id
    elif path == "item":
        item = memory.add(NewItem(text="text", metadata=given), user_id="u").id
    else:
        item = memory.add("text", user_id="u", metadata=given).id
    stored = memory.get(item).metadata
    assert {name: stored[name] for name in plain} == plain
    assert {name: type(stored[name]) for name in plain} == {"n": int, "x": float, "on": bool, "all": list}
    assert type(stored["all"][0]) is int
    filters: dict[str, Any] = {
        "metadata.n": np.int64(3), "metadata.x": {"lte": np.float32(0.5)}, "metadata.on": np.bool_(False),
        "metadata.all": {"exists": np.bool_(True)}, "priority": {"in": [np.float16(0.5)]},
    }  # fmt: skip
    assert memory.count(user_id="u", filters=filters, include_past=True) >= 1
    assert msgspec.json.encode(stored)


def test_metadata_and_filters_refuse_what_json_has_not(memory: Memory) -> None:
    for wrong in (
        np.float32("nan"),
        np.ones(2),
        np.complex64(1),
        np.datetime64("2026-01-01"),
        Fraction(1, 2),
    ):
        with pytest.raises(InvalidMetadata):
            memory.add("text", user_id="u", metadata={"a": wrong})
        with pytest.raises(InvalidFilter):
            memory.count(user_id="u", filters={"metadata.a": {"eq": wrong}})
    with pytest.raises(InvalidFilter):
        memory.count(user_id="u", filters={"metadata.a": {"gt": np.bool_(True)}})


WEIGHTS = ("similarity", "lexical", "adjacent", "entities", "recency", "priority", "diversity")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((Ranking, name) for name in WEIGHTS),
        (functools.partial(ScopeWeight, U), "weight"),
        (functools.partial(ScopeWeight, U), "quota"),
        (functools.partial(RankBy, recency_column="r", priority_column="p"), "similarity"),
        (functools.partial(RankBy, recency_column="r"), "recency"),
        (functools.partial(RankBy, priority_column="p"), "priority"),
    ],
)
def test_weights_are_plain_numbers(make: Callable[..., Any], name: str) -> None:
    wanted = "int" if name == "quota" else "float"
    for number in _like(1, wanted):
        made = getattr(make(**{name: number}), name)
        assert (made, type(made).__name__) == (1, wanted)
    for wrong in (True, np.bool_(True), "1", np.float32("nan"), np.ones(2)):
        with pytest.raises(InputError):
            make(**{name: wrong})


def test_factors_of_spaces_are_plain_numbers() -> None:
    made = Ranking(spaces={"code": np.float32(0.5), "text": np.int64(2)})  # type: ignore[dict-item]
    assert made.spaces == {"code": 0.5, "text": 2.0}
    assert {type(factor) for factor in made.spaces.values()} == {float}


def test_what_counts_as_a_number() -> None:
    class Twice(int):
        def __int__(self) -> int:
            return 2 * int.__int__(self)

    assert [int_of(value) for value in (Twice(3), np.array(3), 10**30)] == [3, 3, 10**30]
    assert type(int_of(Twice(3))) is int
    wrong = [1.0, np.float64(1), "1", None, True, np.bool_(True), np.array([1]), np.array(True), Fraction(1)]
    assert [int_of(value) for value in wrong] == [None] * len(wrong)
    assert [float_of(value) for value in (2, np.float64(0.5), Fraction(1, 4), -(10**400))] == [
        2.0, 0.5, 0.25, -float("inf"),
    ]  # fmt: skip
    assert type(float_of(np.float64(0.5))) is float
    assert [float_of(value) for value in (True, np.bool_(True), "1", None, 1j)] == [None] * 5
    assert operator.index(Indexed(3)) == int_of(Indexed(3)) == 3


def test_a_number_too_long_to_be_written_is_refused_as_any_other(memory: Memory) -> None:
    """Python raises ValueError where it is to be shown in a message."""
    with pytest.raises(InputError, match="bits"):
        memory.search("text", user_id="u", k=10**5000)
