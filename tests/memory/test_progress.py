"""Whoever opens a large store is told how far reading it is, and nobody is told about a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem.cli.progress import show_task
from warpmem.errors import InputError
from warpmem.ops import progress
from warpmem.storage import rows

Told = list[tuple[str, int, int | None]]


def fill(path: Path, n: int) -> None:
    vectors = np.random.default_rng(n).standard_normal((n, 4))
    with warpmem.open(path, dimension=4, checkpoint_rows=0) as memory:
        memory.add_many([f"{n} {i}" for i in range(n)], user_id="a", vectors=vectors)
        memory.search(vector=np.ones(4), user_id="a")
        if n == 30:
            memory.checkpoint()


def test_loading_and_replaying_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    monkeypatch.setattr(rows, "_ROWS", 10)
    fill(tmp_path, 25)
    told: Told = []
    with warpmem.open(tmp_path, progress=lambda *state: told.append(state)) as memory:
        assert told == []
        memory.search(vector=np.ones(4), user_id="a")
        assert told == [("rows loaded", done, 25) for done in (10, 20, 25, 25)]
        told.clear()
        memory.search(vector=np.ones(4), user_id="a")
        assert told == []
    fill(tmp_path, 30)
    fill(tmp_path, 7)
    with warpmem.open(tmp_path, backend="cpu", progress=lambda *state: told.append(state)):
        assert told == [("items changed since the checkpoint", 7, 7)] * 2


def test_what_is_quick_is_not_reported(tmp_path: Path) -> None:
    fill(tmp_path, 25)
    told: Told = []
    with warpmem.open(tmp_path, progress=lambda *state: told.append(state)) as memory:
        memory.search(vector=np.ones(4), user_id="a")
    assert told == []


def test_what_progress_raises_ends_the_call_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    fill(tmp_path, 25)
    answers: list[Any] = [KeyboardInterrupt(), None, None]

    def told(*state: Any) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    with warpmem.open(tmp_path, progress=told) as memory:
        with pytest.raises(KeyboardInterrupt):
            memory.search(vector=np.ones(4), user_id="a")
        assert len(memory.search(vector=np.ones(4), user_id="a", k=100)) == 25
    with pytest.raises(InputError, match="progress"):
        warpmem.open(progress=3)  # type: ignore[arg-type]


def test_the_line_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_task("rows loaded", 500, 2000)
    show_task("rows loaded", 2000, 2000)
    show_task("rows loaded", 7, None)
    assert (
        capsys.readouterr().err
        == "\rrows loaded:  25% of 2,000\rrows loaded: 100% of 2,000\n\rrows loaded: 7"
    )
