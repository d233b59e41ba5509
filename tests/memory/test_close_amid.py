"""Closing in the middle of another call of the same thread, and after one that was interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import interrupted
import warpmem

WAIT = 120


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with warpmem.open(tmp_path / "store", dimension=4, backend="cpu", min_free_bytes=0) as memory:
        for n in range(20):
            memory.add(f"known {n}", user_id="a", vector=np.ones(4), durability="os")
    return tmp_path / "store"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: what waits for ever there ends the test."""
    command = [sys.executable, interrupted.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)


@pytest.mark.parametrize("where", interrupted.WHERE)
@pytest.mark.parametrize("then", ["amid", "exit"])
def test_a_signal_handler_may_close_wherever_it_comes(store: Path, where: str, then: str) -> None:
    """It waited for what the frame below it held, or for a thread that did."""
    done = run(then, store, where)
    assert (done.returncode, done.stderr) == (3 if then == "exit" else 0, "")
    with warpmem.open(store, backend="cpu") as memory:
        assert memory.stats().items >= 20


@pytest.mark.parametrize("call", interrupted.CALLS)
def test_what_ctrl_c_interrupts_can_be_closed(store: Path, call: str) -> None:
    done = run("often", store, call, "12")
    assert (done.returncode, done.stderr) == (0, "")
    assert call == "close" or int(done.stdout) > 6


@pytest.mark.parametrize("interrupted_at", ["before", "release"])
def test_a_close_that_was_interrupted_can_be_called_again(
    store: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: str
) -> None:
    """The thread of the committer had ended by then, and nothing gave the directory back."""
    memory = warpmem.open(store, backend="cpu", min_free_bytes=0)

    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if interrupted_at == "before":
            patch.setattr(type(memory._pending), "stop", interrupt)
        else:
            patch.setattr("warpmem.storage.committer.Committer.stop", interrupt)
        with pytest.raises(KeyboardInterrupt):
            memory.close()
    memory.close()
    with pytest.raises(warpmem.errors.StoreClosed):
        memory.stats()
    warpmem.open(store, backend="cpu", min_free_bytes=0).close()
