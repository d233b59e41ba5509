"""Filters: a closed grammar over one item, compiled once into closures.

    filter     = {} | {entry, ...}                          all entries hold; {} matches everything
    entry      = "and": [filter, ...] | "or": [filter, ...] | "not": filter | field: condition
    condition  = scalar                                     short for {"eq": scalar}
               | {operator: operand, ...}                   at least one; all hold
    field      = "metadata.<key>[.<key>...]" | an item field (ITEM_FIELDS)

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

A metadata key that itself holds a dot, and an element of a list by its number, cannot be addressed.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidFilter
from ..types import MemoryItem
from .predicates import (
    Family,
    Predicate,
    canonical_operand,
    check_operand,
    contains,
    equal,
    icontains,
    inverse,
    member,
    ordered,
    type_name,
)

MAX_DEPTH = 64
MAX_NODES = 10_000

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
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "icontains", "exists")

_SCOPE_FIELDS = frozenset(("user_id", "agent_id", "run_id", "corpus_id"))
_MISSING = object()
_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_REFUSED: dict[Family, frozenset[str]] = {
    "string": frozenset(),
    "json": frozenset(),
    "number": frozenset(("contains", "icontains")),
    "time": frozenset(("contains", "icontains")),
    "list": frozenset(OPERATORS) - {"contains", "icontains", "exists"},
}


class CompiledFilter:
    """A checked filter. Immutable and thread-safe.

    matches: item -> bool. canonical: equal for filters that differ only in spelling (order of entries,
    shorthand, 1 and 1.0, offset of a time), so it can key a cache. fields: every field the filter reads.
    """

    __slots__ = ("canonical", "fields", "matches")

    def __init__(self, matches: Test, canonical: bytes, fields: frozenset[str]) -> None:
        self.matches = matches
        self.canonical = canonical
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        return self.canonical == other.canonical if isinstance(other, CompiledFilter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical)


def compile_filter(filters: Mapping[str, Any] | None) -> CompiledFilter:
    """Check and compile a filter; None matches everything. Raises InvalidFilter naming the path."""
    compiler = _Compiler()
    test, canonical = compiler.expression({} if filters is None else filters, "", 1)
    return CompiledFilter(test, canonical.encode("ascii"), frozenset(compiler.fields))


class _Compiler:
    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._nodes = 0

    def count(self, path: str, nodes: int = 1) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise InvalidFilter(path, f"more than {MAX_NODES} conditions and values; split the query")

    def expression(self, node: Any, path: str, depth: int) -> tuple[Test, str]:
        """Test and canonical text of one filter object."""
        if not isinstance(node, Mapping):
            raise InvalidFilter(path, f"expected an object, not {type_name(node)}")
        if depth > MAX_DEPTH:
            raise InvalidFilter(path, f"nested {depth} deep, over the limit of {MAX_DEPTH}")
        self.count(path)
        parts: list[tuple[Test, str]] = []
        for name, value in node.items():
            if not isinstance(name, str):
                raise InvalidFilter(path, f"keys are strings, not {type_name(name)}")
            here = f"{path}.{name}" if path else name
            if name in ("and", "or"):
                branches = self.branches(value, here, depth)
                parts.append(_all_of(branches) if name == "and" else _any_of(branches))
            elif name == "not":
                parts.append(_negation(*self.expression(value, here, depth + 1)))
            else:
                parts.append(self.condition(name, value, here))
        return _all_of(parts)

    def branches(self, value: Any, path: str, depth: int) -> list[tuple[Test, str]]:
        if not isinstance(value, (list, tuple)):
            raise InvalidFilter(path, f"expected a list of objects, not {type_name(value)}")
        return [self.expression(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(value)]

    def condition(self, name: str, value: Any, path: str) -> tuple[Test, str]:
        """All operators on one field."""
        family = _family(name, path)
        self.fields.add(name)
        if not isinstance(value, Mapping):
            if isinstance(value, (list, tuple, set, frozenset)):
                raise InvalidFilter(path, 'a list is no condition; write {"in": [...]} or {"contains": ...}')
            value = {"eq": value}
            operator_path = path
        else:
            operator_path = ""
        if not value:
            raise InvalidFilter(path, "no operator given")
        predicates: list[Predicate] = []
        canonical: list[str] = []
        absent = False
        for name_of_operator, operand in value.items():
            here = operator_path or f"{path}.{name_of_operator}"
            self.count(here)
            if name_of_operator not in OPERATORS:
                raise InvalidFilter(here, f"unknown operator; the operators are {', '.join(OPERATORS)}")
            if name_of_operator in _REFUSED[family]:
                raise InvalidFilter(here, f"{name_of_operator} does not apply to {name}, a {family} field")
            if name_of_operator == "exists":
                if not isinstance(operand, bool):
                    raise InvalidFilter(here, f"expected true or false, not {type_name(operand)}")
                absent = absent or not operand
            else:
                predicate, operand = self.predicate(family, name_of_operator, operand, here)
                predicates.append(predicate)
            canonical.append(json.dumps([name, name_of_operator, operand], separators=(",", ":")))
        if not absent:
            test = _present(name, predicates)
        elif len(value) == 1:
            test = _absent(name)
        else:
            test = _never  # no other operator holds on a missing field
        return test, _join("&", canonical)

    def predicate(self, family: Family, name: str, operand: Any, path: str) -> tuple[Predicate, Any]:
        """(predicate over a present value, operand for the canonical text)."""
        if name in ("in", "nin"):
            if not isinstance(operand, (list, tuple)):
                raise InvalidFilter(path, f"expected a list of scalars, not {type_name(operand)}")
            self.count(path, len(operand))
            values = [check_operand(family, value, f"{path}[{i}]") for i, value in enumerate(operand)]
            texts = sorted({json.dumps(canonical_operand(value)) for value in values})
            among = member(values)
            return (among if name == "in" else inverse(among)), texts
        if name == "icontains" and not isinstance(operand, str):
            raise InvalidFilter(path, f"expected a string, not {type_name(operand)}")
        value = check_operand(family, operand, path)
        if name in _COMPARE:
            if value is None or isinstance(value, bool):
                raise InvalidFilter(path, f"expected a number or a string, not {type_name(value)}")
            return ordered(_COMPARE[name], value), canonical_operand(value)
        if name == "contains":
            return contains(value), canonical_operand(value)
        if name == "icontains":
            return icontains(value.casefold()), value.casefold()
        same = equal(value)
        return (same if name == "eq" else inverse(same)), canonical_operand(value)


def _family(name: str, path: str) -> Family:
    if name.startswith("metadata."):
        if not all(name.split(".")):
            raise InvalidFilter(path, "a metadata path has an empty part")
        return "json"
    if name not in ITEM_FIELDS:
        known = ", ".join(ITEM_FIELDS)
        raise InvalidFilter(path, f"unknown field; write metadata.<key>, or one of {known}, or and, or, not")
    return ITEM_FIELDS[name]


# ------------------------------------------------------------------------------------ tests over an item


def _always(item: MemoryItem) -> bool:
    return True


def _never(item: MemoryItem) -> bool:
    return False


def _getter(name: str) -> tuple[Callable[[MemoryItem], Any], Any]:
    """(function from item to value, what it gives when the field is missing)."""
    if not name.startswith("metadata."):
        return operator.attrgetter(f"scope.{name}" if name in _SCOPE_FIELDS else name), None
    first, *rest = name.split(".")[1:]
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


def _join(symbol: str, texts: Sequence[str]) -> str:
    """Canonical text of a conjunction (&) or disjunction (|): order and repetition do not matter."""
    unique = sorted(set(texts))
    return unique[0] if len(unique) == 1 else f"{symbol}({','.join(unique)})"


def _all_of(parts: Sequence[tuple[Test, str]]) -> tuple[Test, str]:
    tests = tuple(test for test, _ in parts)
    text = _join("&", [canonical for _, canonical in parts])
    if not tests:
        return _always, text
    if len(tests) == 1:
        return tests[0], text
    if len(tests) == 2:
        first, second = tests
        return (lambda item: first(item) and second(item)), text
    return (lambda item: all(test(item) for test in tests)), text


def _any_of(parts: Sequence[tuple[Test, str]]) -> tuple[Test, str]:
    tests = tuple(test for test, _ in parts)
    text = _join("|", [canonical for _, canonical in parts])
    if len(tests) == 2:
        first, second = tests
        return (lambda item: first(item) or second(item)), text
    return (lambda item: any(test(item) for test in tests)), text


def _negation(test: Test, canonical: str) -> tuple[Test, str]:
    return (lambda item: not test(item)), f"!({canonical})"
