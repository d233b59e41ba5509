"""The command jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import warpmem
from commands import err, json_lines, out


def test_jobs(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(store, embedder="hashing") as memory:
        for n in range(9):
            when = datetime(2020, 3, 1 + n, tzinfo=UTC)
            memory.add(f"event {n}", user_id="u", kind="event", valid_from=when)
    assert "no jobs are configured" in out(capsys, "jobs")
    config = tmp_path / "warpmem.toml"
    config.write_text("[consolidation]\nmin_events = 3\n")
    (report,) = json_lines(out(capsys, "jobs", "--config", str(config), "--json"))
    assert (
        report["job"] == "consolidate"
        and report["finished"]
        and report["done"] == {"events": 9, "summaries": 3}
    )
    assert out(capsys, "jobs", "forget", "consolidate").splitlines() == [
        "forget       finished  nothing to do", "consolidate  finished  nothing to do",
    ]  # fmt: skip
    assert "there is no job 'sleep'" in err(capsys, "jobs", "sleep", code=1)
    assert "seconds" in err(capsys, "jobs", "forget", "--seconds", "0", code=1)


def test_every_job(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(store, embedder="hashing") as memory:
        for n in range(4):
            made = memory.add(f"fact {n}", user_id="u")
        assert isinstance(made, warpmem.AddResult)
        memory.update(made.id, text="FACT 0")
    config = tmp_path / "warpmem.toml"
    config.write_text("[deduplication]\n[reflection]\nmin_facts = 2\n[optimisation]\nchanges = 1\n")
    lines = out(capsys, "jobs", "--config", str(config)).splitlines()
    assert lines[:2] == ["deduplicate  finished  1 repeated", "reflect      finished  1 profiles"]
    assert lines[2].startswith("optimise     finished  ") and lines[2].endswith(" tables written")
    again = json_lines(out(capsys, "jobs", "--config", str(config), "--json"))
    assert [(report["job"], report["done"]) for report in again[:2]] == [("deduplicate", {}), ("reflect", {})]
    with warpmem.open(store, read_only=True) as memory:
        (profile,) = memory.list(user_id="u", kinds=["profile"])
        assert len(profile.sources) == 3
