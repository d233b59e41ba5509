"""Processes that read a store while another one writes it: right answers, a known lag, and no trace."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import warpmem
from durability.followers import DIMENSION, USER, check, open_writer, process, write
from durability.harness import ForkServer
from warpmem.errors import InputError, NotSupported, StoreClosed, StoreError, StoreReadOnly
from warpmem.records import RowChange
from warpmem.storage import directory
from warpmem.storage.follow import FollowingLog
from warpmem.storage.rocks_follow import FollowingEngine

ONE = np.ones(DIMENSION)


def follow(path: Path, milliseconds: int = 20) -> warpmem.Memory:
    return warpmem.open(path, follow=True, follow_ms=milliseconds, backend="cpu")


def texts(memory: warpmem.Memory) -> set[str]:
    return {hit.item.text for hit in memory.search(vector=ONE, user_id=USER, k=100)}


def run_followers(path: Path, *, kills: int, seconds: float, followers: int) -> Counter[str]:
    """A writer is killed `kills` times, `seconds` after its first round, while `followers` processes check
    what they see; how many changes it made, and tables it made and dropped again."""

    def follow_on() -> None:
        with follow(path) as memory:
            last = 0
            while os.getppid() == parent:
                length = check(memory)
                assert length >= last, "the feed went back"
                last = length

    with open_writer(path) as memory:
        write(memory, 0)
    parent = os.getpid()
    outcomes: Counter[str] = Counter()
    with contextlib.ExitStack() as running:
        children = [running.enter_context(process(follow_on)) for _ in range(followers)]
        # A fork of this process, which had the store open, could not write.
        server = ForkServer("durability.followers:child")
        running.callback(server.close)
        for kill in range(kills):
            rounds = server.run(str(path), 1 + 100_000 * kill, seconds, opened=True)
            made, dropped = map(int, rounds[-1].split())
            outcomes += Counter({"tables": made, "dropped tables": dropped})
        for child in children:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "a follower failed"
    assert outcomes["tables"] and outcomes["dropped tables"], "only the log was followed: that shows little"
    with follow(path, 0) as memory, open_writer(path) as writer:
        memory.refresh()
        assert check(memory) == writer.stats().sequence
        return outcomes + Counter({"changes": writer.stats().sequence})


@pytest.mark.slow
def test_followers_are_right_while_the_writer_writes_dies_and_comes_back(tmp_path: Path) -> None:
    assert run_followers(tmp_path / "store", kills=4, seconds=2.0, followers=2)["changes"] > 200


def test_a_follower_takes_in_what_is_written(tmp_path: Path) -> None:
    with open_writer(tmp_path / "store") as writer:
        first = writer.add("first", user_id=USER, vector=ONE)
        assert isinstance(first, warpmem.AddResult)
        with follow(tmp_path / "store", 0) as follower:
            assert texts(follower) == {"first"}
            assert follower.get(first.id).text == "first"  # into the cache
            writer.update(first.id, text="changed", vector=ONE)
            writer.add("second", user_id=USER, vector=ONE)
            writer.add("other", user_id="new", vector=ONE)
            stats = follower.stats()
            assert (stats.lag_changes, stats.sequence, stats.read_only) == (3, 1, True)
            assert 0 < stats.lag_seconds < 60
            assert texts(follower) <= {
                "first",
                "changed",
            }  # the item may be ahead of the index, never behind it
            assert follower.refresh() == 3
            assert follower.refresh() == 0
            stats = follower.stats()
            assert (stats.lag_changes, stats.lag_seconds, stats.sequence, stats.owners) == (0, 0.0, 4, 2)
            assert texts(follower) == {"changed", "second"}
            assert follower.get(first.id).text == "changed"
            assert [change.cursor for change in follower.changes(2)] == [3, 4]
            assert follower.count(user_id="new") == 1
            writer.delete(first.id)
            follower.refresh()
            assert texts(follower) == {"second"}
            assert follower.get_many([first.id]) == (None,)
            with pytest.raises(StoreReadOnly, match="follow=True"):
                follower.add("third", user_id=USER, vector=ONE)


def test_the_feed_of_a_follower_has_whatever_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it took changes in, stats() counted them and changes() did not have them yet."""
    tell, looks = FollowingLog._tell, []
    with open_writer(tmp_path / "store") as writer, follow(tmp_path / "store", 0) as follower:
        writer.add("first", user_id=USER, vector=ONE)

        def look(log: FollowingLog, effects: Sequence[RowChange]) -> None:
            tell(log, effects)
            looks.append((log.totals()["sequence"], len(follower.changes())))

        monkeypatch.setattr(FollowingLog, "_tell", look)
        assert follower.refresh() == 1
        looks.append((follower.stats().sequence, len(follower.changes())))
    assert looks == [(0, 0), (1, 1)]


def test_a_follower_refreshes_itself(tmp_path: Path) -> None:
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with follow(tmp_path / "store") as follower:
            writer.add("second", user_id=USER, vector=ONE)
            deadline = time.monotonic() + 10
            while texts(follower) != {"first", "second"}:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_declared_keys_of_a_follower(tmp_path: Path) -> None:
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE, metadata={"year": 1})
        with warpmem.open(
            tmp_path / "store", follow=True, follow_ms=0, columns={"year": "number"}
        ) as follower:
            assert texts(follower) == {"first"}
            writer.add("second", user_id=USER, vector=ONE, metadata={"year": 2})
            follower.refresh()
            found = follower.search(vector=ONE, user_id=USER, filters={"metadata.year": {"gte": 2}})
            assert [hit.item.text for hit in found] == ["second"]


def test_a_follower_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "store"
    with open_writer(path) as writer:
        for number in range(30):
            write(writer, number)

    def state() -> list[tuple[str, int, int]]:
        return sorted((e.name, e.stat().st_mtime_ns, e.stat().st_size) for e in os.scandir(path))

    before = state()
    with follow(path) as follower:
        check(follower)
        assert state() == before
    assert state() == before
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("listings", "anew"),
    [
        ([{"1.log", "2.sst"}, {"1.log", "2.sst", "3.log"}], 0),
        ([{"1.log", "2.sst"}, {"1.log", "3.sst"}, {"1.log", "3.sst"}], 0),
        ([{"1.log", "2.sst"}, {"2.sst", "3.log"}], 1),
        ([{"2.sst", "3.log"}], 1),
        ([{"1.log", f"{n}.sst"} for n in range(6)], 1),
    ],
    ids=["nothing lost", "a table", "a log meanwhile", "a log before", "a table each time"],
)
def test_a_lost_file_during_catching_up_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listings: list[set[str]], anew: int
) -> None:
    """A write-ahead log that goes while RocksDB catches up takes changes along: it is opened anew, as it is
    when tables go each time. For a table that goes once it catches up again."""
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
        engine = FollowingEngine(tmp_path / "store")
        looks = iter(listings)
        opened: list[object] = []
        with monkeypatch.context() as patch:
            patch.setattr(directory, "data_files", lambda path: dict.fromkeys(next(looks), 1))
            patch.setattr(engine, "_logs", frozenset({"1.log"}))
            patch.setattr(engine, "_begin_anew", opened.append)
            engine.catch_up()
        assert next(looks, None) is None, "it should have looked more often"
        assert len(opened) == anew
        engine.close()


class Gate(NamedTuple):
    """Where a follower is opened anew: whether it is there, and whether it may go on."""

    reached: threading.Event
    opened: threading.Event


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """For followers that are opened anew; how long that takes is a matter of how busy the writer is."""
    gate = Gate(threading.Event(), threading.Event())
    opened = FollowingEngine._open_read_only

    def slowly(engine: FollowingEngine, memtable_bytes: int) -> object:
        if engine._id is not None:  # not the first time
            gate.reached.set()
            assert gate.opened.wait(60)
        return opened(engine, memtable_bytes)

    monkeypatch.setattr(FollowingEngine, "_open_read_only", slowly)
    return gate


def without_its_log(path: Path) -> FollowingEngine:
    """A follower of a store whose writer has removed the log that the follower has read."""
    with open_writer(path) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        return FollowingEngine(path)


def test_reads_go_on_while_a_follower_is_opened_anew(tmp_path: Path, gate: Gate) -> None:
    """They waited for it, and for the writer, which must leave a moment to open its files in."""
    engine = without_its_log(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:
        try:
            catching_up = pool.submit(engine.catch_up)
            assert gate.reached.wait(60)
            found = pool.submit(lambda: list(engine.scan("items", b"", b"\xff" * 64))).result(timeout=30)
            assert len(found) == 1
            assert not catching_up.done()
        finally:
            gate.opened.set()
        catching_up.result()
    assert list(engine.scan("items", b"", b"\xff" * 64)) == found
    engine.close()


def test_a_follower_may_be_closed_while_it_is_opened_anew(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    engine = without_its_log(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:
        catching_up = pool.submit(engine.catch_up)
        assert gate.reached.wait(60)
        closed = pool.submit(engine.close)
        assert not wait([closed], timeout=0.2).done, "what is opened then would stay open"
        gate.opened.set()
        catching_up.result()
        closed.result()
    with pytest.raises(StoreClosed):
        engine.catch_up()
    assert not list(scratch.iterdir())


def test_an_interrupt_leaves_the_database_its_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came when it had just been taken into use: the links went, and nothing new was ever found."""
    engine = without_its_log(tmp_path / "store")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with open_writer(tmp_path / "store") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_let_walks_go", interrupted)
            with pytest.raises(KeyboardInterrupt):
                engine.catch_up()
        writer.add("second", user_id=USER, vector=ONE)
        engine.catch_up()
        assert len(list(engine.scan("items", b"", b"\xff" * 64))) == 2
    engine.close()


def test_who_can_refresh(tmp_path: Path) -> None:
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
        assert writer.refresh() == 0
        assert writer.stats().lag_changes == 0
        with (
            warpmem.open(tmp_path / "store", read_only=True) as reader,
            pytest.raises(NotSupported, match="follow=True"),
        ):
            reader.refresh()
    with pytest.raises(InputError, match="follow needs a path"):
        warpmem.open(follow=True)
    closed = follow(tmp_path / "store")
    closed.close()
    with pytest.raises(StoreClosed):
        closed.refresh()


def test_an_exchanged_store_is_noticed(tmp_path: Path) -> None:
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
    with follow(tmp_path / "store", 0) as follower:
        os.rename(tmp_path / "store", tmp_path / "old")
        with open_writer(tmp_path / "store") as writer:
            writer.add("other", user_id=USER, vector=ONE)
            with pytest.raises(StoreError, match="another store stands"):
                follower.refresh()
            assert texts(follower) == {"first"}


_USES = {
    "search": lambda memory: memory.search(vector=ONE, user_id=USER),
    "search_many": lambda memory: memory.search_many(vectors=[ONE], scopes=[warpmem.Scope(user_id=USER)]),
    "context": lambda memory: memory.context("x", vector=ONE, user_id=USER),
    "add": lambda memory: memory.add("x", vector=ONE, user_id=USER),
    "add_many": lambda memory: memory.add_many(["x"], vectors=[ONE], user_id=USER),
    "update": lambda memory: memory.update("0" * 32, text="x"),
    "delete": lambda memory: memory.delete("0" * 32),
    "delete_all": lambda memory: memory.delete_all(user_id=USER),
    "get": lambda memory: memory.get("0" * 32),
    "get_many": lambda memory: memory.get_many(["0" * 32]),
    "list": lambda memory: memory.list(user_id=USER),
    "count": lambda memory: memory.count(user_id=USER),
    "owners": lambda memory: memory.owners(),
    "history": lambda memory: memory.history("0" * 32),
    "changes": lambda memory: memory.changes(),
    "stats": lambda memory: memory.stats(),
    "flush": lambda memory: memory.flush(),
    "refresh": lambda memory: memory.refresh(),
    "checkpoint": lambda memory: memory.checkpoint(),
    "log": lambda memory: memory._log.transact(lambda transaction: None),
}


@pytest.mark.parametrize("following", [False, True])
def test_a_forked_child_gets_an_error_at_once(tmp_path: Path, following: bool) -> None:
    """While threads of the parent hold the store's locks: a child that waited for one would wait for ever."""
    with open_writer(tmp_path / "store") as writer:
        for number in range(5):
            write(writer, number)
        used = follow(tmp_path / "store", 1) if following else writer
        stop = threading.Event()

        def work() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                writer.add(f"{threading.get_ident()} {number}", user_id=USER, vector=ONE)
                used.search(vector=ONE, user_id=USER)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()

        def be_child() -> None:
            for name, use in _USES.items():
                with pytest.raises((StoreClosed, StoreReadOnly)) as caught:
                    use(used)
                assert following or "fork" in str(caught.value), name
            engine = used._log._engine  # type: ignore[attr-defined]
            for read in (
                lambda: engine.get("items", b"x"),
                lambda: engine.get_many("items", [b"x"]),
                lambda: list(engine.scan("items", b"", b"x")),
                lambda: list(engine.chunks("items", b"", b"x", 3)),
                engine.sizes,
            ):
                with pytest.raises(StoreClosed, match="fork"):
                    read()
            used.close()
            writer.close()

        try:
            for _ in range(20):
                with process(be_child) as child:
                    deadline = time.monotonic() + 20
                    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                        if time.monotonic() > deadline:
                            os.kill(child, signal.SIGKILL)
                            raise AssertionError("the child hangs")
                        time.sleep(0.005)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            if following:
                used.close()
        assert writer.stats().items > 0
