"""A schema per kind that an item's metadata must satisfy: a JSON Schema subset, or a msgspec type.

The subset follows JSON Schema 2020-12:

    type (one or a list), enum, const, properties, required, additionalProperties (bool or schema),
    minimum, maximum, exclusiveMinimum, exclusiveMaximum, minLength, maxLength, pattern (re.search),
    items (one schema), minItems, maxItems, uniqueItems, anyOf, allOf, oneOf, not;
    true and false are schemas; title, description and default are read past.

Any other keyword is refused when the schema is compiled, so that no rule is silently left unchecked.
Patterns run on Python's `re`: a schema is trusted as much as the program that passes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from ..errors import InputError, SchemaViolation
from ..ops.jsonschema import Check, Violation, compile_json_schema

_AT = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$", re.DOTALL)


class Schemas:
    """Compiled schemas by kind. Immutable and thread-safe."""

    __slots__ = ("_checks",)

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that have a schema."""
        return frozenset(self._checks)

    def check(self, kind: str, metadata: Mapping[str, Any]) -> None:
        """Raise SchemaViolation at the first rule that `metadata` breaks. A kind without schema takes all."""
        check = self._checks.get(kind)
        if check is not None:
            try:
                check(metadata, "metadata")
            except Violation as violation:
                raise SchemaViolation(kind, violation.path, violation.reason) from None

    def check_empty(self, kinds: Iterable[str]) -> None:
        """Raise InputError where a kind's schema refuses an item without metadata."""
        for kind in kinds:
            try:
                self.check(kind, {})
            except SchemaViolation as violation:
                raise InputError(
                    f"extraction: a memory of a message has no metadata of its own, and the schema of kind "
                    f"{kind!r} wants some: {violation}"
                ) from None


def compile_schemas(schemas: Mapping[str, Any] | None) -> Schemas:
    """Compile {kind: JSON Schema or msgspec-supported type}. Raises InputError naming kind and keyword."""
    if schemas is None:
        return Schemas({})
    if not isinstance(schemas, Mapping):
        raise InputError(f"schemas must map kinds to schemas, not {type(schemas).__name__}")
    checks: dict[str, Check] = {}
    kind: Any
    for kind, schema in schemas.items():
        if not isinstance(kind, str) or not kind:
            raise InputError("schemas: a kind is a string that is not empty")
        where = f"schema of kind {kind!r}"
        if isinstance(schema, (Mapping, bool)):
            checks[kind] = compile_json_schema(schema, where)
        else:
            checks[kind] = _compile_type(schema, where)
    return Schemas(checks)


def _compile_type(schema: Any, where: str) -> Callable[[Any, str], None]:
    try:
        info = inspect.type_info(schema)
    except (TypeError, NameError) as error:
        raise InputError(
            f"{where}: neither a JSON Schema nor a type that msgspec can check: {error}"
        ) from error
    objects = (
        inspect.StructType,
        inspect.TypedDictType,
        inspect.DataclassType,
        inspect.DictType,
        inspect.UnionType,
    )
    if not isinstance(info, objects):
        raise InputError(
            f"{where}: metadata is a JSON object; give a JSON Schema, a msgspec.Struct, a dataclass "
            "or a TypedDict"
        )

    def check(metadata: Any, path: str) -> None:
        try:
            msgspec.convert(metadata, schema, strict=True)
        except msgspec.ValidationError as error:
            raise _violation(error, path) from None

    return check


def _violation(error: msgspec.ValidationError, path: str) -> Violation:
    """msgspec's message without anything that may quote a value of the metadata."""
    message = str(error)
    found = _AT.search(message)
    if found:
        message, path = message[: found.start()], path + found["path"]
    if error.__cause__ is not None:
        message = "refused by the type's own check"
    elif message.startswith("Invalid"):
        message = "not one of the values the type allows"
    return Violation(path, message)
