"""Lines that an import refused are not lost: the next one tries them again, and no other line twice."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from memory.test_portable import forget_keys, lines_of, texts
from warpmem import Memory
from warpmem.embed.weights import PROBE
from warpmem.errors import EmbeddingError, ModelError, ModelUnavailable, Overloaded, StoreError
from warpmem.memory import ledger
from warpmem.memory.importing import ImportReport
from warpmem.storage.codec import prefix_range

ADD_MANY = Memory.add_many


class Down:
    """An embedder whose server is down at times."""

    def __init__(self) -> None:
        self.is_down = True
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += 1
        if self.is_down:
            raise RuntimeError("the server is down")
        return np.ones((len(texts), 4), np.float32)


def messages(count: int) -> bytes:
    """Lines whose repetition would be stored again, were they not known."""
    lines = [{"text": f"line {n}", "user_id": "u", "kind": "message"} for n in range(1, count + 1)]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def refuse(patch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    """Refuse these lines: what a schema, a limit or a conflict of the store does for a while."""

    def check(self: Memory, items: Any) -> Any:
        if any(item.text == f"line {n}" for item in items for n in numbers):
            raise warpmem.errors.InvalidText("not now")
        return ADD_MANY(self, items)

    patch.setattr(Memory, "add_many", check)


def take(memory: Memory, data: bytes, **options: Any) -> ImportReport:
    report = memory.import_(io.BytesIO(data), **{"skip_errors": True, **options})
    if report.stored:
        forget_keys(memory)
    return report


def marks(memory: Memory) -> int:
    return sum(1 for _ in memory._log.kept_between(*prefix_range(b"import")))


@pytest.fixture
def memory() -> Memory:
    return warpmem.open(embedder="hashing")


def test_an_embedder_that_is_down_stops_an_import_whatever_it_may_skip() -> None:
    """Every line was refused, the file taken for finished, and the next import stored nothing."""
    embedder = Down()
    with warpmem.open(embedder=embedder, dimension=4, model_id="m") as memory:
        report = memory.import_(io.BytesIO(lines_of(3)), skip_errors=True)
        assert (report.stored, report.skipped, report.stopped) == ({}, 0, True)
        # For the batch, for the first line, and for a text that is no line's.
        assert [number for number, _ in report.refused] == [1] and embedder.asked == 3
        embedder.is_down = False
        report = memory.import_(io.BytesIO(lines_of(3)), skip_errors=True)
        assert (report.before, report.stored, report.stopped) == (0, {"added": 3}, False)


class Squeamish:
    """An embedder that fails at some texts, in one of the ways in which models do."""

    model_id, dimension = "m", 4

    def __init__(self, way: str, *texts: str) -> None:
        self._way = way
        self.texts = set(texts)

    def embed(self, texts: Sequence[str], *, role: str) -> NDArray[np.float32]:
        rows = np.ones((len(texts), 4), np.float32)
        bad = [i for i, text in enumerate(texts) if text in self.texts]
        if bad and self._way == "NaN":
            rows[bad] = np.nan
        elif bad:
            raise {"unavailable": ModelUnavailable, "refused": ModelError, "indigestible": EmbeddingError}[
                self._way
            ]("no vector")
        return rows


@pytest.mark.parametrize("batch", [1, 2, 500])
@pytest.mark.parametrize("way", ["NaN", "unavailable", "refused", "indigestible"])
def test_a_text_that_the_model_fails_at_is_left_out_alone(way: str, batch: int) -> None:
    """It ended the import, and so did the next one: nothing behind it was ever stored."""
    embedder = Squeamish(way, "line 3", "line 4", "line 8")
    with warpmem.open(embedder=embedder) as memory:
        report = take(memory, messages(9), batch=batch)
        assert (report.stored, report.skipped, report.stopped) == ({"added": 6}, 3, False)
        assert [number for number, _ in report.refused] == [3, 4, 8]
        embedder.texts = {"line 4"}
        report = take(memory, messages(9), batch=batch)
        assert (report.before, report.stored, report.skipped) == (6, {"added": 2}, 1)
        embedder.texts.clear()
        assert take(memory, messages(9), batch=batch, skip_errors=False).stored == {"added": 1}
        assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 10)]


@pytest.mark.parametrize(("down", "stopped"), [("text", False), ("code", True)])
def test_each_modality_has_a_model_that_may_be_down(down: str, stopped: bool) -> None:
    models = {name: Squeamish("refused", "line 1") for name in ("text", "code")}
    models[down].texts.add(PROBE)
    line = json.dumps({"text": "line 1", "user_id": "u", "modality": "code"}).encode() + b"\n"
    with warpmem.open(embedder=models["text"], embedders={"code": models["code"]}) as memory:
        report = take(memory, line)
        assert (report.skipped, report.stopped) == (int(not stopped), stopped)


def test_what_came_before_an_overload_is_not_stored_again() -> None:
    """Lines of its batch that were stored one by one were known by their keys alone, which pass."""
    embedder = Squeamish("refused", "line 2")
    with warpmem.open(embedder=embedder) as memory:
        with pytest.MonkeyPatch.context() as patch:

            def add_many(self: Memory, items: Any) -> Any:
                if [item.text for item in items] == ["line 4"]:
                    raise Overloaded("too much", 1.0)
                return ADD_MANY(self, items)

            patch.setattr(Memory, "add_many", add_many)
            with pytest.raises(Overloaded):
                take(memory, messages(5))
        forget_keys(memory)
        embedder.texts.clear()
        report = take(memory, messages(5))
        assert (report.before, report.stored) == (2, {"added": 3})
        assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 6)]


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_only_refused_lines_are_tried_again(memory: Memory, batch: int) -> None:
    data = messages(9)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, {3, 4, 8})
        report = take(memory, data, batch=batch)
        assert (report.stored, report.skipped) == ({"added": 6}, 3)
        refuse(patch, {8})
        report = take(memory, data, batch=batch, skip_errors=False)
        assert (report.stored, report.stopped, [n for n, _ in report.refused]) == ({"added": 2}, True, [8])
        assert marks(memory) == 1
    report = take(memory, data, batch=batch, skip_errors=False)
    assert (report.before, report.stored, report.stopped) == (8, {"added": 1}, False)
    assert take(memory, data, batch=batch).before == 9 and marks(memory) == 1
    assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 10)]


def test_refused_lines_are_known_in_every_length_of_their_file(memory: Memory) -> None:
    was, grown = messages(3), messages(5)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, {2, 5})
        assert take(memory, was).stored == {"added": 2}
        report = take(memory, grown)
        assert (report.before, report.stored, report.skipped) == (2, {"added": 1}, 2)
    assert take(memory, grown).stored == {"added": 2}
    assert [take(memory, data).before for data in (was, grown)] == [3, 5]
    assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 6)]


def test_a_line_that_is_refused_when_it_is_imported_again_was_stored(memory: Memory) -> None:
    data = messages(4)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, {1, 2})
        take(memory, data)
        refuse(patch, {2, 3})
        report = take(memory, data, again=True)
        assert (report.stored, report.skipped) == ({"added": 2}, 2)
    report = take(memory, data)
    assert (report.before, report.stored) == (3, {"added": 1})
    assert sorted(texts(memory)) == ["line 1", "line 2", "line 3", "line 4", "line 4"]


def test_refused_lines_outlive_a_store_that_fails(memory: Memory) -> None:
    data = messages(6)

    def fail(self: Memory, items: Any) -> Any:
        if any(item.text == "line 5" for item in items):
            raise StoreError("the disk is gone")
        return ADD_MANY(self, items)

    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, {2, 3, 5})
        take(memory, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "add_many", fail)
        with pytest.raises(StoreError):
            take(memory, data, batch=1)
        forget_keys(memory)
    report = take(memory, data)
    assert (report.before, report.stored) == (5, {"added": 1})
    assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 7)]


def test_no_mark_lies_behind_more_refused_lines_than_it_names(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines there are known by their keys for a week, and none is lost."""
    monkeypatch.setattr(ledger, "_MAX_REFUSED", 2)
    data = messages(8)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, {2, 4, 6, 7})
        assert memory.import_(io.BytesIO(data), skip_errors=True, batch=1).skipped == 4
    report = memory.import_(io.BytesIO(data), skip_errors=True)
    assert (report.before, report.skipped) == (3, 0)
    assert sorted(texts(memory)) == [f"line {n}" for n in range(1, 9)]
    assert take(memory, data).before == 8


def test_a_cut_off_export_has_no_refused_line(memory: Memory) -> None:
    with warpmem.open(embedder="hashing") as source:
        source.add("one", user_id="u")
        out = io.BytesIO()
        source.export(out)
    first, _ = out.getvalue().splitlines(keepends=True)
    for stored in ({"added": 1}, {}):
        report = take(memory, first)
        assert (report.stored, report.skipped) == (stored, 1) and "cut off" in report.refused[0][1]
