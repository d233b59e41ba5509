"""Stores of format 1 that are opened for writing by a child that is killed, and what must hold then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from durability.golden_stores import GOLDEN, content, describe, open_golden
from durability.harness import run_kills
from warpmem.storage import copies, migrate
from warpmem.storage.codec import FAMILIES, FIRST_FAMILIES
from warpmem.storage.identity import FORMAT, read_identity
from warpmem.storage.rocks import RocksEngine

OLD = GOLDEN / "format-1"
LONGEST = 0.35


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Opens an old store for writing, which migrates it."""
    if not os.path.exists(path):
        beside = f"{path}.unpacked"
        shutil.copytree(OLD / ("closed", "unclean")[seed % 2], beside)
        os.rename(beside, path)
    open_golden(Path(path)).close()
    acknowledge(b"migrated")
    signal.pause()


def state(path: Path) -> str:
    """What an old store has become: "old", "old with new families" or "new"."""
    engine = RocksEngine(path, read_only=True)
    try:
        identity, absent = read_identity(engine), engine.absent
    finally:
        engine.close()
    assert identity is not None and identity.format in (1, FORMAT)
    if identity.format == FORMAT:
        assert not absent, "a store of the new format lacks families"
        return "new"
    return "old" if len(absent) == len(FAMILIES) - len(FIRST_FAMILIES) else "old with new families"


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _then_die(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        function(*arguments, **named)
        _die()

    return call


def _after_closing(engine: RocksEngine) -> Any:
    if not engine._read_only:
        setattr(engine, "close", _then_die(engine.close))  # noqa: B010  of this one engine
    return read_identity(engine)


STEPS: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "before the copy": (migrate, "copy_store", _die, "old"),
    "before the copy has its name": (copies.os, "rename", _die, "old"),
    "after the copy": (migrate, "copy_store", _then_die(migrate.copy_store), "old"),
    "before the identity": (migrate, "identity_entry", _die, "old with new families"),
    "after the identity": (RocksEngine, "write", _then_die(RocksEngine.write), "new"),
    "after closing": (migrate, "read_identity", _after_closing, "new"),
}
"""Where a migration may die: what is replaced there, by what, and the state that is left."""


def die_at(step: str, path: Path) -> None:
    """Migrate in a process that kills itself at a step."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "durability.migrations", step, str(path)]
    process = subprocess.run(command, env=environment, timeout=60)
    assert process.returncode == -signal.SIGKILL, f"the migration did not reach the step {step!r}"


def run_migration_kills(folder: Path, *, kills: int, seed: int) -> Counter[str]:
    """Kill `kills` migrations at random moments. Whatever is left is wholly old or wholly new, answers as
    before, and the next open makes it new. Returns how often each state was found."""
    expected = content(OLD)["memory"]
    found: Counter[str] = Counter()

    def check(path: str, acknowledged: Sequence[bytes]) -> None:
        store, copy = Path(path), Path(f"{path}.format-1")
        if not store.exists():
            store.mkdir()  # for the harness, which removes it
            return
        now = state(store)
        found[now] += 1
        assert now == "new" or not acknowledged
        with open_golden(store, read_only=True) as memory:
            assert describe(memory) == expected
        if now != "old":
            assert state(copy) == "old", "families came before the copy was whole"
        with open_golden(store) as memory:
            assert describe(memory) == expected
        assert (state(store), state(copy)) == ("new", "old")

    run_kills(
        "durability.migrations:child", check, folder, kills=kills, seed=seed, fresh_every=1, longest=LONGEST
    )
    return found


if __name__ == "__main__":
    _place, _name, _function, _ = STEPS[sys.argv[1]]
    setattr(_place, _name, _function)
    open_golden(Path(sys.argv[2]))
