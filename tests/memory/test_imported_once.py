"""What was imported is known for good: files that begin alike, files that grew, later exports of a store."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from memory.test_portable import texts
from warpmem import Memory, Scope
from warpmem.errors import StoreError
from warpmem.memory.importing import ImportReport
from warpmem.ops.clock import FixedClock
from warpmem.storage.codec import prefix_range

FORGOTTEN = timedelta(days=8)
"""After that the store knows the lines' idempotency keys no more."""


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def source(clock: FixedClock) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", clock=clock) as memory:
        yield memory


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", clock=clock) as memory:
        yield memory


def said(*contents: str) -> bytes:
    """Lines whose repetition would be stored again, were they not known."""
    return b"".join(
        json.dumps({"text": text, "user_id": "u", "kind": "message"}).encode() + b"\n" for text in contents
    )


def take(memory: Memory, data: bytes, **options: Any) -> ImportReport:
    return memory.import_(io.BytesIO(data), **options)


def exported(memory: Memory, **options: Any) -> bytes:
    out = io.BytesIO()
    memory.export(out, **options)
    return out.getvalue()


def marks(memory: Memory) -> int:
    return sum(1 for _ in memory._log.kept_between(*prefix_range(b"import")))


# --------------------------------------------------------------------------------------------- files


def test_files_that_begin_alike_are_each_known(memory: Memory, clock: FixedClock) -> None:
    """The second took the first one's place, which then was stored again."""
    first, second = said("hello", "a1", "a2"), said("hello", "b1")
    assert take(memory, first).stored == {"added": 3}
    clock.advance(FORGOTTEN)
    assert take(memory, second).stored == {"added": 2}
    clock.advance(FORGOTTEN)
    for data, lines in ((first, 3), (second, 2)):
        report = take(memory, data)
        assert (report.stored, report.before) == ({}, lines)
    assert sorted(texts(memory)) == ["a1", "a2", "b1", "hello", "hello"]


def test_a_file_is_known_as_it_was_before_it_grew(memory: Memory, clock: FixedClock) -> None:
    was, grown = said("one", "two"), said("one", "two", "three")
    take(memory, was)
    assert take(memory, grown).stored == {"added": 1}
    clock.advance(FORGOTTEN)
    assert [take(memory, data).before for data in (was, grown)] == [2, 3]
    assert marks(memory) == 2
    assert take(memory, grown, again=True, batch=2).stored == {"added": 3}
    assert [take(memory, data).before for data in (was, grown)] == [2, 3]
    assert marks(memory) == 2


def test_another_file_does_not_take_over_where_one_was_cut_short(
    memory: Memory, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_many: Callable[..., Any] = Memory.add_many

    def fail(self: Memory, items: Any) -> Any:
        if any(item.text == "a3" for item in items):
            raise StoreError("the disk is gone")
        return add_many(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "add_many", fail)
        with pytest.raises(StoreError):
            take(memory, said("a1", "a2", "a3"), batch=1)
    assert marks(memory) == 1, "one for a run, however many commits it had"
    assert take(memory, said("a1", "a2", "b3", "b4"), batch=1).before == 2
    clock.advance(FORGOTTEN)
    report = take(memory, said("a1", "a2", "a3"), batch=1)
    assert (report.before, report.stored) == (2, {"added": 1})
    assert sorted(texts(memory)) == ["a1", "a2", "a3", "b3", "b4"]


# ------------------------------------------------------------------------------------------- exports


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("vectors", [False, True])
def test_a_later_export_of_the_same_store_adds_what_is_new(
    memory: Memory, source: Memory, clock: FixedClock, vectors: bool, seekable: bool
) -> None:
    """Its last line counts others, and what one owner has is new before what the next one had: all lines of
    before were stored again."""
    for user in ("u", "v"):
        source.add("yes", user_id=user, kind="message")
        source.add("yes", user_id=user, kind="message")
        source.add("likes tea", user_id=user)
    assert take(memory, exported(source)).stored == {"added": 6}
    clock.advance(FORGOTTEN)
    source.add("yes", user_id="u", kind="message")
    assert source.add("likes tea", user_id="v").action == "touched"
    data = exported(source, vectors=vectors)
    stream: Any = io.BytesIO(data) if seekable else Pipe(data)
    report = memory.import_(stream)
    assert (report.stored, report.before) == ({"added": 1}, 6)
    assert texts(memory) == ["yes", "yes", "likes tea", "yes"] and memory.count(user_id="v") == 3
    assert take(memory, exported(source), again=True).stored == {"added": 5, "touched": 2}


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_a_known_item_is_not_ended_by_a_later_line_that_says_the_same(
    memory: Memory, source: Memory, clock: FixedClock
) -> None:
    """As within one export: both are items of the source, and the first goes on there."""
    source.add("open", user_id="u", valid_from=datetime(2025, 12, 1, tzinfo=UTC))
    take(memory, exported(source))
    clock.advance(FORGOTTEN)
    (line, _) = exported(source).splitlines()
    fields = {name: value for name, value in json.loads(line).items() if name != "check"}
    second = {
        **fields,
        "id": "0" * 32,
        "valid_from": "2026-01-02T00:00:00Z",
        "valid_to": "2026-01-03T00:00:00Z",
    }
    notes: list[str] = []
    both = b"".join(json.dumps(each).encode() + b"\n" for each in (fields, second))
    assert take(memory, both, say=notes.append).before == 1
    assert [item.valid_to for item in memory.list(user_id="u")] == [None]
    assert notes == ["line 2: repeats an item that is valid longer; its end stays as it is"]


def test_an_exported_line_is_known_in_the_scope_and_kind_it_went_to(
    memory: Memory, clock: FixedClock
) -> None:
    line = b'{"id": "1", "text": "hello"}\n'
    for _ in range(2):
        for options in ({"scope": Scope(user_id="u")}, {"scope": Scope(user_id="v")}, {"kind": "event"}):
            take(memory, line, **{"scope": Scope(user_id="u"), "kind": "message", **options})
        clock.advance(FORGOTTEN)
    assert sorted(item.kind for item in memory.list(user_id="u")) == ["event", "message"]
    assert memory.count(user_id="v") == 1


def test_lines_that_are_known_are_passed_over_in_batches(
    memory: Memory, source: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held for each does not grow with an export of which all is known."""
    for n in range(9):
        source.add(f"item {n}", user_id="u")
    take(memory, exported(source))
    source.add("of another, in the end", user_id="v")
    before = marks(memory)

    def gone(*_: Any) -> Any:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(Memory, "add_many", gone)
    with pytest.raises(StoreError):
        take(memory, exported(source), batch=4)
    assert marks(memory) == before + 1, "what was known is marked, up to the last whole batch"


def test_what_was_erased_is_not_brought_back_by_a_later_export(
    source: Memory, clock: FixedClock, tmp_path: Path
) -> None:
    secret = source.add("secret", user_id="u", kind="message").id
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        take(memory, exported(source))
        memory.erase(ids=[item.id for item in memory.list(user_id="u")])
        source.update(secret, priority=0.7)
        source.add("new", user_id="u", kind="message")
        report = take(memory, exported(source))
        assert (report.stored, report.before) == ({"added": 1}, 1)
        assert texts(memory) == ["new"]
    assert warpmem.verify(tmp_path / "store").ok
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        assert take(memory, exported(source)).before == 3


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("how", ["delete", "erase"])
def test_what_was_erased_stays_so_when_its_line_is_changed(
    memory: Memory, source: Memory, clock: FixedClock, how: str, seekable: bool
) -> None:
    """A new priority brought the erased text back. What is still here is taken as it was changed."""
    names = [source.add(text, user_id="u", agent_id=text).id for text in ("secret", "open")]
    take(memory, exported(source))
    (secret, _) = memory.list(user_id="u")
    assert secret.text == "secret"
    memory.delete(secret.id) if how == "delete" else memory.erase(ids=[secret.id])
    for name in names:
        source.update(name, priority=0.7)
    for _ in range(2):
        clock.advance(FORGOTTEN)
        source.update(names[1], text=f"open at {clock.now()}")
        stream: Any = (io.BytesIO if seekable else Pipe)(exported(source))
        report = memory.import_(stream)
        assert (report.stored, report.before) == ({"added": 1}, 1)
    assert len(texts(memory)) == 3 and "secret" not in texts(memory)
    take(memory, exported(source), again=True)
    assert "secret" in texts(memory)
    source.update(names[0], text="of late")
    assert take(memory, exported(source)).stored == {"added": 1}, "it is here again"
