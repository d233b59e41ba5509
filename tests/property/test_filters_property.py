"""Random filters against tests/filter_oracle.py."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from filter_oracle import evaluate
from warpmem.policy.filters import compile_filter
from warpmem.types import MemoryItem, Scope

T0 = datetime(2026, 3, 4, 9, tzinfo=UTC)

numbers = st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 2.5, -1.5, 2**53, 2**53 + 1, float(2**53)])
strings = st.sampled_from(["", "a", "A", "ab", "B", "ß", "SS", "1"])
scalars = st.none() | st.booleans() | numbers | strings
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.sampled_from("xy"), scalars, max_size=2)
metadata = st.dictionaries(st.sampled_from(["x", "y", "z", "x.y", '"', ""]), values, max_size=4)

conditions = (
    scalars
    | st.dictionaries(st.sampled_from(["eq", "ne", "contains"]), scalars, min_size=1, max_size=2)
    | st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), numbers | strings, min_size=1, max_size=3)
    | st.dictionaries(st.sampled_from(["in", "nin"]), st.lists(scalars, max_size=4), min_size=1)
    | st.fixed_dictionaries({"exists": st.booleans()}, optional={"icontains": strings, "ne": scalars})
)
fields = st.sampled_from(["metadata.x", "metadata.y", "metadata.z", "metadata.x.y", "metadata.z.x"])
quoted = st.sampled_from(
    ['metadata."x.y"', 'metadata."x".y', 'metadata."\\"".x', 'metadata.""', 'metadata."x.y".x']
)
fields |= quoted
leaves = st.dictionaries(fields, conditions, max_size=2) | st.dictionaries(
    st.sampled_from(["kind", "key"]), strings | st.fixed_dictionaries({"exists": st.booleans()}), max_size=2
)
days = st.dates(date(2026, 2, 26), date(2026, 3, 3)).map(date.isoformat)
bounds = st.fixed_dictionaries(
    {"during": st.tuples(days, days).map(sorted) | st.tuples(st.none(), days) | st.tuples(days, st.none())},
    optional={"before": days, "after": days},
)
event_times = st.fixed_dictionaries({"from": days | numbers, "to": days}) | scalars


filters = st.recursive(
    leaves,
    lambda inner: (
        st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3), min_size=1)
        | st.fixed_dictionaries({"not": inner})
        | st.builds(lambda a, b: {**a, "and": [b]}, leaves, inner)
    ),
    max_leaves=8,
)


def make_item(meta: dict[str, Any], kind: str, key: str | None) -> MemoryItem:
    return MemoryItem(
        id="i",
        scope=Scope(user_id="u"),
        kind=kind,
        key=key,
        text="t",
        metadata=meta,
        model_id="m",
        created_at=T0,
        touched_at=T0,
        valid_from=T0,
        recorded_at=T0,
    )


@settings(max_examples=600, deadline=None, derandomize=True)
@given(filters, metadata, strings, st.none() | strings)
def test_agrees_with_the_table(
    node: dict[str, Any], meta: dict[str, Any], kind: str, key: str | None
) -> None:
    plain: dict[str, Any] = {"metadata": meta, "kind": kind}
    if key is not None:
        plain["key"] = key
    compiled = compile_filter(node)
    assert compiled.matches(make_item(meta, kind, key)) is evaluate(node, plain)
    negated = compile_filter({"not": node})
    assert negated.matches(make_item(meta, kind, key)) is not evaluate(node, plain)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(bounds, event_times)
def test_days_on_which_it_happened(bounds: dict[str, Any], event_time: Any) -> None:
    meta = {"event_time": event_time}
    for node in ({"happened": bounds}, {"or": [{"happened": bounds}, {"kind": "x"}]}):
        expected = evaluate(node, {"metadata": meta, "kind": "k"})
        assert compile_filter(node).matches(make_item(meta, "k", None)) is expected
        assert compile_filter({"not": node}).matches(make_item(meta, "k", None)) is not expected
    assert not compile_filter({"happened": bounds}).matches(make_item({}, "k", None))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(filters, filters, metadata, strings)
def test_equal_canonical_means_equal_answers(
    one: dict[str, Any], other: dict[str, Any], meta: dict[str, Any], kind: str
) -> None:
    a, b = compile_filter(one), compile_filter(other)
    reordered = compile_filter({"and": [{name: value} for name, value in reversed(one.items())]})
    assert reordered.canonical == a.canonical
    item = make_item(meta, kind, None)
    assert reordered.matches(item) is a.matches(item)
    if a.canonical == b.canonical:
        assert a.matches(item) is b.matches(item)
