"""Filters: a closed grammar over one item, compiled once into closures.

    filter     = {} | {entry, ...}                          all entries hold; {} matches everything
    entry      = "and": [filter, ...] | "or": [filter, ...] | "not": filter
               | field: condition | "valid": bounds | "happened": {"before": day, "after": day,
                                                       "during": [day | null, day | null]}
    condition  = scalar                                     short for {"eq": scalar}
               | {operator: operand, ...}                   at least one; all hold
    field      = "metadata.<key>[.<key>...]" | an item field (ITEM_FIELDS)
    key        = of at least one character, without a period, not beginning with a quotation mark
               | any key as a JSON string, with its quotation marks: metadata."http.status"
    bounds     = {"before": time, "after": time, "during": [time | null, time | null]}

    operator       operand                 holds when the field is present and ...
    eq  ne         scalar                  equals it; does not equal it
    gt gte lt lte  number, string, time    is of the operand's type and compares so
    in  nin        list of scalars         equals one of them; equals none
    contains       scalar                  string: has it as a part; list: has it as an element
    icontains      string                  as contains, both sides casefolded
    exists         bool                    (the only operator, with "not", that a missing field can satisfy)

An empty "and" matches everything, an empty "or" nothing. Scalars are null, booleans, finite numbers and
strings. A boolean is not a number; 1 equals 1.0; integers and floats compare exactly. Strings compare by
code point. `null` in metadata is a present value that equals null and is never ordered. An item field that
is None (no key, no end, no agent) is missing instead, so null is refused there; `entities` and `sources` are
always present. Time fields take ISO 8601 strings with an offset, or aware datetimes.

`valid` is the time in which an item is true, from valid_from to valid_to. before: it begins before that time.
after: it begins then or later. during: it is true at some time from the first on and before the last. Bounds
that nothing can meet are refused. It narrows what is looked at: a search sees what is true at
`as_of`, or at some time of its own `during`.

`happened` is when what an item says happened, where its metadata tells (`event_time`, as memories of messages
have it). before: it began before that day. after: it began on that day or later. during: it has a day in
common with those from the first to the last, both included. A day is a string like 2026-03-01 or a date.
Strings are compared, whatever an application has put there itself.

An element of a list cannot be addressed by its number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidFilter
from ..ops.event_time import FIRST, LAST
from ..ops.filter_grammar import AllOf, Condition, Node, Not, Vocabulary, parse_filter
from ..ops.predicates import (
    Family,
    Predicate,
    check_operand,
    contains,
    equal,
    icontains,
    inverse,
    member,
    ordered,
)
from ..types import MemoryItem
from ..types.paths import keys_of, path_of

Test = Callable[[MemoryItem], bool]

ITEM_FIELDS: dict[str, Family] = {
    **dict.fromkeys(("id", "kind", "text", "key", "modality"), "string"),
    **dict.fromkeys(("user_id", "agent_id", "run_id", "corpus_id"), "string"),
    **dict.fromkeys(("priority", "trust", "version"), "number"),
    **dict.fromkeys(("entities", "sources"), "list"),
    **dict.fromkeys(
        ("created_at", "touched_at", "valid_from", "valid_to", "recorded_at", "expires_at"), "time"
    ),
}

_METADATA = "metadata."
_SCOPE_FIELDS = frozenset(("user_id", "agent_id", "run_id", "corpus_id"))
_MISSING = object()
_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


class CompiledFilter:
    """A checked filter. Immutable and thread-safe.

    matches: item -> bool. canonical: equal for filters that differ only in spelling (order of entries,
    shorthand, 1 and 1.0, offset of a time), so it can key a cache. fields: every field the filter reads.
    node: the filter as a tree.
    """

    __slots__ = ("canonical", "fields", "matches", "node")

    def __init__(self, matches: Test, canonical: bytes, fields: frozenset[str], node: Node) -> None:
        self.node = node
        self.matches = matches
        self.canonical = canonical
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, CompiledFilter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)


def compile_filter(filters: Mapping[str, Any] | None) -> CompiledFilter:
    """Check and compile a filter; None matches everything. Raises InvalidFilter naming the path."""
    parsed = parse_filter(filters, _VOCABULARY)
    return CompiledFilter(_test(parsed.node), parsed.canonical, parsed.fields, parsed.node)


def _family(name: str, path: str) -> Family:
    if name.startswith(_METADATA):
        if keys_of(name.removeprefix(_METADATA)) is None:
            raise InvalidFilter(
                path,
                "no path of metadata keys; one that is empty, holds a period or begins with a quotation mark "
                'is written as a JSON string: metadata."http.status"',
            )
        return "json"
    if name not in ITEM_FIELDS:
        known = ", ".join(ITEM_FIELDS)
        raise InvalidFilter(
            path, f"unknown field; write metadata.<key>, or one of {known}, or valid, happened, and, or, not"
        )
    return ITEM_FIELDS[name]


def _keys(name: str) -> tuple[str, ...]:
    """Of a metadata field that was checked."""
    keys = keys_of(name.removeprefix(_METADATA))
    assert keys is not None
    return keys


def _spelled(name: str) -> str:
    return _METADATA + path_of(_keys(name)) if name.startswith(_METADATA) else name


_VOCABULARY = Vocabulary(
    _family, check_operand, {"valid": ("valid_from", "valid_to")}, {"happened": (FIRST, LAST)}, _spelled
)


# ------------------------------------------------------------------------------------ tests over an item


def _test(node: Node) -> Test:
    if isinstance(node, Condition):
        return _condition(node)
    if isinstance(node, Not):
        part = _test(node.part)
        return lambda item: not part(item)
    tests = tuple(_test(part) for part in node.parts)
    return _all_of(tests) if isinstance(node, AllOf) else _any_of(tests)


def _condition(node: Condition) -> Test:
    absent = any(name == "exists" and not operand for name, operand in node.tests)
    if not absent:
        return _present(node.field, [_predicate(*test) for test in node.tests if test[0] != "exists"])
    # No other operator holds on a missing field.
    return _absent(node.field) if len(node.tests) == 1 else _never


def _predicate(name: str, operand: Any) -> Predicate:
    """The predicate over a present value."""
    if name in ("in", "nin"):
        among = member(operand)
        return among if name == "in" else inverse(among)
    if name in _COMPARE:
        return ordered(_COMPARE[name], operand)
    if name == "contains":
        return contains(operand)
    if name == "icontains":
        return icontains(operand)
    same = equal(operand)
    return same if name == "eq" else inverse(same)


def _always(item: MemoryItem) -> bool:
    return True


def _never(item: MemoryItem) -> bool:
    return False


def _getter(name: str) -> tuple[Callable[[MemoryItem], Any], Any]:
    """(function from item to value, what it gives when the field is missing)."""
    if not name.startswith(_METADATA):
        return operator.attrgetter(f"scope.{name}" if name in _SCOPE_FIELDS else name), None
    first, *rest = _keys(name)
    if not rest:
        return lambda item: item.metadata.get(first, _MISSING), _MISSING

    def walk(item: MemoryItem) -> Any:
        value = item.metadata.get(first, _MISSING)
        for key in rest:
            if type(value) is not dict:
                return _MISSING
            value = value.get(key, _MISSING)
        return value

    return walk, _MISSING


def _present(name: str, predicates: Sequence[Predicate]) -> Test:
    get, missing = _getter(name)
    if not predicates:
        return lambda item: get(item) is not missing
    if len(predicates) == 1:
        only = predicates[0]

        def test_one(item: MemoryItem) -> bool:
            value = get(item)
            return value is not missing and only(value)

        return test_one

    first, *others = predicates

    def test(item: MemoryItem) -> bool:
        value = get(item)
        if value is missing or not first(value):
            return False
        for predicate in others:  # noqa: SIM110 - a generator would cost more than most predicates
            if not predicate(value):
                return False
        return True

    return test


def _absent(name: str) -> Test:
    get, missing = _getter(name)
    return lambda item: get(item) is missing


def _all_of(tests: Sequence[Test]) -> Test:
    if not tests:
        return _always
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda item: first(item) and second(item)
    return lambda item: all(test(item) for test in tests)


def _any_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda item: first(item) or second(item)
    return lambda item: any(test(item) for test in tests)
