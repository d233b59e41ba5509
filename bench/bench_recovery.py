"""From opening a store to the first exact answer, with an index checkpoint and without: one owner, 256 dims.

A plain run takes 100,000 items; WARPMEM_BENCH_ITEMS=1000000 is what the bounds are for: 10 s without a
checkpoint and 2 s with one. Making that store takes minutes; WARPMEM_BENCH_STORE is where to keep it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import DIMENSION, fill, unit_rows

import warpmem

ITEMS = int(os.environ.get("WARPMEM_BENCH_ITEMS", "100000"))
MOST_SECONDS = {"no checkpoint": 10.0, "checkpoint": 2.0}
PIECE = 50_000
# In a process of its own, as after a crash; imports are not counted.
PROGRAM = f"""
import json, sys, time
import numpy as np
import warpmem
told = []
started = time.perf_counter()
with warpmem.open(sys.argv[1], checkpoint_rows=0, progress=lambda *state: told.append(state)) as memory:
    opened = time.perf_counter()
    memory.search(vector=np.ones({DIMENSION}), user_id="one", k=10)
    found = time.perf_counter()
    rows = memory.stats().index_rows
print(json.dumps([opened - started, found - started, rows, len(told)]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("WARPMEM_BENCH_STORE")
    path = Path(folder or tmp_path_factory.mktemp("recovery")) / f"recovery-{ITEMS}"
    with warpmem.open(path, dimension=DIMENSION, checkpoint_rows=0) as memory:
        for start in range(memory.stats().items, ITEMS, PIECE):
            n = min(PIECE, ITEMS - start)
            fill(memory, ["one"] * n, unit_rows(n, seed=start))
    return path


@pytest.mark.parametrize("start", ["no checkpoint", "checkpoint"])
def test_first_answer(start: str, store: Path, report: Callable[[str], None]) -> None:
    checkpoint = store / "warpmem.index"
    if start == "checkpoint" and not checkpoint.exists():
        with warpmem.open(store, checkpoint_rows=0) as memory:
            memory.search(vector=unit_rows(1)[0], user_id="one")
            memory.checkpoint()
    if start == "no checkpoint":
        checkpoint.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store)], check=True, capture_output=True, text=True
    )
    opened, found, rows, told = json.loads(done.stdout)
    report(
        f"{rows:,} rows, {start}: open {opened:.2f} s, first answer after {found:.2f} s "
        f"(at most {MOST_SECONDS[start]:g} at 1,000,000), progress reported {told} times"
    )
    assert rows == ITEMS
    assert found <= MOST_SECONDS[start]
