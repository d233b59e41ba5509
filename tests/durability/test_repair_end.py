"""What a repair says of changes and notes of which nothing else tells any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import warpmem
from durability import damage
from durability.damage import read_contents
from warpmem.errors import StoreCorrupt
from warpmem.storage.rocks import RocksEngine


def test_changes_that_may_be_lost_at_the_end_are_said(templates: Path, tmp_path: Path) -> None:
    """No gap tells of them: what stands behind them, the costs, is no change."""
    store = shutil.copytree(templates / "live", tmp_path / "store")
    log = max(store.glob("*.log"), key=lambda file: file.stat().st_size)
    data = bytearray(log.read_bytes())
    *_, before, last, costs = damage.headers(data)
    data[before + 20 : last + 20] = bytes(last - before)
    assert len(data) > costs
    log.write_bytes(data)
    report = warpmem.repair(store, tmp_path / "new")
    changes = len(read_contents(templates / "live").log)
    assert report.sequence < changes and not report.ok
    (end,) = (loss.what for loss in report.lost if loss.id is None)
    assert end.startswith(f"changes behind number {changes - 2} of the log, if there were any: damage stands")
    assert end.endswith(f"behind the last whole change in {log.name}")


def test_the_end_of_a_damaged_log_need_not_be_a_crashs(templates: Path, tmp_path: Path) -> None:
    """Two blocks of the log had changed places: the last change lay in one, and its rest looked torn off."""
    store = shutil.copytree(templates / "live", tmp_path / "store")
    log = max(store.glob("*.log"), key=lambda file: file.stat().st_size)
    data = bytearray(log.read_bytes())
    *_, middle, _, last, _ = damage.headers(data)
    data[middle + 40] ^= 1
    data[last:] = b"\1" * len(data[last:])
    log.write_bytes(data)
    report = warpmem.repair(store, tmp_path / "new")
    changes = len(read_contents(templates / "live").log)
    assert not report.ok
    assert report.lost[-1].what.startswith(f"changes behind number {changes - 1} of the log")


def test_a_table_that_is_gone_may_have_held_the_last_changes(templates: Path, tmp_path: Path) -> None:
    for n, table in enumerate(sorted((templates / "closed").glob("*.sst"))):
        store = shutil.copytree(templates / "closed", tmp_path / f"{n}")
        (store / table.name).unlink()
        report = warpmem.repair(store, tmp_path / f"new-{n}")
        assert not report.ok and "changes behind number" in report.lost[-1].what, (table.name, report.lost)


def test_what_stands_beside_a_store_that_does_not_open_keeps_nobody_from_repairing_it(
    templates: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(templates / "closed", tmp_path / "store")
    (store / "CURRENT").unlink()
    (store / ".DS_Store").write_bytes(b"of another program")
    assert warpmem.repair(store, tmp_path / "new").ok


def test_damage_beside_the_items_is_said(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", min_free_bytes=0) as memory:
        memory.add("a text", user_id="u")
        memory.revoke("web:an-origin")
    flipped = 0
    for table in (tmp_path / "store").glob("*.sst"):
        data = bytearray(table.read_bytes())
        if (at := data.find(b"web:an-origin")) >= 0:
            data[at] ^= 1
            table.write_bytes(data)
            flipped += 1
    report = warpmem.repair(tmp_path / "store", tmp_path / "new")
    assert flipped == 1 and not report.ok and report.items == 1
    assert ["beside the items" in loss.what for loss in report.lost] == [True]


def test_a_zeroed_end_of_a_live_log_is_refused_and_repaired(templates: Path, tmp_path: Path) -> None:
    """What ext4 and XFS may leave after a power loss: the length is there, the content is not."""
    store = shutil.copytree(templates / "live", tmp_path / "store")
    log = max(store.glob("*.log"), key=lambda file: file.stat().st_size)
    data = bytearray(log.read_bytes())
    cut = len(data) * 2 // 3
    data[cut:] = bytes(len(data) - cut)
    log.write_bytes(data)
    with pytest.raises(StoreCorrupt):
        RocksEngine(store, read_only=True)
    report = warpmem.repair(store, tmp_path / "new")
    assert not report.ok and "changes behind number" in report.lost[-1].what
    before, after = read_contents(templates / "live"), read_contents(tmp_path / "new")
    assert 0 < report.sequence < len(before.log)
    assert len(before.log) * 0.6 < sum(after.log.get(n) == entry for n, entry in before.log.items())
