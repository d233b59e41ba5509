"""Every format version that was ever written is still read, and opened for writing, with all it holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durability.golden_stores import GOLDEN, content, describe, held_by, open_golden
from warpmem.errors import StoreReadOnly
from warpmem.storage.identity import FORMAT

FORMATS = range(1, FORMAT + 1)
IDENTITY = b"identity".hex()
NOTE = b"backup".hex()


@pytest.fixture(params=FORMATS)
def number(request: pytest.FixtureRequest) -> int:
    """A format version."""
    return int(request.param)


@pytest.fixture(params=["closed", "unclean"])
def golden(request: pytest.FixtureRequest, number: int, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a golden store, and what it holds."""
    folder = GOLDEN / f"format-{number}"
    copy = tmp_path / "store"
    shutil.copytree(folder / request.param, copy)
    return copy, content(folder)


def identity(held: dict[str, dict[str, str]]) -> list[Any]:
    """The identity as it is stored, without its frame; taken out of what a store holds."""
    return list(msgspec.msgpack.decode(bytes.fromhex(held["meta"].pop(IDENTITY))[1:-4]))


def test_read_only_it_is_served_as_it_is(golden: tuple[Path, dict[str, Any]]) -> None:
    path, expected = golden
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with open_golden(path, read_only=True) as memory:
        assert describe(memory) == expected["memory"]
        with pytest.raises(StoreReadOnly):
            memory.add("more", user_id="ann")
    assert held_by(path, expected["families"]) == expected["families"]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_for_writing_it_is_brought_up_to_date_after_a_copy(
    golden: tuple[Path, dict[str, Any]], number: int
) -> None:
    path, expected = golden
    for _ in range(2):
        with open_golden(path, cost_days=0) as memory:  # what is searched for leaves nothing there
            assert describe(memory) == expected["memory"]
        held = held_by(path, expected["families"])
        found, was = identity(held), identity(expected["families"])
        assert found == [FORMAT, *was[1:5], was[5] if number > 1 else "vectors"]
        # A migration adds one thing beside the identity: the note of its copy, once.
        notes = [key for key in held["meta"] if key.startswith(NOTE)]
        assert len(notes) == (number < FORMAT)
        for key in notes:
            assert str(path.with_name(f"store.format-{number}")).encode().hex() in held["meta"].pop(key)
        assert held == expected["families"]
        expected["families"]["meta"][IDENTITY] = held_by(path, ["meta"])["meta"][IDENTITY]
    with open_golden(path) as memory:
        (item,) = memory.get_many([memory.add("One more.", user_id="zoe").id])  # type: ignore[union-attr]
        assert item is not None and memory.search("more", user_id="zoe")[0].item == item
    copy = path.with_name(f"store.format-{number}")
    assert copy.exists() == (number < FORMAT)
    if copy.exists():
        with open_golden(copy, read_only=True) as memory:
            assert describe(memory) == expected["memory"]
        assert identity(held_by(copy, ["meta"]))[0] == number
