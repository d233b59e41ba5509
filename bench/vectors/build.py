"""Build one system and keep it: python build.py NAME ROWS.npy FOLDER THREADS. A process of its own, so that
time of processors is the builder's alone."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

_THREADS = sys.argv[4]
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = _THREADS

import numpy as np
from systems import size_of, systems


def main(name: str, rows_file: str, folder: Path, threads: int) -> None:
    rows = np.load(rows_file)
    system = systems()[name]
    folder.mkdir(parents=True, exist_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    system.build(rows, threads)
    spent = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    system.save(folder)
    spent |= {"threads": threads, "bytes_a_row": size_of(folder) / len(rows)}
    (folder / "built.json").write_text(json.dumps(spent))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(_THREADS))
