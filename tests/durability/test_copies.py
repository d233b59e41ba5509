"""A copy of a store is whole under its name, or not there; the original is only read."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import warpmem
from warpmem.errors import DiskFull, InputError, StoreLocked, StoreReadOnly
from warpmem.storage import copies
from warpmem.storage.copies import copy_store
from warpmem.storage.lock import PathLock


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing") as memory:
        for n in range(40):
            memory.add(f"item {n}", user_id="u")
        memory.checkpoint()
    return path


def texts(path: Path) -> list[str]:
    with warpmem.open(path, embedder="hashing") as memory:
        return [item.text for item in memory.list(user_id="u", limit=1000)]


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_copy_is_a_store_and_shares_only_what_is_never_written(store: Path, tmp_path: Path) -> None:
    before = contents(store)
    done = copy_store(str(store), str(tmp_path / "deep" / "copy"))
    assert contents(store) == before
    copy = tmp_path / "deep" / "copy"
    shared = {file.name for file in copy.iterdir() if file.stat().st_ino == (store / file.name).stat().st_ino}
    assert shared == {file.name for file in store.glob("*.sst")} | {"warpmem.index"}
    assert (done.linked_files, done.copied_files) == (len(shared), len(contents(copy)) - len(shared) - 1)
    with warpmem.open(copy, embedder="hashing") as memory:
        memory.add("more", user_id="u")
    assert len(texts(copy)) == 41
    assert contents(store) == before
    assert os.listdir(tmp_path / "deep") == ["copy"]


def test_without_links_nothing_is_shared(store: Path, tmp_path: Path) -> None:
    done = copy_store(str(store), str(tmp_path / "copy"), link=False)
    assert done.linked_files == 0
    for file in (tmp_path / "copy").iterdir():
        assert file.stat().st_nlink == 1
    assert texts(tmp_path / "copy") == texts(store)


def test_an_earlier_copy_is_reused_where_links_from_the_store_are_impossible(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def other_device(origin: str, copy: str) -> None:
        if Path(origin).parent == store:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(origin, copy)

    monkeypatch.setattr(os, "link", other_device)
    first = copy_store(str(store), str(tmp_path / "first"))
    assert first.linked_files == 0
    damaged = next((tmp_path / "first").glob("*.sst"))
    data = bytearray(damaged.read_bytes())
    data[10] ^= 1
    damaged.write_bytes(data)
    second = copy_store(str(store), str(tmp_path / "second"), reuse=str(tmp_path / "first"))
    assert second.linked_files == len(list(store.glob("*.sst")))  # the index for the damaged table
    assert (tmp_path / "second" / damaged.name).read_bytes() == (store / damaged.name).read_bytes()


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_target_that_is_taken_is_refused(store: Path, tmp_path: Path, taken: str) -> None:
    target = tmp_path / "target"
    if taken == "file":
        target.write_bytes(b"mine")
    else:
        (target / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="target"):
        copy_store(str(store), str(target))
    assert sorted(os.listdir(tmp_path)) == ["store", "target"]
    assert target.is_file() if taken == "file" else os.listdir(target) == ["inside"]


def test_an_empty_folder_becomes_the_copy(store: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    copy_store(str(store), str(tmp_path / "target"))
    assert len(texts(tmp_path / "target")) == 40


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EACCES, StoreReadOnly)], ids=["full", "denied"]
)
def test_a_copy_that_fails_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(copies, "sync_path", fail)
    with pytest.raises(error, match="copy"):
        copy_store(str(store), str(tmp_path / "copy"))
    assert os.listdir(tmp_path) == ["store"]


def test_what_finish_raises_removes_the_copy(store: Path, tmp_path: Path) -> None:
    def refuse(path: str) -> None:
        assert os.path.exists(os.path.join(path, "CURRENT")) and not (tmp_path / "copy").exists()
        raise ValueError("not good")

    with pytest.raises(ValueError, match="not good"):
        copy_store(str(store), str(tmp_path / "copy"), finish=refuse)
    assert os.listdir(tmp_path) == ["store"]


def test_everything_is_synced_before_the_name_is_given(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = copies.sync_path, os.rename

    def noted(function: Callable[..., None], what: str) -> Callable[..., None]:
        def call(path: str, *more: str) -> None:
            events.append(f"{what} {os.path.relpath(path, tmp_path)}")
            function(path, *more)

        return call

    monkeypatch.setattr(copies, "sync_path", noted(sync, "sync"))
    monkeypatch.setattr(os, "rename", noted(rename, "rename"))
    copy_store(str(store), str(tmp_path / "copy"))
    at = events.index("rename .copy.part/whole")
    files = {f"sync .copy.part/whole/{file.name}" for file in (tmp_path / "copy").iterdir()}
    assert files | {"sync .copy.part/whole"} == set(events[:at])
    assert events[at - 1] == "sync .copy.part/whole" and events[at + 1 :] == ["sync ."]


_KILLED = """
import sys, time
from warpmem.storage.copies import copy_store
def finish(path):
    print("ready", flush=True)
    time.sleep(60)
copy_store(sys.argv[1], sys.argv[2], finish=finish)
"""


def test_a_killed_copy_has_no_name_and_the_next_one_replaces_it(store: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(store), str(tmp_path / "copy")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    with child.stdout as output:
        assert output.readline() == b"ready\n"
        with pytest.raises(StoreLocked):
            copy_store(str(store), str(tmp_path / "copy"))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "copy").exists()
    (tmp_path / ".copy.part" / "whole" / "leftover").mkdir()
    copy_store(str(store), str(tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path)) == ["copy", "store"]
    assert not (tmp_path / "copy" / "leftover").exists()
    PathLock(tmp_path / "copy").release()


def test_folders_made_above_a_store_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the one right above it was synced: the store could be gone after a power loss, folders and all."""
    synced: set[str] = set()
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    target = tmp_path / "a" / "b" / "store"
    copies.build(str(target), lambda whole, scratch: None)
    assert synced >= {str(folder) for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
    synced.clear()
    warpmem.open(tmp_path / "c" / "d" / "store", dimension=4, min_free_bytes=0).close()
    assert synced >= {str(folder) for folder in (tmp_path, tmp_path / "c", tmp_path / "c" / "d")}
    for make in (
        lambda path: copies.build(path, lambda whole, scratch: None),
        lambda path: warpmem.open(path, dimension=4, min_free_bytes=0).close(),
    ):
        synced.clear()
        (tmp_path / "e" / "f").mkdir(parents=True)
        make(str(tmp_path / "e" / "f"))
        assert synced >= {str(tmp_path), str(tmp_path / "e")}, "whoever made them may have died before that"
        shutil.rmtree(tmp_path / "e")


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fails(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "fsync", fails)
    warpmem.open(tmp_path / "there" / "store", dimension=4, min_free_bytes=0).close()
    with pytest.raises(StoreReadOnly, match="Input/output error"):
        warpmem.open(tmp_path / "new" / "store", dimension=4, min_free_bytes=0)
