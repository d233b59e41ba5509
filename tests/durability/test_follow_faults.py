"""A follower whose directory or descriptors are away for a while: typed errors meanwhile, and it goes on."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

import warpmem
from durability.followers import USER, open_writer
from durability.test_follow import ONE, follow, texts
from warpmem.errors import StoreError
from warpmem.storage import directory, rocks_follow
from warpmem.storage.follow import FollowingLog
from warpmem.storage.rocks_follow import FollowingEngine


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def failing(*arguments: object) -> list[str]:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_follower_goes_on_after_its_directory_could_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread ended at the first error that was not a StoreError, and it was stale from then on."""
    caplog.set_level(logging.WARNING, "warpmem")
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with follow(tmp_path / "store", 5) as follower:
            assert follower.stats().lag_errors == 0
            with monkeypatch.context() as patch:
                patch.setattr(os, "listdir", failing)
                with pytest.raises(StoreError, match="Input/output error"):
                    follower.refresh()
                assert follower.stats().lag_errors > 0
                wait_for(lambda: follower.stats().lag_errors > 3)
            writer.add("second", user_id=USER, vector=ONE)
            wait_for(lambda: texts(follower) == {"first", "second"})
            assert follower.stats().lag_errors > 1
            assert "warpmem_lag_errors_total" in follower.metrics()
    told = [record for record in caplog.records if record.message == "follow_failed"]
    assert [record.__dict__["error"] for record in told] == ["StoreError"], "once for each kind"


def test_no_error_ends_a_follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_writer(tmp_path / "store") as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with monkeypatch.context() as patch:

            def refresh(log: FollowingLog) -> int:
                raise KeyError("an error that nobody thought of")

            patch.setattr(FollowingLog, "refresh", refresh)
            follower = follow(tmp_path / "store", 5)
            wait_for(lambda: follower.stats().lag_errors > 0)
        with follower:
            writer.add("second", user_id=USER, vector=ONE)
            wait_for(lambda: texts(follower) == {"first", "second"})


def test_a_follower_goes_on_when_its_directory_comes_back(tmp_path: Path) -> None:
    store, away = tmp_path / "store", tmp_path / "away"
    with open_writer(store) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with follow(store, 5) as follower:
            os.rename(store, away)
            for ask in (writer.stats, writer.metrics, follower.refresh):
                with pytest.raises(StoreError, match="is gone"):
                    ask()
            stats = follower.stats()
            assert stats.lag_errors > 0 and stats.storage["wal"] > 0, "what was known last"
            assert "warpmem_lag_errors_total" in follower.metrics()
            assert texts(follower) == {"first"}
            os.rename(away, store)
            writer.add("second", user_id=USER, vector=ONE)
            wait_for(lambda: texts(follower) == {"first", "second"})
            assert follower.stats().lag_changes == 0


def test_statistics_are_read_while_a_follower_cannot_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They raised what the follower met, and so its failures were never seen while it failed."""
    store, other, away = (tmp_path / name for name in ("store", "other", "away"))
    open_writer(other).close()
    with open_writer(store) as writer, follow(store, 0) as follower:
        writer.add("first", user_id=USER, vector=ONE)
        writer.add("second", user_id=USER, vector=ONE)
        before = follower.stats()
        assert (before.lag_changes, before.lag_errors) == (2, 0)
        os.rename(store, away)
        os.rename(other, store)
        after = [follower.stats() for _ in range(3)]
        assert [stats.lag_changes for stats in after] == [2, 2, 2], "what was known last"
        assert [stats.lag_errors for stats in after] == [1, 2, 3]
        seconds = [stats.lag_seconds for stats in (before, *after)]
        assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
        assert "warpmem_lag_errors_total 4" in follower.metrics()
        with pytest.raises(StoreError, match="another store"):
            follower.refresh()
        os.rename(store, other)
        os.rename(away, store)
        assert follower.refresh() == 2
        os.rename(store, away)
        os.rename(other, store)
        first, second = follower.stats(), follower.stats()
        assert first.lag_changes == second.lag_changes == 0
        log = follower._log
        monkeypatch.setattr(log, "_last", 1)  # as of a copy that had less, and is gone again
        assert log.lag()[0] == 0
        assert 0 < first.lag_seconds < second.lag_seconds, "how long nothing is known"
        os.rename(store, other)
        os.rename(away, store)


class Asking(logging.Handler):
    """Asks a follower for its lag when it hears of a failure."""

    def __init__(self, follower: warpmem.Memory) -> None:
        super().__init__()
        self.follower = follower
        self.heard: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.follower.stats().lag_errors)


def test_who_is_told_of_a_failure_may_ask_for_the_lag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for itself."""
    with open_writer(tmp_path / "store") as writer, follow(tmp_path / "store", 0) as follower:
        writer.add("first", user_id=USER, vector=ONE)
        asking = Asking(follower)
        logging.getLogger("warpmem").addHandler(asking)
        try:
            monkeypatch.setattr(os, "listdir", failing)
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(follower.stats)
                assert not wait([asked], timeout=60).not_done
        finally:
            logging.getLogger("warpmem").removeHandler(asking)
            monkeypatch.undo()
    assert asking.heard == [2]


@pytest.mark.parametrize("times", [1, 1000])
def test_what_failed_in_the_middle_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Of a change, what stands in one family could be seen without what stands in another. What fails once is
    made good at once, and what lasts by whoever reads when it is over."""
    path = tmp_path / "store"
    with open_writer(path) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        engine = FollowingEngine(path)
        everything = ("items", b"", b"\xff" * 64)
        walks = [engine.scan(*everything), engine.chunks(*everything, 1)]
        writer.add("second", user_id=USER, vector=ONE)
        real, looks = directory.data_files, []

        def fails_later(path: str) -> dict[str, int]:
            looks.append(path)
            if 2 <= len(looks) < 2 + times:
                raise StoreError("the directory cannot be listed")
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(directory, "data_files", fails_later)
            if times == 1:
                engine.catch_up()
            else:
                for read in (
                    engine.catch_up,
                    lambda: engine.get("items", b"x"),
                    lambda: engine.get_many("items", [b"x"]),
                    lambda: engine.scan("items", b"", b"x"),
                    lambda: engine.chunks("items", b"", b"x", 3),
                    *(lambda walk=walk: next(walk) for walk in walks),
                ):
                    with pytest.raises(StoreError, match="cannot be listed"):
                        read()
        assert len(list(engine.scan(*everything))) == 2
        assert [len(list(walk)) for walk in walks] == [2, 2], "they go on in what there is now"
        engine.close()


def test_a_forked_child_leaves_what_its_parent_reads_through(tmp_path: Path) -> None:
    """A fork while a follower was opened: the links went at the child's end, and nothing new was found."""
    (tmp_path / "links").mkdir()
    remove = directory.removed_with(pytest, str(tmp_path / "links"))
    child = os.fork()
    if child == 0:
        try:
            remove()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "links").exists()
    remove()
    assert not (tmp_path / "links").exists()


_NO_DESCRIPTORS = """
import resource, sys, time, numpy as np, warpmem
from warpmem import upkeep
from warpmem.errors import StoreError
path, one = sys.argv[1], np.ones(16)
with warpmem.open(path, follow=True, follow_ms=5, backend="cpu") as follower:
    assert len(follower.search(vector=one, user_id="ann")) == 1
    follower.refresh()  # or the first one may be in the middle, after which stats() is refused as reads are
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    wrong = []
    for ask in (
        follower.refresh,
        lambda: upkeep.verify(path),
        lambda: upkeep.repair(path, path + ".new"),
        lambda: warpmem.open(path, backend="cpu"),
        lambda: warpmem.open(path, backend="cpu", read_only=True),
        lambda: warpmem.open(path, backend="cpu", follow=True),
    ):
        try:
            ask()
        except warpmem.WarpmemError:
            continue
        except BaseException as error:
            wrong.append(repr(error))
        else:
            wrong.append("no error")
    time.sleep(2)
    assert follower.stats().lag_errors > 0
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not wrong, wrong
    print("go on", flush=True)
    deadline = time.monotonic() + 20
    while len(follower.search(vector=one, user_id="ann")) != 2:
        assert time.monotonic() < deadline, "the follower is stale"
        time.sleep(0.01)
    assert follower.stats().lag_errors > 0
"""


def test_a_follower_goes_on_after_descriptors_were_short(tmp_path: Path) -> None:
    """In a process of its own, for it is the whole process that has none."""
    path = tmp_path / "store"
    with open_writer(path) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with subprocess.Popen(
            [sys.executable, "-c", _NO_DESCRIPTORS, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "go on\n"
            writer.add("second", user_id=USER, vector=ONE)
            assert child.wait(60) == 0


# ------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["a" * 300, "loop", "\udcff", "x\ud800"])
def test_a_path_that_cannot_be_one_is_a_typed_error(tmp_path: Path, name: str) -> None:
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    path = os.path.join(tmp_path, name)
    for ask in (
        lambda: warpmem.open(path, dimension=4),
        lambda: warpmem.open(path, read_only=True),
        lambda: warpmem.open(path, follow=True),
        lambda: warpmem.verify(path),
        lambda: warpmem.repair(path, tmp_path / "new"),
        lambda: warpmem.backup(path, tmp_path / "root"),
    ):
        with pytest.raises(warpmem.WarpmemError):
            ask()
    assert sorted(os.listdir(tmp_path)) == ["loop"], "nothing was made"


def test_a_writer_that_begins_a_manifest_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh failed beside a writer that was being opened, for RocksDB asked to try again."""
    path = tmp_path / "store"
    with open_writer(path) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        opened = rocks_follow.open_database

        def asks_to_try_again(path: str, memtable_bytes: int, access: str, *rest: Any) -> Any:
            if access == "follow":
                raise Exception(
                    "Operation failed. Try again.: The primary may have switched to a new MANIFEST"
                )
            return opened(path, memtable_bytes, access, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(rocks_follow, "open_database", asks_to_try_again)
            engine = FollowingEngine(path)
        everything = ("items", b"", b"\xff" * 64)
        assert len(list(engine.scan(*everything))) == 1
        writer.add("second", user_id=USER, vector=ONE)
        engine.catch_up()
        assert len(list(engine.scan(*everything))) == 2
        engine.close()


def test_a_moment_that_cannot_be_left_at_once_is_left_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened beside a writer who was busy, then without a temporary directory for a while."""
    with warpmem.open(tmp_path / "store", dimension=16, backend="cpu", min_free_bytes=0) as writer:
        writer.add("first", user_id=USER, vector=ONE)
        with monkeypatch.context() as busy:
            busy.setattr(FollowingEngine, "_open_links", lambda *arguments: None)
            follower = warpmem.open(tmp_path / "store", follow=True, follow_ms=0, backend="cpu")
        with follower:
            writer.add("second", user_id=USER, vector=ONE)
            with monkeypatch.context() as short:

                def fails() -> str:
                    raise StoreError("there is no temporary directory")

                short.setattr(directory, "scratch", fails)
                with pytest.raises(StoreError, match="no temporary directory"):
                    follower.refresh()
            follower.refresh()
            assert follower.count(user_id=USER) == 2
            writer.add("third", user_id=USER, vector=ONE)
            follower.refresh()
            assert follower.count(user_id=USER) == 3
