"""Faults in erasures that failed, or whose process died, and in the call or the open that finishes them."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any, Literal

import pytest

import warpmem
from warpmem import Memory
from warpmem.errors import DiskFull, NotFound
from warpmem.storage.erasing import ErasingTransaction

Derived = Literal["erase", "keep"]
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


@pytest.mark.parametrize("scope", [{}, {"user_id": "ann"}], ids=["unscoped", "scoped"])
def test_an_id_that_never_was_is_none_of_an_owner_who_is_being_erased(
    path: Path, monkeypatch: pytest.MonkeyPatch, scope: dict[str, str]
) -> None:
    """Any that had the owner's number was taken for one of his, and erased nothing without a word."""
    with warpmem.open(path, **OPTIONS) as memory:
        page, mine = add(memory, "A page"), add(memory, "Of bob", user="bob")
        derived = add(memory, "Of the page", page, user="bob")
        fails(memory, "forget_sources", monkeypatch, user_id="ann", derived="keep")
        # A number that none ever had, and one of which nobody knows any more that it was there.
        for never in (page[:-1] + min({"0", "1"} - {page[-1]}), page):
            with pytest.raises(NotFound):
                memory.erase([never], **scope)
            with pytest.raises(NotFound):
                memory.erase([mine, never])
        assert memory.stats().pending_erasures == 1
        assert memory.get(mine) and memory.get(derived)
        assert memory.erase([mine]).finished == 1
        fails(memory, "erase_entries", monkeypatch, ids=[derived])
        fails(memory, "erase_owner", monkeypatch, user_id="bob")
        memory.erase([derived])  # named by an erasure of its own, whatever its owner's does


def test_what_an_erasure_finishes_of_another_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt said that one erasure had been finished, and that one item had gone."""
    with warpmem.open(path, **OPTIONS) as memory:
        page, mine = add(memory, "A page"), add(memory, "Of bob", user="bob")
        fails(memory, "erase_item", monkeypatch, ids=[page])
        receipt = memory.erase([mine])
        assert (receipt.finished, receipt.items, receipt.vectors, receipt.log_entries) == (1, 2, 2, 2)


class Meanwhile:
    """An erasure of a page that fails at the change of that number. While it looks for what was derived, more
    is made of the page."""

    def __init__(self, path: Path, derived: Derived, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory = warpmem.open(path, **OPTIONS)
        self.page, self.book = add(self.memory, "A page"), add(self.memory, "A book")
        self.moved = add(self.memory, "Of a book", self.book)
        self.late: list[str] = []
        self._changes = 0
        erasures: Any = self.memory._log.erasures
        look, run = erasures.derived, erasures._run

        def then(*arguments: Any) -> Any:
            found = look(*arguments)
            self._make_more()
            return found

        def counted(change: Any) -> Any:
            self._changes += 1
            if self._changes == fails_at:
                raise DiskFull("0 bytes free")
            return run(change)

        with monkeypatch.context() as patch:
            patch.setattr(erasures, "derived", then)
            patch.setattr(erasures, "_run", counted)
            try:
                self.memory.erase([self.page], derived=derived)
                self.failed = False
            except DiskFull:
                self.failed = True

    def _make_more(self) -> None:
        first = add(self.memory, "Of the page", self.page)
        self.late = [first, add(self.memory, "Of what is of the page", first)]
        self.memory.update(self.moved, text="Of the page now", sources=[self.page])
        self.memory.update(self.moved, text="Of a book again", sources=[self.book])

    def check(self, memory: Memory, derived: Derived) -> None:
        assert memory.stats().pending_erasures == 0
        versions = [past.item.version for past in memory.history(self.moved) if past.item is not None]
        left = {item.id for item in memory.list(user_id="ann")}
        if derived == "erase":
            assert (left, versions) == ({self.book, self.moved}, [1, 3])
        else:
            assert (left, versions) == ({self.book, self.moved, *self.late}, [1, 2, 3])
        assert memory.get(self.moved).sources == (self.book,)


@pytest.mark.parametrize("derived", ["erase", "keep"])
@pytest.mark.parametrize("finishing", ["open", "call", "repair"])
def test_what_is_made_of_it_meanwhile_goes_wherever_the_erasure_fails(
    tmp_path: Path, derived: Derived, finishing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost its sources, and nothing told any more that it was to go."""
    for fails_at in itertools.count(2):  # the first change begins it
        path = tmp_path / str(fails_at)
        run = Meanwhile(path, derived, fails_at, monkeypatch)
        if run.failed and finishing == "call":
            with contextlib.suppress(NotFound):  # nothing but its mark was left
                run.memory.erase([run.page], derived=derived)
        run.memory.close()
        if finishing == "repair":
            whole, path = path, tmp_path / f"{fails_at} repaired"
            assert warpmem.repair(whole, path).lost == ()
        with warpmem.open(path, **OPTIONS) as memory:
            run.check(memory, derived)
        assert warpmem.verify(path).ok
        if not run.failed:
            break
    assert fails_at > 10


def test_what_a_call_finds_that_finishes_an_erasure_is_in_its_receipt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(path, **OPTIONS) as memory:
        page, book = add(memory, "A page"), add(memory, "A book")
        fails(memory, "erase_item", monkeypatch, ids=[page])
        late, both = add(memory, "Of the page", page), add(memory, "Of the page and a book", page, book)
        receipt = memory.erase(user_id="bob")
        assert (receipt.derived, receipt.kept, receipt.items) == ((late,), (both,), 2)
