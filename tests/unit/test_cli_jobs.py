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
