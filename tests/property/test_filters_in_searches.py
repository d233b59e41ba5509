"""Filters through searches, listings and counts, against tests/filter_oracle.py: every operator on every type
and random nests of them. With and without declared keys, in every mode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warpmem
from filter_oracle import evaluate, plain
from warpmem import Memory, NewItem, Scope
from warpmem.errors import InvalidFilter
from warpmem.ops.clock import FixedClock

START = datetime(2026, 3, 4, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
DIM = 4
ALL = 1000
DECLARED = {"x": "number", "y": "string", "z": "boolean", "n.m": "number"}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 1.0, 2.5, -3, 2**53 + 1, "", "a", "A", "ab", "1", "2026-03-04", "Straße",
    [], ["a"],
    [1, None, True, "ab"], {}, {"m": 1}, {"m": "a"}, {"m": [2]},
)  # fmt: skip
OPERANDS: tuple[Any, ...] = (
    None, True, False, 0, 1, 1.0, 2.5, 2**53, 2**53 + 1, -0.0, 10**30, "", "a", "AB", "1", "2026-03-04",
    "STRASSE",
    [], [1, "a"], [None, True], ["", 2.5, 2**53 + 1], {}, float("nan"), START,
)  # fmt: skip
EQUAL, COMPARE, LISTS = ("eq", "ne", "contains"), ("gt", "gte", "lt", "lte"), ("in", "nin")
STORES = ("plain", "declared", "numpy")
MODES = ("dense", "lexical", "hybrid")


def accepted(operator: str, operand: Any) -> bool:
    """Whether the grammar takes this operand of a metadata field."""

    def scalar(value: Any) -> bool:
        return value is None or (isinstance(value, (bool, int, float, str)) and value == value)

    if operator == "exists":
        return isinstance(operand, bool)
    if operator in LISTS:
        return isinstance(operand, list) and all(map(scalar, operand))
    if operator == "icontains":
        return isinstance(operand, str)
    if operator in COMPARE:
        return scalar(operand) and operand is not None and not isinstance(operand, bool)
    return scalar(operand)


def fill(memory: Memory, clock: FixedClock) -> None:
    for i, value in enumerate(VALUES):
        other = VALUES[(7 * i + 3) % len(VALUES)]
        metadata = {"x": value, "y": other, "z": value if isinstance(value, bool) else other, "n": value}
        if i % 4 == 0:
            del metadata["y"]
        begin = START - HOUR * (i % 5)
        item = NewItem(
            text=f"red {'tower ' * (i % 3)}{i % 2}",
            kind=("fact", "event", "note")[i % 3],
            scope=Scope(user_id="u", agent_id=(None, "tutor")[i % 2], run_id=(None, "r", "s")[i % 3]),
            metadata=metadata,
            priority=(i % 3) / 2,
            entities=("Nadia", "Porto")[: i % 3],
            key=f"k{i}" if i % 6 == 0 else None,
            valid_from=begin,
            valid_to=START + HOUR * 90 if i % 7 == 0 else None,
            expires_at=START + HOUR * 99 if i % 8 == 0 else None,
            vector=np.array([1.0, i % 3, i % 2, 0.5], np.float32),
        )
        memory.add_many([item])
        clock.advance(timedelta(minutes=1))
    for found in memory.list(user_id="u").items[::5]:
        memory.update(found.id, metadata={**found.metadata, "x": 7})


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, Memory]]:
    opened = {}
    for name in STORES:
        clock = FixedClock(START)
        backend: Any = "numpy" if name == "numpy" else "cpu"
        columns: Any = DECLARED if name == "declared" else {}
        opened[name] = warpmem.open(dimension=DIM, clock=clock, backend=backend, columns=columns)
        fill(opened[name], clock)
    _STORES.update(opened)
    yield opened
    _STORES.clear()
    for memory in opened.values():
        memory.close()


_STORES: dict[str, Memory] = {}  # for what hypothesis runs


def check(memory: Memory, filters: dict[str, Any], modes: tuple[Any, ...] = MODES) -> None:
    """Listing, counting and searching give what the oracle lets through, in the order and with the scores
    that they have without the filter."""
    listed = memory.list(user_id="u", limit=ALL, include_past=True).items
    wanted = [item for item in listed if evaluate(filters, plain(item))]
    assert list(memory.list(user_id="u", filters=filters, limit=ALL, include_past=True).items) == wanted
    assert memory.count(user_id="u", filters=filters, include_past=True) == len(wanted)
    ids = {item.id for item in wanted}
    for mode in modes:
        options: dict[str, Any] = {"vector": np.ones(DIM), "user_id": "u", "mode": mode}
        every = memory.search("red tower 1", **options, k=ALL)
        passing = [(hit.item.id, hit.score) for hit in every if hit.item.id in ids]
        for k in (3, ALL):
            found = memory.search("red tower 1", **options, k=k, filters=filters)
            assert [(hit.item.id, hit.score) for hit in found] == passing[:k], (mode, filters)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("operator", [*EQUAL, *COMPARE, *LISTS, "icontains", "exists"])
def test_every_operator_with_every_operand_on_every_type(
    stores: dict[str, Memory], store: str, operator: str
) -> None:
    """Of metadata: declared or not, nested, and missing."""
    memory = stores[store]
    for operand, field in itertools.product(OPERANDS, ("x", "y", "z", "n.m", "gone", "x.deeper")):
        filters = {f"metadata.{field}": {operator: operand}}
        if accepted(operator, operand):
            check(memory, filters, ("dense",) if store == "numpy" else ("hybrid",))
            assert evaluate({"not": filters}, {"metadata": {}}) is not evaluate(filters, {"metadata": {}})
        else:
            for call in (memory.list, memory.count):
                with pytest.raises(InvalidFilter) as caught:
                    call(user_id="u", filters=filters)  # type: ignore[operator]
                assert caught.value.path.startswith(f"metadata.{field}.{operator}")
            with pytest.raises(InvalidFilter):
                memory.search("red", vector=np.ones(DIM), user_id="u", filters=filters)


MOMENTS = [START - HOUR * 2, START, START + timedelta(minutes=7), START + HOUR * 90, START + HOUR * 99]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "field", ["created_at", "touched_at", "valid_from", "valid_to", "recorded_at", "expires_at"]
)
def test_every_operator_on_every_time(stores: dict[str, Memory], store: str, field: str) -> None:
    """As moments of several zones, and as text."""
    east = timezone(timedelta(hours=5, minutes=30))
    for moment in MOMENTS:
        for spelled in (
            moment,
            moment.astimezone(east),
            moment.isoformat(),
            moment.astimezone(east).isoformat(),
        ):
            for operator in ("eq", "ne", *COMPARE):
                check(stores[store], {field: {operator: spelled}}, ("lexical",))
    for operator in LISTS:
        check(stores[store], {field: {operator: MOMENTS[:3]}}, MODES)
        check(stores[store], {field: {operator: []}}, ("dense",))
    for refused in (None, 3, "soon", "2026-03-04", START.replace(tzinfo=None), True):
        with pytest.raises(InvalidFilter):
            stores[store].list(user_id="u", filters={field: refused})


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "filters",
    [
        {"kind": "fact"}, {"kind": {"in": ["event", "note"]}}, {"kind": {"ne": "fact"}},
        {"kind": {"gt": "event"}},
        {"text": {"contains": "tower"}}, {"text": {"icontains": "TOWER 1"}}, {"key": {"exists": True}},
        {"key": {"exists": False}}, {"key": {"ne": "k0"}}, {"key": {"nin": ["k0", "k6"]}},
        {"key": {"lte": "k12"}},
        {"agent_id": "tutor"}, {"agent_id": {"exists": False}}, {"run_id": {"in": ["r", "s"]}},
        {"user_id": "u"},
        {"user_id": {"ne": "u"}}, {"corpus_id": {"exists": True}}, {"priority": {"gte": 0.5, "lt": 1}},
        {"priority": 1}, {"priority": {"nin": [0, 1]}}, {"version": {"gt": 1}}, {"trust": {"exists": True}},
        {"entities": {"contains": "Nadia"}}, {"entities": {"icontains": "PORTO"}},
        {"entities": {"exists": True}},
        {"sources": {"contains": "x"}}, {"modality": "text"}, {"modality": {"in": ["code", "image"]}}, {},
        {"and": []}, {"or": []}, {"not": {}}, {"not": {"or": []}}, {"valid": {"before": START}},
        {"valid": {"after": START - HOUR, "before": START}}, {"valid": {"during": [None, START - HOUR]}},
        {"valid": {"during": [START + 90 * HOUR, START + 95 * HOUR]}},
        {"not": {"valid": {"during": [START + 91 * HOUR, None]}}},
    ],
)  # fmt: skip
def test_fields_of_items(stores: dict[str, Memory], store: str, filters: dict[str, Any]) -> None:
    check(stores[store], filters)


def conditions() -> Any:
    scalars = st.sampled_from([value for value in OPERANDS if accepted("eq", value)])
    ordered = st.sampled_from([value for value in OPERANDS if accepted("gt", value)])
    json = st.sampled_from(
        ["metadata.x", "metadata.y", "metadata.z", "metadata.n.m", "metadata.n", "metadata.gone"]
    )
    moments = st.sampled_from(MOMENTS)
    times = st.sampled_from(["created_at", "valid_from", "valid_to", "recorded_at"])
    return (
        st.tuples(json, st.tuples(st.sampled_from(EQUAL), scalars))
        | st.tuples(json, st.tuples(st.sampled_from(COMPARE), ordered))
        | st.tuples(json, st.tuples(st.sampled_from(LISTS), st.lists(scalars, max_size=4)))
        | st.tuples(json, st.tuples(st.just("exists"), st.booleans()))
        | st.tuples(json, st.tuples(st.just("icontains"), st.sampled_from(["a", "STRASSE", ""])))
        | st.tuples(times, st.tuples(st.sampled_from(["eq", *COMPARE]), moments))
        | st.tuples(
            st.just("valid"), st.tuples(st.sampled_from(["before", "after"]), st.sampled_from(MOMENTS))
        )
        | st.tuples(
            st.just("kind"), st.tuples(st.sampled_from(["eq", "ne"]), st.sampled_from(["fact", "note"]))
        )
    ).map(lambda pair: {pair[0]: {pair[1][0]: pair[1][1]}})


NESTS = st.recursive(
    conditions(),
    lambda inner: (
        st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3), min_size=1)
        | st.fixed_dictionaries({"not": inner})
        | st.builds(lambda a, b: {**a, "or": [b, a]}, conditions(), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(NESTS, st.sampled_from(STORES), st.sampled_from(MODES))
def test_random_nests(stores: dict[str, Memory], filters: dict[str, Any], store: str, mode: str) -> None:
    check(stores[store], filters, (mode,))
