"""policy/schema.py and ops/jsonschema.py: every keyword both ways, and what is refused when compiled."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from warpmem.errors import InputError, SchemaViolation
from warpmem.policy.schema import compile_schemas


def check(schema: Any, metadata: dict[str, Any]) -> None:
    compile_schemas({"preference": schema}).check("preference", metadata)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "string"}, ["", "a"], [1, None, True, [], {}]),
        ({"type": "integer"}, [1, -3, 2.0], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True, False], [0, 1]),
        ({"type": "null"}, [None], [0, False, ""]),
        ({"type": "array"}, [[], [1]], [{}, "a"]),
        ({"type": "object"}, [{}, {"x": 1}], [[], "a"]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"enum": [1, "a", None, [1]]}, [1, 1.0, "a", None, [1.0]], [True, "b", [True], 2]),
        ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [True]}, {"a": [1], "b": 1}, {}]),
        ({"const": False}, [False], [0, None]),
        ({"minimum": 1}, [1, 2.5, "text"], [0.5]),
        ({"maximum": 1}, [1, -2, True], [1.5]),
        ({"exclusiveMinimum": 1}, [1.001], [1, 0]),
        ({"exclusiveMaximum": 1}, [0.999], [1, 2]),
        ({"minLength": 2}, ["ab", "日本", 1], ["a", "日"]),
        ({"maxLength": 2}, ["ab", "😀😀"], ["abc"]),
        ({"pattern": "b+$"}, ["aab", 3], ["ba"]),
        ({"items": {"type": "integer"}}, [[], [1, 2], "no array"], [[1, "x"]]),
        ({"minItems": 1}, [[1], "x"], [[]]),
        ({"maxItems": 1}, [[1], []], [[1, 2]]),
        (
            {"uniqueItems": True},
            [[1, True, "1", None, [1], {"a": 1}], [0, False]],
            [[1, 1.0], [[1], [1.0]], [{}, {}]],
        ),
        ({"uniqueItems": False}, [[1, 1]], []),
        ({"required": ["x"]}, [{"x": None}, "no object"], [{}, {"y": 1}]),
        ({"properties": {"x": {"type": "string"}}}, [{}, {"x": "a"}, {"y": 1}], [{"x": 1}]),
        ({"additionalProperties": False}, [{}], [{"x": 1}]),
        (
            {"properties": {"x": True}, "additionalProperties": {"type": "string"}},
            [{"x": 1, "y": "a"}],
            [{"x": 1, "y": 1}],
        ),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["a", 3], [2]),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, [2], [0, 4]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, [0, 4], [2]),
        ({"not": {"type": "string"}}, [1], ["a"]),
        (True, [1, None], []),
        (False, [], [1, None]),
        ({"title": "t", "description": "d", "default": 4}, [1], []),
    ],
)
def test_keywords(rule: Any, good: list[Any], bad: list[Any]) -> None:
    schema = {"properties": {"v": rule}}
    for value in good:
        check(schema, {"v": value})
    for value in bad:
        with pytest.raises(SchemaViolation) as caught:
            check(schema, {"v": value})
        assert caught.value.kind == "preference"
        assert caught.value.path.startswith("metadata.v")


@pytest.mark.parametrize(
    ("schema", "metadata", "path", "words"),
    [
        ({"required": ["level"]}, {}, "metadata.level", "is required and missing"),
        (
            {"properties": {"a": {"items": {"properties": {"b": {"maximum": 3}}}}}},
            {"a": [{}, {"b": 5}]},
            "metadata.a[1].b",
            "must be at most 3, and is 5",
        ),
        (
            {"properties": {"a": {"maxLength": 3}}},
            {"a": "secret"},
            "metadata.a",
            "at most 3 characters, and has 6",
        ),
        ({"additionalProperties": False}, {"zz": 1}, "metadata.zz", "knows no such property"),
        (
            {"properties": {"a": {"type": ["string", "null"]}}},
            {"a": 1},
            "metadata.a",
            "string or null, not number",
        ),
    ],
)
def test_path_and_reason(schema: Any, metadata: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SchemaViolation, match=words) as caught:
        check(schema, metadata)
    assert caught.value.path == path


def test_messages_never_quote_strings() -> None:
    rules = [{"enum": ["a"]}, {"const": "a"}, {"pattern": "a"}, {"maxLength": 1}, {"type": "integer"}, False]
    for rule in rules:
        with pytest.raises(SchemaViolation) as caught:
            check({"properties": {"v": rule}}, {"v": "hunter2"})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/x"}, r"schema of kind 'preference': keyword '\$ref' is not supported"),
        ({"properties": {"a": {"format": "email"}}}, "properties.a: keyword 'format' is not supported"),
        ({"patternProperties": {}}, "'patternProperties' is not supported"),
        ({"type": "int"}, "unknown type 'int'"),
        ({"type": []}, "type: expected"),
        ({"enum": []}, "enum: expected"),
        ({"pattern": "("}, "pattern: not a regular expression"),
        ({"pattern": 3}, "pattern: expected"),
        ({"minimum": "1"}, "minimum: expected a number"),
        ({"minimum": True}, "minimum: expected a number"),
        ({"minLength": -1}, "minLength: expected an integer"),
        ({"maxItems": 1.5}, "maxItems: expected an integer"),
        ({"required": "x"}, "required: expected a list"),
        ({"properties": []}, "properties: expected an object"),
        ({"properties": {"a": 3}}, "a schema is an object or a boolean, not int"),
        ({"items": [{}]}, "a schema is an object or a boolean, not list"),
        ({"uniqueItems": 1}, "uniqueItems: expected true or false"),
        ({"anyOf": []}, "anyOf: expected a list"),
        ({"not": 1}, "not: a schema is"),
        (int, "metadata is a JSON object"),
        (42, "neither a JSON Schema nor a type"),
    ],
)
def test_refused_at_compile_time(schema: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        compile_schemas({"preference": schema})


def test_schema_that_holds_itself() -> None:
    loop: dict[str, Any] = {}
    loop["not"] = loop
    with pytest.raises(InputError, match="nested 33 deep, over the limit of 32"):
        compile_schemas({"fact": loop})


def test_arguments() -> None:
    with pytest.raises(InputError, match="not list"):
        compile_schemas([])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a kind is a string"):
        compile_schemas({"": {}})
    schemas = compile_schemas({"preference": False})
    assert schemas.kinds == {"preference"}
    schemas.check("fact", {"anything": 1})
    assert compile_schemas(None).kinds == frozenset()


class Colour(enum.Enum):
    RED = "red"


class Preference(msgspec.Struct, forbid_unknown_fields=True):
    level: Annotated[int, msgspec.Meta(ge=1, le=5)]
    tags: list[str] = []
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        if "hunter2" in self.tags:
            raise ValueError("tag hunter2 is refused")


@dataclass
class Plain:
    level: int


class Typed(TypedDict):
    level: int


@pytest.mark.parametrize("schema", [Preference, Plain, Typed])
def test_types(schema: Any) -> None:
    check(schema, {"level": 3})
    for bad in ({}, {"level": "3"}):
        with pytest.raises(SchemaViolation):
            check(schema, bad)


@pytest.mark.parametrize(
    ("metadata", "path", "words"),
    [
        ({"level": 9}, "metadata.level", "Expected `int` <= 5"),
        ({"level": 1, "tags": ["a", 2]}, "metadata.tags[1]", "Expected `str`, got `int`"),
        ({"level": 1, "x": 1}, "metadata", "unknown field"),
        ({"level": 1, "colour": "hunter2"}, "metadata.colour", "not one of the values"),
        ({"level": 1, "tags": ["hunter2"]}, "metadata", "refused by the type's own check"),
    ],
)
def test_type_messages(metadata: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SchemaViolation, match=words) as caught:
        check(Preference, metadata)
    assert caught.value.path == path
    assert "hunter2" not in str(caught.value)
