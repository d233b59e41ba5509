"""Compiler of the JSON Schema subset that policy/schema.py documents: one closure per keyword.

Equality is JSON's: 1 equals 1.0 and no number equals a boolean. Lengths count code points. Messages name
limits and sizes, and never quote the checked strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError

Check = Callable[[Any, str], None]
"""(value, path) -> None; raises Violation."""

MAX_SCHEMA_DEPTH = 32

_READ_PAST = frozenset(("title", "description", "default"))
_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: _is_number(v) and v == v // 1,
    "number": lambda v: _is_number(v),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, (list, tuple)),
    "object": lambda v: isinstance(v, Mapping),
}


class Violation(Exception):
    """A value breaks a rule. policy/schema.py, which knows the kind, turns it into a SchemaViolation."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def compile_json_schema(schema: Any, where: str, depth: int = 1) -> Check:
    """A check for one schema. Raises InputError with `where` and the keyword that is wrong."""
    if depth > MAX_SCHEMA_DEPTH:
        raise InputError(f"{where}: nested {depth} deep, over the limit of {MAX_SCHEMA_DEPTH}")
    if isinstance(schema, bool):
        return _anything if schema else _nothing
    if not isinstance(schema, Mapping):
        raise InputError(f"{where}: a schema is an object or a boolean, not {type(schema).__name__}")
    checks: list[Check] = []
    for keyword, argument in schema.items():
        if keyword in _READ_PAST or keyword in ("properties", "additionalProperties"):
            continue
        maker = _KEYWORDS.get(keyword) if isinstance(keyword, str) else None
        if maker is None:
            known = ", ".join(sorted({*_KEYWORDS, "properties", "additionalProperties"}))
            raise InputError(f"{where}: keyword {keyword!r} is not supported; supported are {known}")
        checks.append(maker(argument, f"{where}.{keyword}", depth))
    if "properties" in schema or "additionalProperties" in schema:
        checks.append(_properties(schema, where, depth))

    def check(value: Any, path: str) -> None:
        for one in checks:
            one(value, path)

    return check


def json_equal(a: Any, b: Any) -> bool:
    """Equality of JSON values."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(json_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(json_equal, a, b))
    return bool(a == b)


def type_of(value: Any) -> str:
    """JSON's name for a value's type."""
    return next((n for n, test in _TYPES.items() if n != "integer" and test(value)), type(value).__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _anything(value: Any, path: str) -> None:
    return None


def _nothing(value: Any, path: str) -> None:
    raise Violation(path, "no value is allowed here")


# ---------------------------------------------------------------------------------------- any value


def _type(argument: Any, where: str, depth: int) -> Check:
    names = [argument] if isinstance(argument, str) else argument
    if not isinstance(names, (list, tuple)) or not names:
        raise InputError(f"{where}: expected a type name or a list of them")
    for name in names:
        if not isinstance(name, str) or name not in _TYPES:
            raise InputError(f"{where}: unknown type {name!r}; the types are {', '.join(_TYPES)}")
    tests = [_TYPES[name] for name in names]
    wanted = " or ".join(names)

    def check(value: Any, path: str) -> None:
        if not any(test(value) for test in tests):
            raise Violation(path, f"expected {wanted}, not {type_of(value)}")

    return check


def _enum(argument: Any, where: str, depth: int) -> Check:
    if not isinstance(argument, (list, tuple)) or not argument:
        raise InputError(f"{where}: expected a list of values that is not empty")
    allowed = list(argument)

    def check(value: Any, path: str) -> None:
        if not any(json_equal(value, one) for one in allowed):
            raise Violation(path, f"not one of the {len(allowed)} values the schema allows")

    return check


def _const(argument: Any, where: str, depth: int) -> Check:
    def check(value: Any, path: str) -> None:
        if not json_equal(value, argument):
            raise Violation(path, "not the one value the schema allows")

    return check


# ------------------------------------------------------------------------------- numbers and sizes


def _bound(holds: Callable[[Any, Any], bool], words: str) -> Callable[[Any, str, int], Check]:
    def make(argument: Any, where: str, depth: int) -> Check:
        if not _is_number(argument) or argument != argument:
            raise InputError(f"{where}: expected a number, not {type_of(argument)}")

        def check(value: Any, path: str) -> None:
            if _is_number(value) and not holds(value, argument):
                raise Violation(path, f"must be {words} {argument}, and is {value}")

        return check

    return make


def _size(types: tuple[type[Any], ...], least: bool, noun: str) -> Callable[[Any, str, int], Check]:
    def make(argument: Any, where: str, depth: int) -> Check:
        if not _is_number(argument) or argument < 0 or argument != argument // 1:
            raise InputError(f"{where}: expected an integer that is not negative")
        words = "at least" if least else "at most"

        def check(value: Any, path: str) -> None:
            if not isinstance(value, types):
                return
            size = len(value)
            if size < argument if least else size > argument:
                raise Violation(path, f"must have {words} {argument} {noun}, and has {size}")

        return check

    return make


def _pattern(argument: Any, where: str, depth: int) -> Check:
    if not isinstance(argument, str):
        raise InputError(f"{where}: expected a regular expression, not {type_of(argument)}")
    try:
        search = re.compile(argument).search
    except re.error as error:
        raise InputError(f"{where}: not a regular expression of Python's re module: {error}") from error

    def check(value: Any, path: str) -> None:
        if isinstance(value, str) and search(value) is None:
            raise Violation(path, f"does not match the pattern {argument!r}")

    return check


# -------------------------------------------------------------------------------- objects and arrays


def _required(argument: Any, where: str, depth: int) -> Check:
    if not isinstance(argument, (list, tuple)) or not all(isinstance(name, str) for name in argument):
        raise InputError(f"{where}: expected a list of property names")
    names = tuple(argument)

    def check(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for name in names:
                if name not in value:
                    raise Violation(f"{path}.{name}", "is required and missing")

    return check


def _properties(schema: Mapping[str, Any], where: str, depth: int) -> Check:
    """properties and additionalProperties, which JSON Schema defines together."""
    given = schema.get("properties", {})
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InputError(f"{where}.properties: expected an object of schemas by property name")
    known = {
        name: compile_json_schema(part, f"{where}.properties.{name}", depth + 1)
        for name, part in given.items()
    }
    others = schema.get("additionalProperties", True)
    closed = others is False
    rest = compile_json_schema(others, f"{where}.additionalProperties", depth + 1)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            return
        for name, part in value.items():
            if name in known:
                known[name](part, f"{path}.{name}")
            elif closed:
                raise Violation(f"{path}.{name}", "the schema knows no such property")
            else:
                rest(part, f"{path}.{name}")

    return check


def _items(argument: Any, where: str, depth: int) -> Check:
    inner = compile_json_schema(argument, where, depth + 1)

    def check(value: Any, path: str) -> None:
        if isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                inner(one, f"{path}[{i}]")

    return check


def _unique(argument: Any, where: str, depth: int) -> Check:
    if not isinstance(argument, bool):
        raise InputError(f"{where}: expected true or false, not {type_of(argument)}")

    def check(value: Any, path: str) -> None:
        if not isinstance(value, (list, tuple)):
            return
        seen: dict[Any, list[tuple[int, Any]]] = {}
        for i, one in enumerate(value):
            same = seen.setdefault(_bucket(one), [])
            for j, other in same:
                if json_equal(one, other):
                    raise Violation(
                        f"{path}[{i}]", f"elements must be unique, and this one equals element {j}"
                    )
            same.append((i, one))

    return check if argument else _anything


def _bucket(value: Any) -> Any:
    """Equal JSON values share a bucket, so that long lists of scalars need no quadratic search."""
    if isinstance(value, (list, tuple, Mapping)):
        return (type_of(value), len(value))
    return (isinstance(value, bool), value)


# --------------------------------------------------------------------------------------- combinations


def _parts(argument: Any, where: str, depth: int) -> list[Check]:
    if not isinstance(argument, (list, tuple)) or not argument:
        raise InputError(f"{where}: expected a list of schemas that is not empty")
    return [compile_json_schema(part, f"{where}[{i}]", depth + 1) for i, part in enumerate(argument)]


def _passes(check: Check, value: Any, path: str) -> bool:
    try:
        check(value, path)
    except Violation:
        return False
    return True


def _all_of(argument: Any, where: str, depth: int) -> Check:
    parts: Sequence[Check] = _parts(argument, where, depth)

    def check(value: Any, path: str) -> None:
        for part in parts:
            part(value, path)

    return check


def _some_of(accept: Callable[[int], bool], words: str) -> Callable[[Any, str, int], Check]:
    def make(argument: Any, where: str, depth: int) -> Check:
        parts = _parts(argument, where, depth)

        def check(value: Any, path: str) -> None:
            passed = sum(_passes(part, value, path) for part in parts)
            if not accept(passed):
                raise Violation(path, f"must satisfy {words} of {len(parts)} schemas, and satisfies {passed}")

        return check

    return make


def _not(argument: Any, where: str, depth: int) -> Check:
    inner = compile_json_schema(argument, where, depth + 1)

    def check(value: Any, path: str) -> None:
        if _passes(inner, value, path):
            raise Violation(path, "satisfies a schema that it must not")

    return check


_KEYWORDS: dict[str, Callable[[Any, str, int], Check]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _bound(lambda v, b: bool(v >= b), "at least"),
    "maximum": _bound(lambda v, b: bool(v <= b), "at most"),
    "exclusiveMinimum": _bound(lambda v, b: bool(v > b), "more than"),
    "exclusiveMaximum": _bound(lambda v, b: bool(v < b), "less than"),
    "minLength": _size((str,), True, "characters"),
    "maxLength": _size((str,), False, "characters"),
    "pattern": _pattern,
    "required": _required,
    "items": _items,
    "minItems": _size((list, tuple), True, "elements"),
    "maxItems": _size((list, tuple), False, "elements"),
    "uniqueItems": _unique,
    "allOf": _all_of,
    "anyOf": _some_of(lambda passed: passed >= 1, "at least one"),
    "oneOf": _some_of(lambda passed: passed == 1, "exactly one"),
    "not": _not,
}
