"""The leaves of a filter: checked operands, and predicates over one present value.

The grammar is in filter_grammar.py, its meaning in policy/filters.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from ..errors import InvalidFilter
from ..types.scalars import plain

Family = Literal["string", "number", "time", "boolean", "list", "json"]
Predicate = Callable[[Any], bool]

_MAX_INT_BITS = 1024


# ----------------------------------------------------------------------------------------- operands


def check_operand(family: Family, value: Any, path: str) -> Any:
    """A scalar that fits the field: plain str, bool, int, float, None, or a UTC datetime."""
    if family == "time":
        return _time(value, path)
    value = plain(value)
    if isinstance(value, str):
        if family == "number":
            raise InvalidFilter(path, "expected a number, not string")
        return str.__str__(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if family not in ("number", "json"):
            raise InvalidFilter(path, "expected a string, not number")
        if isinstance(value, int):
            if value.bit_length() > _MAX_INT_BITS:
                raise InvalidFilter(
                    path, f"integer of {value.bit_length()} bits, over the limit of {_MAX_INT_BITS}"
                )
            return int(value)
        if not math.isfinite(value):
            raise InvalidFilter(path, "expected a finite number; JSON has no NaN and no infinity")
        return float(value)
    if family == "json" and (value is None or isinstance(value, bool)):
        return value
    if isinstance(value, datetime):
        raise InvalidFilter(
            path, "expected a JSON scalar, not datetime; metadata holds times as strings or numbers"
        )
    if value is None:
        raise InvalidFilter(path, 'an item field is never null; write {"exists": false}')
    wanted = {"json": "a JSON scalar", "number": "a number"}.get(family, "a string")
    raise InvalidFilter(path, f"expected {wanted}, not {type_name(value)}")


def _time(value: Any, path: str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidFilter(
                path, "expected an ISO 8601 time, such as 2026-01-31T08:00:00+00:00"
            ) from None
    if not isinstance(value, datetime):
        raise InvalidFilter(path, f"expected a time (ISO 8601 string or datetime), not {type_name(value)}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidFilter(path, "the time has no UTC offset; write one, such as 2026-01-31T08:00:00+00:00")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidFilter(path, "the time lies outside the years 1 to 9999 in UTC") from None


def canonical_operand(value: Any) -> Any:
    """The operand as canonical JSON: one spelling per number and per moment."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def type_name(value: Any) -> str:
    """JSON's name for the value's type, or Python's where JSON has none."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


# --------------------------------------------------------------------------------------- predicates


def equal(x: Any) -> Predicate:
    """Value equals x as JSON has it: no number equals a boolean."""
    if x is None or isinstance(x, bool):
        return lambda v: v is x
    if isinstance(x, (int, float)):
        return lambda v: v == x and type(v) is not bool
    return lambda v: v == x


def inverse(predicate: Predicate) -> Predicate:
    """Where `predicate` fails."""
    return lambda v: not predicate(v)


def ordered(compare: Callable[[Any, Any], bool], x: Any) -> Predicate:
    """compare(value, x) when both are numbers, or of one type."""
    if isinstance(x, (int, float)):
        return lambda v: (type(v) is float or type(v) is int) and compare(v, x)
    kind = type(x)
    return lambda v: type(v) is kind and compare(v, x)


def member(values: Sequence[Any]) -> Predicate:
    """Value equals one of `values`, in constant time."""
    booleans = frozenset(v for v in values if isinstance(v, bool))
    others = frozenset(v for v in values if not isinstance(v, bool))

    def test(v: Any) -> bool:
        kind = type(v)
        if kind is bool:
            return v in booleans
        return kind is not list and kind is not dict and v in others

    return test


def contains(x: Any) -> Predicate:
    """x is a part of a string value, or an element of a list value."""
    same = equal(x)
    is_string = isinstance(x, str)

    def test(v: Any) -> bool:
        if type(v) is str:
            return is_string and x in v
        return isinstance(v, (list, tuple)) and any(map(same, v))

    return test


def icontains(folded: str) -> Predicate:
    """As contains, for a casefolded string against the casefolded value."""

    def test(v: Any) -> bool:
        if type(v) is str:
            return folded in v.casefold()
        return isinstance(v, (list, tuple)) and any(type(e) is str and e.casefold() == folded for e in v)

    return test
