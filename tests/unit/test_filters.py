"""policy/filters.py: what each operator means, what is refused and where the message points."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from warpmem.errors import InvalidFilter
from warpmem.ops.filter_grammar import MAX_DEPTH, MAX_NODES
from warpmem.policy.filters import ITEM_FIELDS, compile_filter
from warpmem.types import MemoryItem, Scope

T0 = datetime(2026, 3, 4, 9, tzinfo=UTC)
NAIVE = T0.replace(tzinfo=None)


def make_item(metadata: dict[str, Any] | None = None, **changes: Any) -> MemoryItem:
    values: dict[str, Any] = {
        "id": "i1",
        "scope": Scope(user_id="nadia", agent_id="tutor"),
        "kind": "fact",
        "text": "Nadia lives in Straße 9, Porto.",
        "metadata": metadata or {},
        "entities": ("Nadia", "Porto"),
        "model_id": "m",
        "created_at": T0,
        "touched_at": T0,
        "valid_from": T0,
        "recorded_at": T0,
    }
    return MemoryItem(**{**values, **changes})


META: dict[str, Any] = {
    "n": 5,
    "f": 2.5,
    "s": "Apfel",
    "yes": True,
    "nil": None,
    "tags": ["a", "B", 1, None, True],
    "deep": {"er": {"x": 1}},
    "dict": {"a": 1},
    "big": 2**63 + 1,
    "http.status": 200,
    "a.b": {"c.d": 1, "c": {"d": 2}, "": 3},
    "a": {"b": {"c": 4}},
    '"q': 5,
    'say "hi".': 6,
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, True),
        ({}, True),
        ({"metadata.n": 5}, True),
        ({"metadata.n": 5.0}, True),
        ({"metadata.n": {"eq": 6}}, False),
        ({"metadata.n": "5"}, False),
        ({"metadata.n": {"ne": "5"}}, True),
        ({"metadata.n": {"gte": 5, "lt": 6}}, True),
        ({"metadata.n": {"gte": 5, "lt": 5}}, False),
        ({"metadata.n": {"gt": 7, "lt": 10}}, False),
        ({"metadata.n": {"gt": "4"}}, False),
        ({"metadata.f": {"gt": 2, "lte": 2.5}}, True),
        ({"metadata.yes": True}, True),
        ({"metadata.yes": 1}, False),
        ({"metadata.n": {"in": [True]}}, False),
        ({"metadata.yes": {"in": [1]}}, False),
        ({"metadata.yes": {"in": [1, True]}}, True),
        ({"metadata.yes": {"gte": 0}}, False),
        ({"metadata.nil": None}, True),
        ({"metadata.nil": {"exists": True}}, True),
        ({"metadata.nil": {"ne": 1}}, True),
        ({"metadata.nil": {"in": [None]}}, True),
        ({"metadata.nil": {"lt": 3}}, False),
        ({"metadata.gone": None}, False),
        ({"metadata.gone": {"ne": 1}}, False),
        ({"metadata.gone": {"nin": [1]}}, False),
        ({"metadata.gone": {"exists": False}}, True),
        ({"metadata.gone": {"exists": False, "ne": 1}}, False),
        ({"metadata.n": {"exists": False}}, False),
        ({"not": {"metadata.gone": 1}}, True),
        ({"metadata.s": {"gt": "Apf", "lt": "B"}}, True),
        ({"metadata.s": {"contains": "pfe"}}, True),
        ({"metadata.s": {"contains": 1}}, False),
        ({"metadata.s": {"icontains": "aPF"}}, True),
        ({"metadata.tags": {"contains": "a"}}, True),
        ({"metadata.tags": {"contains": "b"}}, False),
        ({"metadata.tags": {"icontains": "b"}}, True),
        ({"metadata.tags": {"contains": 1.0}}, True),
        ({"metadata.tags": {"contains": None}}, True),
        ({"metadata.tags": {"in": ["a"]}}, False),
        ({"metadata.tags": {"nin": ["a"]}}, True),
        ({"metadata.tags": {"ne": 1}}, True),
        ({"metadata.dict": {"contains": "a"}}, False),
        ({"metadata.dict": {"in": ["a"]}}, False),
        ({"metadata.deep.er.x": 1}, True),
        ({"metadata.deep.er": {"exists": True}}, True),
        ({"metadata.deep.er.x.y": {"exists": False}}, True),
        ({"metadata.tags.0": {"exists": False}}, True),
        ({"metadata.big": 2**63 + 1}, True),
        ({"metadata.big": float(2**63)}, False),
        ({"metadata.big": {"gt": float(2**63)}}, True),
        ({'metadata."http.status"': 200}, True),
        ({'metadata."http.status"': {"gte": 200, "lt": 200}}, False),
        ({"metadata.http.status": {"exists": False}}, True),
        ({'metadata."a.b"."c.d"': 1}, True),
        ({'metadata."a.b".c.d': 2}, True),
        ({'metadata."a.b".""': 3}, True),
        ({"metadata.a.b.c": 4}, True),
        ({'metadata."a"."b".c': 4}, True),
        ({'metadata."\\"q"': 5}, True),
        ({'metadata."say \\"hi\\"."': 6}, True),
        ({'metadata."\\u0061.b"."c.d"': 1}, True),
        ({"metadata.n": {"in": []}}, False),
        ({"metadata.n": {"nin": []}}, True),
        ({"and": []}, True),
        ({"or": []}, False),
        ({"or": [{"metadata.n": 1}, {"metadata.s": "Apfel"}]}, True),
        ({"and": [{"metadata.n": 5}, {"or": [{"kind": "event"}, {"not": {"kind": "event"}}]}]}, True),
        ({"metadata.n": 5, "kind": "event"}, False),
        ({"kind": {"in": ("fact", "event")}}, True),
        ({"text": {"icontains": "STRASSE"}}, True),
        ({"text": {"contains": "strasse"}}, False),
        ({"key": {"exists": False}}, True),
        ({"key": {"ne": "k"}}, False),
        ({"run_id": {"exists": True}}, False),
        ({"user_id": "nadia", "agent_id": {"ne": "other"}}, True),
        ({"priority": {"gte": 0.5}, "version": 1, "trust": 1}, True),
        ({"entities": {"contains": "Porto"}}, True),
        ({"entities": {"icontains": "porto"}}, True),
        ({"entities": {"exists": True}}, True),
        ({"sources": {"contains": "Porto"}}, False),
        ({"valid_from": "2026-03-04T10:00:00+01:00"}, True),
        ({"valid_from": {"gte": "2026-03-04T09:00:00Z", "lt": T0 + timedelta(seconds=1)}}, True),
        ({"valid_from": {"in": [T0.astimezone(timezone(timedelta(hours=5)))]}}, True),
        ({"valid_to": {"exists": False}}, True),
        ({"valid_to": {"lt": "2030-01-01T00:00:00Z"}}, False),
    ],
)
def test_meaning(filters: Any, expected: bool) -> None:
    assert compile_filter(filters).matches(make_item(META)) is expected


@pytest.mark.parametrize(
    ("filters", "path"),
    [
        ([], ""),
        ("kind", ""),
        ({1: 2}, ""),
        ({"metadata.age": {"~": 3}}, "metadata.age.~"),
        ({"and": [{}, {"metadata.age": {"gte": True}}]}, "and[1].metadata.age.gte"),
        ({"or": [{"not": {"colour": 1}}]}, "or[0].not.colour"),
        ({"metadata": 1}, "metadata"),
        ({"metadata.": 1}, "metadata."),
        ({"metadata.a..b": 1}, "metadata.a..b"),
        ({'metadata."a': 1}, 'metadata."a'),
        ({'metadata."a"b': 1}, 'metadata."a"b'),
        ({'metadata."a".': 1}, 'metadata."a".'),
        ({'metadata."\\x".gt': {"gt": 1}}, 'metadata."\\x".gt'),
        ({"blob": {"exists": True}}, "blob"),
        ({"and": {"kind": "fact"}}, "and"),
        ({"not": [{"kind": "fact"}]}, "not"),
        ({"kind": {}}, "kind"),
        ({"kind": ["fact"]}, "kind"),
        ({"kind": 3}, "kind"),
        ({"kind": None}, "kind"),
        ({"kind": {"in": "fact"}}, "kind.in"),
        ({"kind": {"in": ["fact", 1]}}, "kind.in[1]"),
        ({"kind": {"exists": 1}}, "kind.exists"),
        ({"priority": {"gt": "high"}}, "priority.gt"),
        ({"priority": {"contains": 1}}, "priority.contains"),
        ({"priority": True}, "priority"),
        ({"entities": "Porto"}, "entities"),
        ({"entities": {"in": ["Porto"]}}, "entities.in"),
        ({"metadata.a": {"gt": None}}, "metadata.a.gt"),
        ({"metadata.a": {"eq": [1]}}, "metadata.a.eq"),
        ({"metadata.a": {"eq": {"b": 1}}}, "metadata.a.eq"),
        ({"metadata.a": {"icontains": 1}}, "metadata.a.icontains"),
        ({"metadata.a": float("nan")}, "metadata.a"),
        ({"metadata.a": {"lt": float("inf")}}, "metadata.a.lt"),
        ({"metadata.a": 1 << 2000}, "metadata.a"),
        ({"metadata.a": T0}, "metadata.a"),
        ({"valid_from": {"gt": NAIVE}}, "valid_from.gt"),
        ({"valid_from": {"gt": "2026-01-01"}}, "valid_from.gt"),
        ({"valid_from": {"gt": "yesterday"}}, "valid_from.gt"),
        ({"valid_from": {"gt": 1.7e9}}, "valid_from.gt"),
        ({"valid_from": {"contains": "2026"}}, "valid_from.contains"),
        ({"valid_from": "0001-01-01T00:00:00+14:00"}, "valid_from"),
        ({"happened": {}}, "happened"),
        ({"happened": "2026-03-01"}, "happened"),
        ({"happened": {"on": "2026-03-01"}}, "happened.on"),
        ({"happened": {"before": "2026-3-1"}}, "happened.before"),
        ({"happened": {"after": 2026}}, "happened.after"),
        ({"happened": {"during": [None, None]}}, "happened.during"),
        ({"happened": {"during": ["2026-03-01"]}}, "happened.during"),
        ({"happened": {"during": ["2026-03-01", "2026-02-30"]}}, "happened.during[1]"),
        ({"happened": {"during": [T0.date(), T0 - timedelta(1)]}}, "happened.during"),
    ],
)
def test_refused_with_path(filters: Any, path: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        compile_filter(filters)
    assert caught.value.path == path


def test_limits() -> None:
    def nested(depth: int) -> dict[str, Any]:
        filters: dict[str, Any] = {"kind": "fact"}
        for _ in range(depth - 1):
            filters = {"not": filters}
        return filters

    assert compile_filter(nested(MAX_DEPTH)).matches(make_item()) is False  # 63 negations
    with pytest.raises(InvalidFilter, match=f"nested {MAX_DEPTH + 1} deep, over the limit of {MAX_DEPTH}"):
        compile_filter(nested(MAX_DEPTH + 1))
    loop: dict[str, Any] = {}
    loop["not"] = loop
    with pytest.raises(InvalidFilter, match="nested"):
        compile_filter(loop)
    compile_filter({"metadata.a": {"in": list(range(MAX_NODES - 2))}})
    with pytest.raises(InvalidFilter, match=f"more than {MAX_NODES}"):
        compile_filter({"metadata.a": {"in": list(range(MAX_NODES))}})
    with pytest.raises(InvalidFilter, match=f"more than {MAX_NODES}"):
        compile_filter({"or": [{"kind": "fact"}] * MAX_NODES})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, {}),
        ({}, {"and": []}),
        ({"kind": "a", "text": "b"}, {"text": {"eq": "b"}, "kind": {"eq": "a"}}),
        ({"kind": "a", "text": "b"}, {"and": [{"text": "b"}, {"kind": "a"}]}),
        ({"metadata.n": {"gt": 1, "lt": 3}}, {"metadata.n": {"lt": 3.0, "gt": 1.0}}),
        ({"metadata.n": {"in": [1, 2, 2]}}, {"metadata.n": {"in": [2.0, 1]}}),
        ({"valid_from": "2026-03-04T10:00:00+01:00"}, {"valid_from": T0}),
        ({"text": {"icontains": "AB"}}, {"text": {"icontains": "ab"}}),
    ],
)
def test_canonical_ignores_spelling(one: Any, other: Any) -> None:
    a, b = compile_filter(one), compile_filter(other)
    assert a.canonical == b.canonical
    assert a == b
    assert hash(a) == hash(b)


def test_canonical_differs_with_meaning() -> None:
    filters: list[Any] = [
        {},
        {"or": []},
        {"not": {}},
        {"metadata.a": 1},
        {"metadata.a": "1"},
        {"metadata.a": True},
        {"metadata.a": None},
        {"metadata.a": {"ne": 1}},
        {"metadata.b": 1},
        {"metadata.a": {"in": [1]}},
        {"metadata.a": {"in": ["1"]}},
        {"metadata.a": {"nin": [1]}},
        {"metadata.a": {"exists": True}},
        {"or": [{"metadata.a": 1}, {"metadata.b": 1}]},
        {"and": [{"metadata.a": 1}, {"metadata.b": 1}]},
        {"metadata.a": {"contains": "x"}},
        {"metadata.a": {"icontains": "x"}},
        {"metadata.a": 2**53},
        {"metadata.a": 2**53 + 1},
    ]
    canonical = [compile_filter(f).canonical for f in filters]
    assert len(set(canonical)) == len(filters)


def test_fields() -> None:
    compiled = compile_filter(
        {"kind": "fact", "or": [{"metadata.a.b": 1}, {"not": {"key": {"exists": True}}}]}
    )
    assert compiled.fields == {"kind", "metadata.a.b", "key"}


def test_every_item_field_is_readable() -> None:
    for name in ITEM_FIELDS:
        present = compile_filter({name: {"exists": True}}).matches(make_item(META))
        absent = compile_filter({name: {"exists": False}}).matches(make_item(META))
        assert present is not absent, name


def test_speed_of_two_conditions() -> None:
    """About 1 us an item; the bound leaves room for a slow, shared machine."""
    matches = compile_filter({"metadata.n": {"gte": 3}, "kind": "fact"}).matches
    item = make_item(META)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(2_000):
            matches(item)
        best = min(best, (time.perf_counter() - started) / 2_000)
    assert best < 10e-6, f"{best * 1e6:.2f} us an item"
