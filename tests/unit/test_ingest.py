"""ingest/: the normal form of texts, and what add() takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpmem.errors import InputError, InvalidText, InvalidTime, NotSupported
from warpmem.ingest.messages import to_new_items
from warpmem.ingest.normalize import normalize_text
from warpmem.types import MemoryItem, Message, NewItem, Scope

T0 = datetime(2026, 3, 4, 9, tzinfo=UTC)
NAIVE = T0.replace(tzinfo=None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello  World", " hello\tworld\n"),
        ("Straße", "STRASSE"),
        ("ﬁn", "FIN"),
        ("ＡＢＣ１", "abc1"),
        ("Cafe\u0301", "CAFÉ"),
        ("a\u3000b", "A b"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_same_normal_form(one: str, other: str) -> None:
    assert normalize_text(one) == normalize_text(other)


def test_different_normal_form() -> None:
    assert normalize_text("a b") != normalize_text("ab")
    assert normalize_text("cafe") != normalize_text("café")
    assert normalize_text("Nadia.") != normalize_text("Nadia")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.text())
def test_normal_form_is_stable(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert once == once.strip()
    assert normalize_text(f" {text}\n") == once


def test_string() -> None:
    assert to_new_items("hi") == ([NewItem(text="hi")], False)


def test_lists() -> None:
    assert to_new_items([]) == ([], True)
    item = NewItem(text="x", priority=0.9)
    items, was_list = to_new_items(("hi", item, Message(role="user", content="yo")))
    assert was_list
    assert items[0] == NewItem(text="hi")
    assert items[1] is item
    assert items[2] == NewItem(text="yo", kind="message", metadata={"role": "user"})


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user", content="hi", name="Nadia", at=T0),
        {"role": "user", "content": "hi", "name": "Nadia", "at": T0},
        {"role": "user", "content": "hi", "name": "Nadia", "timestamp": "2026-03-04T09:00:00Z"},
        {
            "role": "user",
            "content": "hi",
            "name": "Nadia",
            "at": "2026-03-04T10:00:00+01:00",
            "timestamp": None,
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi"}],
            "name": "Nadia",
            "at": T0,
            "tool_calls": [],
        },
    ],
)
def test_messages(message: Any) -> None:
    (item,), was_list = to_new_items(message)
    assert not was_list
    assert item == NewItem(
        text="hi", kind="message", metadata={"role": "user", "name": "Nadia"}, valid_from=T0
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    (item,), _ = to_new_items({"role": "user", "content": parts, "refusal": None})
    assert item.text == "one\ntwo"
    assert item.metadata == {"role": "user"}


def make_memory_item() -> MemoryItem:
    return MemoryItem(
        id="i",
        scope=Scope(user_id="u"),
        kind="fact",
        text="t",
        model_id="m",
        created_at=T0,
        touched_at=T0,
        valid_from=T0,
        recorded_at=T0,
    )


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (3, InputError, "content: cannot add int"),
        (None, InputError, "cannot add NoneType"),
        (b"x", InputError, "cannot add bytes"),
        (make_memory_item(), InputError, "cannot add MemoryItem"),
        (["a", 3], InputError, r"content\[1\]: cannot add int"),
        ([["a"]], InputError, r"content\[0\]: cannot add list"),
        ({"text": "a"}, InputError, "needs the keys role and content"),
        ({"role": "user"}, InputError, "needs the keys role and content"),
        ({"role": "", "content": "a"}, InputError, "role must be a string that is not empty"),
        ({"role": 3, "content": "a"}, InputError, "role must be a string"),
        ({"role": "user", "content": "a", "name": 3}, InputError, "name must be a string, not int"),
        ({"role": "user", "content": None}, InvalidText, "not NoneType"),
        (Message(role="user", content=3), InvalidText, "not int"),  # type: ignore[arg-type]
        ({"role": "user", "content": [{"type": "image_url"}]}, NotSupported, "part 0 is of type 'image_url'"),
        ({"role": "user", "content": ["a"]}, NotSupported, "part 0 is of type 'str'"),
        ({"role": "user", "content": [{"type": "text"}]}, InvalidText, "text of content part 0"),
        ({"role": "a", "content": "a", "tool_calls": [{"id": 1}]}, NotSupported, "key 'tool_calls'"),
        ({"role": "a", "content": "a", "n": 0}, NotSupported, "key 'n'"),
        ({"role": "a", "content": "a", "at": "2026-03-04T09:00:00"}, InvalidTime, "naive"),
        ({"role": "a", "content": "a", "at": NAIVE}, InvalidTime, "naive"),
        ({"role": "a", "content": "a", "at": "soon"}, InvalidTime, "no ISO 8601 time"),
        ({"role": "a", "content": "a", "timestamp": 1.7e9}, InvalidTime, "must be a datetime, not float"),
        ({"role": "a", "content": "a", "at": T0, "timestamp": T0}, InputError, "give one"),
        (Message(role="a", content="a", at=NAIVE), InvalidTime, "naive"),
    ],
)
def test_refused(content: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        to_new_items(content)
