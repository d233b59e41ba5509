"""`warpmem add --embed` and `warpmem embed-pending`."""

from __future__ import annotations

from pathlib import Path

import pytest

import warpmem
from commands import err
from warpmem.cli import main


def test_what_was_added_to_be_embedded_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    warpmem.open(store, embedder="hashing").close()
    for text, when in (("one", "later"), ("two", "auto"), ("three", "now")):
        assert main(["add", text, "--store", store, "--user", "ann", "--embed", when]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["queued", "added", "added"]
    assert main(["stats", "--store", store]) == 0
    assert "to embed        waiting 1, refused 0" in capsys.readouterr().out
    assert main(["embed-pending", "--store", store]) == 0
    assert capsys.readouterr().out == "1 embedded\n"
    assert main(["embed-pending", "--store", store]) == 0
    assert capsys.readouterr().out == "0 embedded\n"
    assert "invalid choice" in err(capsys, "add", "x", "--store", store, "--embed", "soon", code=2)
