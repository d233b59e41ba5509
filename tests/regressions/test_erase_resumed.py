"""Faults in erasures that failed, or whose process died, and in the call or the open that finishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory
from warpmem.errors import DiskFull, NotFound
from warpmem.storage.erasing import ErasingTransaction

OPTIONS: dict[str, Any] = {"embedder": "hashing", "min_free_bytes": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def add(memory: Memory, text: str, *sources: str, user: str = "ann") -> str:
    result = memory.add(text, user_id=user, sources=sources)
    assert isinstance(result, warpmem.AddResult)
    return result.id


def fails(memory: Memory, step: str, monkeypatch: pytest.MonkeyPatch, **what: Any) -> None:
    """An erasure that has no room left for one of its changes."""

    def full(*arguments: object, **options: object) -> None:
        raise DiskFull("0 bytes free")

    with monkeypatch.context() as patch:
        patch.setattr(ErasingTransaction, step, full)
        with pytest.raises(DiskFull):
            memory.erase(**what)


def test_another_owner_erases_nothing_by_an_id_whose_erasure_failed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made of it was to be kept, and went."""
    with warpmem.open(path, **OPTIONS) as memory:
        page, mine = add(memory, "A page"), add(memory, "Of bob", user="bob")
        kept = add(memory, "Of the page", page)
        fails(memory, "erase_item", monkeypatch, ids=[page], derived="keep")
        with pytest.raises(NotFound):
            memory.erase([page], user_id="bob")
        assert memory.stats().pending_erasures == 1
        fails(memory, "forget_sources", monkeypatch, ids=[page], derived="keep")
        receipt = memory.erase([page], user_id="bob")
        assert (receipt.derived, receipt.finished) == ((), 2)
        assert memory.get(kept).sources == () and memory.get(mine)
        with pytest.raises(NotFound):
            memory.erase([page], user_id="ann")


def test_an_erasure_that_failed_is_asked_for_again_in_its_scope(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(path, **OPTIONS) as memory:
        book = add(memory, "A book")
        for step in ("erase_item", "forget_sources"):
            page = add(memory, "A page")
            add(memory, f"Of the page and a book, {step}", page, book)
            fails(memory, step, monkeypatch, ids=[page])
            assert memory.erase([page], user_id="ann").finished == 1
            assert memory.stats().pending_erasures == 0


def test_what_an_erasure_finishes_of_another_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt said that one erasure had been finished, and that one item had gone."""
    with warpmem.open(path, **OPTIONS) as memory:
        page, mine = add(memory, "A page"), add(memory, "Of bob", user="bob")
        fails(memory, "erase_item", monkeypatch, ids=[page])
        receipt = memory.erase([mine])
        assert (receipt.finished, receipt.items, receipt.vectors, receipt.log_entries) == (1, 2, 2, 2)
