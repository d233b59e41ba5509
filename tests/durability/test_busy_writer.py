"""A store is opened, verified and followed while another process replaces its files all the time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import warpmem
from warpmem.errors import FormatError, StoreCorrupt, StoreError
from warpmem.storage import directory
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.steady import held

USER = "ann"
_WRITE = """
import itertools, sys, time, numpy as np, warpmem
random = np.random.default_rng(0)
with warpmem.open(
    sys.argv[1], dimension=64, backend="cpu", memtable_bytes=64 << 10, min_free_bytes=0, checkpoint_rows=0
) as memory:
    for number in itertools.count(1):
        texts = [f"{number} {part} " + 500 * "x" for part in range(20)]
        memory.add_many(texts, user_id="ann", vectors=random.standard_normal((20, 64)))
        print(20 * number, flush=True)
        time.sleep(0.03)  # or there are thousands of tables soon
"""


@contextlib.contextmanager
def busy_writer(path: Path) -> Iterator[Path]:
    """A process that writes all the time, into small tables; the file of how many it has made."""
    counts = path.with_name("counts")
    with counts.open("w") as file:
        child = subprocess.Popen([sys.executable, "-c", _WRITE, str(path)], stdout=file)
    try:
        yield counts
    finally:
        child.kill()
        child.wait()


def made(counts: Path) -> int:
    """How many items were acknowledged by now."""
    return int(["0", *counts.read_text().splitlines()[:-1]][-1])


def wait_until_busy(counts: Path) -> None:
    deadline = time.monotonic() + 60
    while made(counts) < 1000:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_busy_writer_does_not_look_like_damage(tmp_path: Path) -> None:
    """A healthy store was told to be restored from a backup."""
    path = tmp_path / "store"
    with busy_writer(path) as counts:
        # Also while it is being made, and before.
        deadline = time.monotonic() + 60
        while True:
            try:
                report = warpmem.verify(path)
                break
            except FormatError:
                assert time.monotonic() < deadline
        assert report.ok, report.faults
        wait_until_busy(counts)
        for _ in range(20):
            acknowledged = made(counts)
            with warpmem.open(path, read_only=True, backend="cpu") as reader:
                assert reader.count(user_id=USER) == reader.stats().items >= acknowledged
        for _ in range(3):
            report = warpmem.verify(path)
            assert report.ok, report.faults
        with warpmem.open(path, follow=True, follow_ms=0, backend="cpu") as follower:
            for _ in range(3):
                acknowledged = made(counts)
                follower.refresh()
                assert follower.count(user_id=USER) == follower.stats().items >= acknowledged
    assert warpmem.verify(path).ok


def test_files_that_are_held_show_one_moment_when_all_are_gone(tmp_path: Path) -> None:
    path, links = tmp_path / "store", tmp_path / "links"
    with warpmem.open(path, dimension=4, backend="cpu", min_free_bytes=0) as writer:
        writer.add("first", user_id=USER, vector=[1, 2, 3, 4])
        with held(str(path), str(links)):
            writer.add("second", user_id=USER, vector=[1, 2, 3, 4])
            writer.flush()
            writer.close()
            for file in path.iterdir():
                file.unlink()
            with warpmem.open(links, read_only=True, backend="cpu") as reader:
                assert 1 <= reader.count(user_id=USER) == reader.stats().items


def test_damage_is_believed_beside_a_busy_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes: the second attempt is at files that are held together."""
    path = tmp_path / "store"
    with warpmem.open(path, dimension=4, backend="cpu", min_free_bytes=0) as writer:
        writer.add("first", user_id=USER, vector=[1, 2, 3, 4])
    manifest = next(path.glob("MANIFEST-*"))
    data = bytearray(manifest.read_bytes())
    data[20] ^= 1
    manifest.write_bytes(data)
    sizes = directory.data_files(str(path))
    moments = iter(range(1000))
    monkeypatch.setattr(directory, "data_files", lambda path: {**sizes, f"{next(moments)}.sst": 0})
    with pytest.raises(StoreCorrupt):
        RocksEngine(path, read_only=True)
    report = warpmem.verify(path)
    assert not report.ok and not report.opened
    assert "verify when no process writes" in report.faults[1].what
    monkeypatch.undo()
    report = warpmem.verify(path)
    assert not report.ok and manifest.name in report.files


def test_files_that_are_replaced_for_ever_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, dimension=4, backend="cpu", min_free_bytes=0) as writer:
        writer.add("first", user_id=USER, vector=[1, 2, 3, 4])
    monkeypatch.setattr("warpmem.storage.steady._stands", lambda path, state: False)
    monkeypatch.setattr("warpmem.storage.steady._SECONDS", 0.1)
    with (
        pytest.raises(StoreError, match="replaced files") as caught,
        held(str(path), str(tmp_path / "links")),
    ):
        raise AssertionError("it should not be held")
    assert not isinstance(caught.value, StoreCorrupt)


def test_without_proc_nothing_looks_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are held through it: a healthy store was called damaged."""
    path = tmp_path / "store"
    with warpmem.open(path, dimension=4, backend="cpu", min_free_bytes=0) as writer:
        writer.add("first", user_id=USER, vector=[1, 2, 3, 4])
        monkeypatch.setattr("warpmem.storage.steady._DESCRIPTORS", str(tmp_path / "proc"))
        monkeypatch.setattr("warpmem.storage.rocks.changed", lambda path, before: True)
        monkeypatch.setattr("warpmem.storage.rocks.linked", lambda path, links: fails())

        def fails() -> contextlib.AbstractContextManager[None]:
            raise StoreCorrupt("a file went away")

        with pytest.raises(StoreError, match="does not show them") as caught:
            RocksEngine(path, read_only=True)
        assert not isinstance(caught.value, StoreCorrupt)
