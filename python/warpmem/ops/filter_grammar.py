"""The grammar of filters, over any set of fields: a filter is checked once and comes out as a tree.

    filter     = {} | {entry, ...}                          all entries hold; {} matches everything
    entry      = "and": [filter, ...] | "or": [filter, ...] | "not": filter | field: condition | span: bounds
               | days: bounds of days
    condition  = scalar                                     short for {"eq": scalar}
               | {operator: operand, ...}                   at least one; all hold
    bounds     = {"before": time, "after": time, "during": [time | null, time | null]}    at least one

policy/filters.py says what the operators mean and evaluates trees over items; index/filter_terms.py turns
them into terms over the columns of a pool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from ..errors import InvalidFilter
from ..types.scalars import plain
from .event_time import parse_day
from .predicates import Family, canonical_operand, type_name

MAX_DEPTH = 64
MAX_NODES = 10_000

OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "icontains", "exists")
COMPARISONS = ("gt", "gte", "lt", "lte")
SPAN_OPERATORS = ("before", "after", "during")

_REFUSED: dict[Family, frozenset[str]] = {
    "string": frozenset(),
    "json": frozenset(),
    "number": frozenset(("contains", "icontains")),
    "time": frozenset(("contains", "icontains")),
    "boolean": frozenset(("contains", "icontains", *COMPARISONS)),
    "list": frozenset(OPERATORS) - {"contains", "icontains", "exists"},
}


class Condition(NamedTuple):
    """Operators on one field, all of which hold: (operator, checked operand) in the order given.

    The operand of "in" and "nin" is a list of scalars, that of "icontains" is casefolded, that of "exists" a
    bool.
    """

    field: str
    family: Family
    tests: tuple[tuple[str, Any], ...]


class AllOf(NamedTuple):
    """Holds when every part does; without parts, always."""

    parts: tuple[Node, ...]


class AnyOf(NamedTuple):
    """Holds when some part does; without parts, never."""

    parts: tuple[Node, ...]


class Not(NamedTuple):
    """Holds when `part` does not."""

    part: Node


Node = Condition | AllOf | AnyOf | Not


class ParsedFilter(NamedTuple):
    """A checked filter. canonical: equal for filters that differ only in spelling (order of entries,
    shorthand, 1 and 1.0, offset of a time). fields: every field it reads."""

    node: Node
    canonical: bytes
    fields: frozenset[str]


class Vocabulary(NamedTuple):
    """What a filter may talk about. family: (field, path) -> its family. operand: (family, value, path) ->
    the checked scalar. Both raise InvalidFilter. spans: names that stand for two fields, the time when
    something begins and the one when it ends, which is missing where it does not. days: names that stand for
    two fields, the first and the last day of something, each a string like 2026-03-01. spelled: a field in
    the one spelling that it has in the tree, of those in which it may be written."""

    family: Callable[[str, str], Family]
    operand: Callable[[Family, Any, str], Any]
    spans: Mapping[str, tuple[str, str]] = {}
    days: Mapping[str, tuple[str, str]] = {}
    spelled: Callable[[str], str] = str


def parse_filter(filters: Mapping[str, Any] | None, vocabulary: Vocabulary) -> ParsedFilter:
    """Check a filter; None matches everything. Raises InvalidFilter naming the path."""
    parser = _Parser(vocabulary)
    node, canonical = parser.expression({} if filters is None else filters, "", 1)
    return ParsedFilter(node, canonical.encode("ascii"), frozenset(parser.fields))


class _Parser:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.fields: set[str] = set()
        self._nodes = 0

    def count(self, path: str, nodes: int = 1) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise InvalidFilter(path, f"more than {MAX_NODES} conditions and values; split the query")

    def expression(self, node: Any, path: str, depth: int) -> tuple[Node, str]:
        """Tree and canonical text of one filter object."""
        if not isinstance(node, Mapping):
            raise InvalidFilter(path, f"expected an object, not {type_name(node)}")
        if depth > MAX_DEPTH:
            raise InvalidFilter(path, f"nested {depth} deep, over the limit of {MAX_DEPTH}")
        self.count(path)
        parts: list[tuple[Node, str]] = []
        for name, value in node.items():
            if not isinstance(name, str):
                raise InvalidFilter(path, f"keys are strings, not {type_name(name)}")
            here = f"{path}.{name}" if path else name
            if name in ("and", "or"):
                branches = self.branches(value, here, depth)
                parts.append(_all_of(branches) if name == "and" else _any_of(branches))
            elif name == "not":
                part, text = self.expression(value, here, depth + 1)
                parts.append((Not(part), f"!({text})"))
            elif name in self._vocabulary.spans:
                parts.append(self.span(name, value, here))
            elif name in self._vocabulary.days:
                parts.append(self.days(name, value, here))
            else:
                parts.append(self.condition(name, value, here))
        return _all_of(parts)

    def branches(self, value: Any, path: str, depth: int) -> list[tuple[Node, str]]:
        if not isinstance(value, (list, tuple)):
            raise InvalidFilter(path, f"expected a list of objects, not {type_name(value)}")
        return [self.expression(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(value)]

    def condition(self, name: str, value: Any, path: str) -> tuple[Node, str]:
        """All operators on one field."""
        family = self._vocabulary.family(name, path)
        name = self._vocabulary.spelled(name)
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
        tests: list[tuple[str, Any]] = []
        canonical: list[str] = []
        for operator, operand in value.items():
            here = operator_path or f"{path}.{operator}"
            self.count(here)
            if operator not in OPERATORS:
                raise InvalidFilter(here, f"unknown operator; the operators are {', '.join(OPERATORS)}")
            if operator in _REFUSED[family]:
                raise InvalidFilter(here, f"{operator} does not apply to {name}, a {family} field")
            checked, text = self.operand(family, operator, operand, here)
            tests.append((operator, checked))
            canonical.append(json.dumps([name, operator, text], separators=(",", ":")))
        return Condition(name, family, tuple(tests)), _join("&", canonical)

    def span(self, name: str, value: Any, path: str) -> tuple[Node, str]:
        """What begins and ends within bounds, as conditions on both fields."""
        if not isinstance(value, Mapping) or not value:
            raise InvalidFilter(path, f"expected an object with {', '.join(SPAN_OPERATORS)}")
        begins, ends = self._vocabulary.spans[name]
        latest: list[Any] = []
        earliest: list[Any] = []
        parts: list[tuple[Node, str]] = []
        for operator, operand in value.items():
            here = f"{path}.{operator}"
            if operator not in SPAN_OPERATORS:
                raise InvalidFilter(here, f"unknown operator; the operators are {', '.join(SPAN_OPERATORS)}")
            if operator == "during":
                first, last = self.bounds(operand, here)
                if first is not None:
                    still = [
                        self.condition(ends, {"exists": False}, here),
                        self.condition(ends, {"gt": first}, here),
                    ]
                    parts.append(_any_of(still))
                latest += [] if last is None else [last]
            else:
                time = self._vocabulary.operand("time", operand, here)
                (latest if operator == "before" else earliest).append(time)
        if earliest and latest and min(latest) <= max(earliest):
            raise InvalidFilter(path, f"nothing begins before {min(latest)} and not before {max(earliest)}")
        parts += [self.condition(begins, {"lt": time}, path) for time in latest]
        parts += [self.condition(begins, {"gte": time}, path) for time in earliest]
        return _all_of(parts)

    def days(self, name: str, value: Any, path: str) -> tuple[Node, str]:
        """What happened on days within bounds, as conditions on the first and the last of them."""
        if not isinstance(value, Mapping) or not value:
            raise InvalidFilter(path, f"expected an object with {', '.join(SPAN_OPERATORS)}")
        first, last = self._vocabulary.days[name]
        parts: list[tuple[Node, str]] = []
        for operator, operand in value.items():
            here = f"{path}.{operator}"
            if operator not in SPAN_OPERATORS:
                raise InvalidFilter(here, f"unknown operator; the operators are {', '.join(SPAN_OPERATORS)}")
            if operator != "during":
                compare = "lt" if operator == "before" else "gte"
                parts.append(self.condition(first, {compare: _day(operand, here)}, here))
                continue
            _check_pair(operand, here)
            since, until = (
                None if day is None else _day(day, f"{here}[{i}]") for i, day in enumerate(operand)
            )
            if since is not None and until is not None and until < since:
                raise InvalidFilter(here, f"the last day {until} is before the first {since}")
            parts += [] if since is None else [self.condition(last, {"gte": since}, here)]
            parts += [] if until is None else [self.condition(first, {"lte": until}, here)]
        return _all_of(parts)

    def bounds(self, value: Any, path: str) -> tuple[Any, Any]:
        """[first, last]: checked times, None where there is no bound."""
        _check_pair(value, path)
        first, last = (
            None if time is None else self._vocabulary.operand("time", time, f"{path}[{i}]")
            for i, time in enumerate(value)
        )
        if first is not None and last is not None and last <= first:
            raise InvalidFilter(path, f"the end {last} is not after the beginning {first}")
        return first, last

    def operand(self, family: Family, operator: str, operand: Any, path: str) -> tuple[Any, Any]:
        """(checked operand, operand for the canonical text)."""
        if operator == "exists":
            operand = plain(operand)
            if not isinstance(operand, bool):
                raise InvalidFilter(path, f"expected true or false, not {type_name(operand)}")
            return operand, operand
        check = self._vocabulary.operand
        if operator in ("in", "nin"):
            if not isinstance(operand, (list, tuple)):
                raise InvalidFilter(path, f"expected a list of scalars, not {type_name(operand)}")
            self.count(path, len(operand))
            values = [check(family, value, f"{path}[{i}]") for i, value in enumerate(operand)]
            return values, sorted({json.dumps(canonical_operand(value)) for value in values})
        if operator == "icontains" and not isinstance(operand, str):
            raise InvalidFilter(path, f"expected a string, not {type_name(operand)}")
        value = check(family, operand, path)
        if operator in COMPARISONS and (value is None or isinstance(value, bool)):
            raise InvalidFilter(path, f"expected a number or a string, not {type_name(value)}")
        if operator == "icontains":
            value = value.casefold()
        return value, canonical_operand(value)


def _check_pair(value: Any, path: str) -> None:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or value[0] is value[1] is None:
        raise InvalidFilter(path, "expected [first, last], one of which may be null")


def _day(value: Any, path: str) -> str:
    """A day like 2026-03-01, of a string, a date, or a datetime in its own time zone."""
    day = parse_day(value) if isinstance(value, str) else value
    if isinstance(day, datetime):
        day = day.date()
    if not isinstance(day, date):
        raise InvalidFilter(path, "expected a day, as 2026-03-01 or a date")
    return day.isoformat()


def _join(symbol: str, texts: Sequence[str]) -> str:
    """Canonical text of a conjunction (&) or disjunction (|): order and repetition do not matter."""
    unique = sorted(set(texts))
    return unique[0] if len(unique) == 1 else f"{symbol}({','.join(unique)})"


def _all_of(parts: Sequence[tuple[Node, str]]) -> tuple[Node, str]:
    text = _join("&", [canonical for _, canonical in parts])
    return (parts[0][0] if len(parts) == 1 else AllOf(tuple(node for node, _ in parts))), text


def _any_of(parts: Sequence[tuple[Node, str]]) -> tuple[Node, str]:
    return AnyOf(tuple(node for node, _ in parts)), _join("|", [canonical for _, canonical in parts])
