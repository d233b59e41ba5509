"""The commands backup, backups, restore, verify and repair."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out
from warpmem.cli import main


@pytest.fixture
def filled(store: Path) -> Path:
    warpmem.open(store, embedder="hashing").close()
    with warpmem.open(store) as memory:
        memory.add_many([f"item {n}" for n in range(5)], user_id="u")
    return store


def test_backup_list_and_restore(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "backups")
    path = out(capsys, "backup", root).strip()
    assert main(["backup", root, "--no-verify"]) == 0
    captured = capsys.readouterr()
    assert "5 items, 5 changes" in captured.err and "not verified" in captured.err
    made = json_lines(out(capsys, "backup", root, "--json"))[0]
    assert made["verified"] is True and made["sequence"] == 5
    listed = out(capsys, "backups", root).splitlines()
    assert len(listed) == 3 and listed[0].startswith(path)
    assert json_lines(out(capsys, "backups", root, "--json"))[2]["path"] == made["path"]
    for options in ((), ("--copy",)):
        new = str(tmp_path / f"restored{len(options)}")
        assert out(capsys, "restore", path, new, *options) == ""
        assert len(out(capsys, "list", "--user", "u", "--store", new).splitlines()) == 5
    assert "is not empty" in err(capsys, "restore", path, new, code=1)
    assert "FormatError: there is no backup" in err(capsys, "restore", root, str(tmp_path / "x"), code=3)
    assert "FormatError: there is no store" in err(
        capsys, "backup", root, "--store", str(tmp_path / "x"), code=3
    )
    assert not (tmp_path / "x").exists()


def test_backup_of_a_store_that_is_open_elsewhere(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warpmem.open(filled):
        assert "StoreLocked" in err(capsys, "backup", str(tmp_path / "backups"), code=3)


def test_backup_of_a_store_of_somebody_elses_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warpmem.open(tmp_path / "own", dimension=8, model_id="mine") as memory:
        memory.add("x", user_id="u", vector=[1.0] * 8)
    out(capsys, "backup", str(tmp_path / "backups"), "--store", str(tmp_path / "own"))
    assert warpmem.backups(tmp_path / "backups")[0].model_id == "mine"


def test_verify_and_repair(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = out(capsys, "verify", str(filled))
    assert "5 items of 1 owners, 5 changes, model hashing-256-v1" in shown and "no fault" in shown
    assert json.loads(out(capsys, "verify", str(filled), "--json"))["ok"] is True
    (filled / "CURRENT").unlink()
    shown = out(capsys, "verify", str(filled), code=1)
    assert "CURRENT is missing" in shown and "DAMAGED: 2 faults" in shown
    assert f"warpmem repair {filled} NEW" in shown and "table: 5 whole entries" in shown
    found = json.loads(out(capsys, "verify", str(filled), "--json", code=1))
    assert found["opened"] is False and found["files"] and len(found["faults"]) == 2
    assert "and 1 more" in out(capsys, "verify", str(filled), "--limit", "1", code=1)
    new = str(tmp_path / "new")
    assert main(["repair", str(filled), new, "--progress"]) == 0
    captured = capsys.readouterr()
    assert "5 items in 5 versions" in captured.out and captured.out.endswith("nothing is lost\n")
    assert "entries" in captured.err
    assert len(out(capsys, "list", "--user", "u", "--store", new).splitlines()) == 5
    assert "is not empty" in err(capsys, "repair", str(filled), new, code=1)
    for command in (("verify",), ("repair", str(tmp_path / "other"))):
        assert "there is no store" in err(capsys, command[0], str(tmp_path / "absent"), *command[1:], code=3)
    assert sorted(os.listdir(tmp_path)) == ["new", "store"]


def test_repair_lists_what_is_lost(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(filled, read_only=True) as memory:
        ids = {item.id for item in memory.list(user_id="u")}
    for table in filled.glob("*.sst"):
        if b"item 0" in table.read_bytes():
            table.unlink()
    shown = out(capsys, "repair", str(filled), str(tmp_path / "new"), code=1)
    assert "0 items" in shown and "LOST: 6 things" in shown, "five items, and what may have come last"
    assert {line.split()[2] for line in shown.splitlines() if line.startswith("lost: id")} == ids
    lost = json.loads(out(capsys, "repair", str(filled), str(tmp_path / "other"), "--json", code=1))["lost"]
    assert {loss["id"] for loss in lost[:-1]} == ids and all(loss["version"] == 1 for loss in lost[:-1])
    assert lost[-1].keys() == {"what"} and "changes behind number 5" in lost[-1]["what"]
