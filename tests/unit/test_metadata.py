"""policy/metadata.py: what counts as metadata and as text."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

from warpmem.config import MAX_METADATA_BYTES, MAX_TEXT_BYTES
from warpmem.errors import InvalidMetadata, InvalidText
from warpmem.policy.metadata import MAX_INT, MAX_METADATA_DEPTH, MIN_INT, check_metadata, check_text


class Level(enum.StrEnum):
    HIGH = "high"


def test_copy_is_deep_and_plain() -> None:
    source: dict[str, Any] = {
        "a": [1, (2.5, None)],
        "b": {"c": True, "": "ü"},
        "e": Level.HIGH,
        "lo": MIN_INT,
        "hi": MAX_INT,
    }
    copy = check_metadata(source)
    assert copy == {
        "a": [1, [2.5, None]],
        "b": {"c": True, "": "ü"},
        "e": "high",
        "lo": MIN_INT,
        "hi": MAX_INT,
    }
    assert type(copy["e"]) is str
    assert copy["b"]["c"] is True
    copy["b"]["c"] = False
    copy["a"].append(1)
    assert source["b"]["c"] is True
    assert len(source["a"]) == 2


def test_float_subclass_becomes_float() -> None:
    assert type(check_metadata({"x": np.float64(1.5)})["x"]) is float


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not NoneType"),
        ([], "not list"),
        ("{}", "not str"),
        ({"a": {1: 2}}, "metadata.a: keys must be strings, not int"),
        ({"a": [0, {"b": {1, 2}}]}, r"metadata.a\[1\].b: set is not JSON"),
        ({"a": float("nan")}, "metadata.a: JSON has no NaN"),
        ({"a": float("-inf")}, "metadata.a: JSON has no NaN"),
        ({"a": MAX_INT + 1}, "metadata.a: integer outside"),
        ({"a": MIN_INT - 1}, "metadata.a: integer outside"),
        ({"a": b"x"}, "metadata.a: bytes is not JSON"),
        ({"a": np.complex64(1)}, "metadata.a: complex64 is not JSON"),
        ({"a": "x\ud800"}, "metadata.a: lone surrogate at character 1"),
        ({"\ud800": 1}, "lone surrogate at character 0"),
        ({"k" * 100: {1}}, "metadata.k{40}\\.\\.\\.: set"),
    ],
)
def test_refused(value: Any, words: str) -> None:
    with pytest.raises(InvalidMetadata, match=words):
        check_metadata(value)


def test_depth_limit() -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for _ in range(depth - 1):
            value = {"a": value}
        return value

    check_metadata(nested(MAX_METADATA_DEPTH))
    with pytest.raises(InvalidMetadata, match=f"nested {MAX_METADATA_DEPTH + 1} deep, over the limit of"):
        check_metadata(nested(MAX_METADATA_DEPTH + 1))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidMetadata, match="nested"):
        check_metadata({"a": loop})


def test_size_limit_is_exact() -> None:
    room = MAX_METADATA_BYTES - len('{"a":""}')
    assert len(check_metadata({"a": "x" * room})["a"]) == room
    with pytest.raises(
        InvalidMetadata, match=f"metadata is {MAX_METADATA_BYTES + 1} bytes .* {MAX_METADATA_BYTES}"
    ):
        check_metadata({"a": "x" * (room + 1)})
    with pytest.raises(InvalidMetadata, match=f"limit of {MAX_METADATA_BYTES}"):
        check_metadata({"a": "ü" * (room // 2 + 1)})
    with pytest.raises(InvalidMetadata, match="at least"):
        check_metadata({"a": [[0] * 1000] * 1000})


@pytest.mark.parametrize("text", ["a", " a\n", "日本語", "x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)])
def test_text_accepted(text: str) -> None:
    assert check_text(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty or only whitespace"),
        (" \t\n\u3000", "empty or only whitespace"),
        (None, "not NoneType"),
        (b"bytes", "not bytes"),
        ("ab\udc80", "lone surrogate at character 2 of 3"),
        (
            "x" * (MAX_TEXT_BYTES + 1),
            f"{MAX_TEXT_BYTES + 1} bytes of UTF-8, over the limit of {MAX_TEXT_BYTES}",
        ),
        (
            "x" * (2 * MAX_TEXT_BYTES),
            f"{2 * MAX_TEXT_BYTES} bytes of UTF-8, over the limit of {MAX_TEXT_BYTES}",
        ),
        ("é" * MAX_TEXT_BYTES, f"{2 * MAX_TEXT_BYTES} bytes of UTF-8, over the limit of {MAX_TEXT_BYTES}"),
    ],
    ids=["empty", "blank", "none", "bytes", "surrogate", "one-over", "2MiB", "2MiB-of-two-byte"],
)
def test_text_refused(text: Any, words: str) -> None:
    with pytest.raises(InvalidText, match=words):
        check_text(text)
