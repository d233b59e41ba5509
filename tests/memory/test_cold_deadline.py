"""Searches with a deadline over owners who are not read yet.

That reading takes long is said to the index as a pace, so that nothing here waits for a clock: the deadline
of every search is far away, and what cannot be in time is known at once.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

import warpmem
from image_models import RED, ColourTextEmbedder, picture
from warpmem import Memory, Ranking, Scope
from warpmem.errors import DeadlineExceeded, StoreClosed, StoreCorrupt
from warpmem.index.owner_words import TextSource
from warpmem.index.read_ahead import What
from warpmem.ops.ids import format_id, parse_id

QUESTION = "what does note 7 say of cellos"
LATER = 3600.0
A, B = Scope(user_id="a"), Scope(user_id="b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        texts = [f"note {n} of {('cellos', 'harps')[n % 2]} and {n * n}" for n in range(40)]
        memory.add_many(texts, user_id="a")
        memory.add("who plays", user_id="a", entities=["Cellos"])
        memory.add_many(["a note of b on cellos", "and one on harps"], user_id="b")
    return tmp_path / "store"


class Cold:
    """A store that was just opened, whose owners take for ever to be read: behind a gate.

    slow: what takes so long, as far as is known; the rest takes no time.
    """

    def __init__(self, path: Path, slow: Sequence[What] = ("words",), **options: Any) -> None:
        options = {"embedder": "hashing", "background_work": False, "checkpoint_rows": 0, **options}
        self.memory = warpmem.open(path, **options)
        self.index: Any = self.memory._index
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.fault: Exception | None = None
        self.loads = 0
        for what in get_args(What):
            self.index._ahead.took(what, 1024, 1e9 if what in slow else 0.0)
        texts, rows = self.index._texts, self.index._load_rows

        def load(names: Any) -> Any:
            self.loads += 1
            if "words" in slow:
                self.wait()
            return texts.load(names)

        def load_rows(owner: int) -> Any:
            if "rows" in slow:
                self.wait()
            return rows(owner)

        self.index._texts = TextSource(load, texts.words)
        self.index._load_rows = load_rows

    def wait(self) -> None:
        self.begun.set()
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault

    def read(self) -> None:
        """Let all be read, until the thread has nothing left."""
        self.gate.set()
        thread = self.index._ahead._thread
        if thread is not None:
            thread.join(60)
            assert not thread.is_alive()

    def __enter__(self) -> Memory:
        return self.memory

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self.memory.close()


def found(result: Any) -> list[tuple[str, float]]:
    return [(hit.item.text, hit.score) for hit in result]


def answers(path: Path, **search: Any) -> list[tuple[str, float]]:
    with warpmem.open(path, embedder="hashing") as memory:
        return found(memory.search(QUESTION, **search))


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"follow": True}])
def test_words_are_left_out_until_they_are_read(path: Path, options: Any) -> None:
    by_meaning = answers(path, scope=A, mode="dense")
    by_both = answers(path, scope=A, mode="hybrid")
    cold = Cold(path, **options)
    with cold as memory:
        for _ in range(2):
            result = memory.search(QUESTION, scope=A, deadline=LATER, explain=True)
            assert (result.degraded, found(result)) == (("lexical",), by_meaning)
            assert result[0].parts["weight_lexical"] == 0.0
        assert memory.context(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        cold.read()
        result = memory.search(QUESTION, scope=A, deadline=LATER)
        assert (result.degraded, found(result)) == ((), by_both)


def test_without_a_deadline_they_are_read_first(path: Path) -> None:
    wanted = answers(path, scope=A, mode="hybrid")
    cold = Cold(path)
    with cold as memory, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(memory.search, QUESTION, scope=A)
        assert cold.begun.wait(60)
        assert cold.index._ahead._thread is None, "by the search itself"
        # Who is in a hurry meanwhile does not wait for it either.
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        cold.read()
        result = waiting.result(timeout=60)
    assert (result.degraded, found(result)) == ((), wanted)


def test_a_search_by_words_alone_is_told_at_once(path: Path) -> None:
    wanted = answers(path, scope=A, mode="lexical")
    cold = Cold(path)
    with cold as memory:
        with pytest.raises(DeadlineExceeded, match="words of these owners"):
            memory.search(QUESTION, scope=A, mode="lexical", deadline=LATER)
        cold.read()
        assert found(memory.search(QUESTION, scope=A, mode="lexical", deadline=LATER)) == wanted


def test_a_store_that_leaves_nothing_out_says_so(path: Path) -> None:
    cold = Cold(path, degrade=False)
    with cold as memory:
        with pytest.raises(DeadlineExceeded, match="words of these owners"):
            memory.search(QUESTION, scope=A, deadline=LATER)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_nothing_is_answered_without_rows(path: Path, mode: Any) -> None:
    wanted = answers(path, scope=A, mode=mode)
    cold = Cold(path, slow=["rows", "words"])
    with cold as memory:
        with pytest.raises(DeadlineExceeded, match="rows of these owners"):
            memory.search(QUESTION, scope=A, mode=mode, deadline=LATER)
        assert cold.begun.wait(60)
        cold.read()
        assert found(memory.search(QUESTION, scope=A, mode=mode, deadline=LATER)) == wanted


def test_of_several_owners_all_are_read(path: Path) -> None:
    wanted = answers(path, scopes=[A, B], mode="hybrid")
    cold = Cold(path)
    with cold as memory:
        assert memory.search(QUESTION, scopes=[A, B], deadline=LATER).degraded == ("lexical",)
        many = memory.search_many([QUESTION, "harps"], scopes=[A, B], deadline=LATER)
        assert [result.degraded for result in many] == [("lexical",)] * 2
        cold.read()
        result = memory.search(QUESTION, scopes=[A, B], deadline=LATER)
        assert (result.degraded, found(result)) == ((), wanted)


def test_rows_of_all_owners_come_before_words_of_any(path: Path) -> None:
    wanted = answers(path, scopes=[A, B], mode="dense")
    cold = Cold(path)
    # Too long for the search itself to do it, and not too long to wait for.
    cold.index._ahead.took("rows", 1024, 2 * 1024 * LATER * 0.7 / 43)
    with cold as memory:
        assert memory.stats().items == 43
        result = memory.search(QUESTION, scopes=[A, B], deadline=LATER)
        assert (result.degraded, found(result)) == (("lexical",), wanted)
        assert cold.begun.wait(60), "and the words are on their way"


def test_names_are_read_as_words_are(path: Path) -> None:
    ranking = Ranking(similarity=1.0, entities=1.0)
    wanted = answers(path, scope=A, ranking=ranking)
    cold = Cold(path, slow=["entities"])
    with cold as memory:
        with pytest.raises(DeadlineExceeded, match="names of these owners"):
            memory.search(QUESTION, scope=A, ranking=ranking, deadline=LATER)
        cold.read()
        assert found(memory.search(QUESTION, scope=A, ranking=ranking, deadline=LATER)) == wanted


def test_what_is_damaged_is_no_load(path: Path) -> None:
    cold = Cold(path)
    cold.fault = StoreCorrupt("a damaged text")
    with cold as memory:
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        cold.read()
        with pytest.raises(StoreCorrupt, match="a damaged text"):
            memory.search(QUESTION, scope=A, deadline=LATER)
        cold.fault = None
        memory.search(QUESTION, scope=A, deadline=LATER)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()


def failed(cold: Cold) -> None:
    """Let the thread fail at A's words; afterwards nothing is wrong with them any more."""
    cold.fault = StoreCorrupt("a damaged text")
    assert cold.memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
    cold.read()
    cold.fault = None


def test_what_fails_leaves_no_words_in_memory(path: Path) -> None:
    cold = Cold(path)
    with cold as memory:
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        assert cold.begun.wait(60)
        (words,) = [weakref.ref(each.words) for each in cold.index._partitions.values() if each.words]
        cold.fault = StoreCorrupt("a damaged text")
        cold.read()
        gc.collect()
        assert words() is None


def test_what_failed_is_forgotten_with_what_was_erased(path: Path) -> None:
    cold = Cold(path)
    with cold as memory:
        failed(cold)
        memory.erase([memory.list(scope=A, limit=1).items[0].id])
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()


@pytest.mark.parametrize("by", ["reading", "unloading"])
def test_what_failed_before_is_no_failure_of_today(path: Path, by: str) -> None:
    cold = Cold(path)
    with cold as memory:
        failed(cold)
        (owner,) = cold.index._partitions
        partition = cold.index._partitions[owner]
        if by == "reading":
            assert memory.search(QUESTION, scope=A).degraded == ()
            with partition.lock:
                cold.index._drop(owner, partition)
        else:
            assert cold.index._unload(owner, partition)
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()


def test_rows_that_somebody_read_meanwhile_are_no_failure(path: Path) -> None:
    cold = Cold(path, slow=["rows"])
    with cold as memory:
        cold.fault = StoreCorrupt("a damaged row")
        with pytest.raises(DeadlineExceeded, match="rows of these owners"):
            memory.search(QUESTION, scope=A, deadline=LATER)
        cold.read()
        cold.fault = None
        assert memory.search(QUESTION, scope=A).degraded == ()
        ((owner, partition),) = cold.index._partitions.items()
        with partition.lock:
            cold.index._drop(owner, partition)
        assert not cold.index.prepare([owner], "rows", LATER, patient=True)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()


@pytest.mark.parametrize("what", ["rows", "words"])
def test_what_was_taken_for_moments_is_read_for_as_long_as_there_is_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: What
) -> None:
    """As rows of an owner with few items and many versions."""
    monkeypatch.setattr("warpmem.index.owner_rows._BATCH", 8)
    cold = Cold(path, slow=[])
    ahead, texts, rows = cold.index._ahead, cold.index._texts, cold.index._load_rows
    searching = threading.get_ident()
    late: list[bool] = []

    def load(call: Any, asked: Any) -> Any:
        found = call(asked)
        if threading.get_ident() == searching:
            late.append(True)
            ahead._mine.until = time.monotonic() - 1.0
        return found

    if what == "words":
        cold.index._texts = TextSource(lambda names: load(texts.load, names), texts.words)
    else:
        cold.index._load_rows = lambda owner: load(rows, owner)
    with cold as memory:
        if what == "words":
            assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        else:
            assert not cold.index.prepare([memory._log.owner(A.owner)], "rows", LATER, patient=True)
        cold.read()
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ()
        assert late == [True], "once, and the thread did the rest"


@pytest.mark.parametrize("what", ["rows", "words"])
def test_nobody_in_a_hurry_waits_for_one_who_is_not(path: Path, what: What) -> None:
    cold = Cold(path, slow=[what])
    cold.index._ahead._paces[what] = 0.0
    with cold as memory, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(memory.search, QUESTION, scope=A)
        assert cold.begun.wait(60)
        with pytest.raises(DeadlineExceeded):
            memory.search(QUESTION, scope=A, mode="lexical", deadline=0.05)
        assert not waiting.done()
        cold.read()
        assert waiting.result(timeout=60).degraded == ()


def test_what_is_added_meanwhile_is_found(path: Path) -> None:
    cold = Cold(path)
    with cold as memory:
        memory.search(QUESTION, scope=A, deadline=LATER)
        assert cold.begun.wait(60)
        memory.add("violas at last", user_id="a")
        cold.read()
        (hit, *_) = memory.search("violas", scope=A, mode="lexical", deadline=LATER)
        assert hit.item.text == "violas at last"


def test_closing_ends_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpmem.index.owner_rows._BATCH", 8)
    cold = Cold(path)
    ahead = cold.index._ahead
    with cold as memory, ThreadPoolExecutor(1) as pool:
        assert memory.search(QUESTION, scope=A, deadline=LATER).degraded == ("lexical",)
        assert cold.begun.wait(60)
        thread = ahead._thread
        closing = pool.submit(memory.close)
        with ahead._changed:
            told = ahead._changed.wait_for(lambda: ahead._stopped, 20)
        cold.gate.set()
        closing.result(timeout=60)
        assert told
        thread.join(60)
        assert not thread.is_alive()
        assert cold.loads == 1, "what is left of the words is not read any more"
    with pytest.raises(StoreClosed):
        cold.memory.search(QUESTION, scope=A, deadline=LATER)


def test_words_that_one_space_lacks_are_left_out_of_all(tmp_path: Path) -> None:
    models: Any = {"embedder": "hashing", "embedders": {"image": ColourTextEmbedder()}}
    with warpmem.open(tmp_path / "store", **models) as memory:
        memory.add_many([f"red note {n}" for n in range(6)], user_id="a")
        memory.add("red bridge", image=picture(RED), user_id="a")
    cold = Cold(tmp_path / "store", **models)
    with cold as memory:
        result = memory.search("red bridge", scope=A, mode="hybrid", deadline=LATER)
        assert result.degraded == ("lexical",)
        assert {hit.space for hit in result} == {"text", "image"}
        cold.read()
        assert memory.search("red bridge", scope=A, mode="hybrid", deadline=LATER).degraded == ()


def test_the_texts_of_versions(path: Path) -> None:
    with warpmem.open(path, embedder="hashing") as memory:
        kept = parse_id(memory.add("as it was", user_id="c").id)
        memory.update(format_id(kept), text="as it is")
        gone = parse_id(memory.add("to be erased", user_id="d").id)
        names = [(kept, 1), (gone, 1), (kept, 2), (kept, 3)]
        assert memory._log.texts(names) == ["as it was", "to be erased", "as it is", None]
        memory.erase(user_id="d")
        assert memory._log.texts(names) == ["as it was", None, "as it is", None]
        assert memory._log.texts([]) == []
