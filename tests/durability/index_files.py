"""Damage to the file of a VectorIndex: it is refused with a typed error, at once or when the damaged page is
read, or everything that it says is as before."""

from __future__ import annotations

import functools
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from durability.damage import damaged
from warpmem import VectorIndex
from warpmem.errors import FormatError, IndexCorrupt
from warpmem.types import Metric, Storage

KINDS = ("bit", "byte", "zero", "truncate", "swap")
VARIANTS: tuple[tuple[Storage, Metric, float], ...] = (
    ("f32", "cosine", 1.0), ("f16", "l2", 1.0), ("int8", "ip", 1.0), ("pq", "ip", 1.0), ("f32", "l2", 0.9),
)  # fmt: skip
"""(storage, metric, recall): files of every layout, the last one with cells."""
_DIM = 8
_OWNERS = 3
_ROWS, _ROWS_OF_CELLS = 300, 22_000
_TRAINING = 512


def make_index_file(path: Path, variant: int) -> None:
    """An index of several owners with columns and dictionaries, of which some rows were removed."""
    storage, metric, recall = VARIANTS[variant]
    rows = _ROWS if recall == 1.0 else _ROWS_OF_CELLS
    index = VectorIndex(
        _DIM, metric=metric, storage=storage, recall=recall, backend="cpu", threads=1,
        columns={"number": "float64", "word": "str"},
    )  # fmt: skip
    rng = np.random.default_rng(variant)
    if storage == "pq":
        index.train(rng.standard_normal((_TRAINING, _DIM), np.float32))
    index.add(
        rng.standard_normal((rows, _DIM), np.float32),
        owners=np.zeros(rows, np.int64) if recall < 1.0 else np.arange(rows) % _OWNERS,
        attributes={"number": rng.standard_normal(rows), "word": [f"word {n % 50}" for n in range(rows)]},
    )
    index.remove(np.arange(0, rows, 17))
    index.optimise()
    assert index.stats()["plan"].startswith("exact" if recall == 1.0 else "approximate")
    index.save(path)


def contents(path: Path) -> tuple[object, ...]:
    """What an index in a file says: searches of each owner, of all and with filters, and vectors. Raises
    FormatError, IndexCorrupt."""
    index = VectorIndex.load(path, backend="cpu", threads=1)
    queries = np.random.default_rng(0).standard_normal((2, _DIM), np.float32)
    said: list[object] = [len(index), str(index)]
    for filter in (None, {"number": {"gt": 0.5}}, {"word": {"contains": "7"}}):
        for owners in (None, 0, 1, 2):
            found = index.search(queries, 4096, owners=owners, filter=filter)
            ids = found.ids[found.ids >= 0]
            said += [found.ids.tobytes(), found.scores.tobytes(), index.vectors(ids).tobytes()]
    return tuple(said)


@functools.cache
def template(variant: int) -> tuple[bytes, tuple[object, ...]]:
    """A file that is not damaged, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        make_index_file(path, variant)
        return path.read_bytes(), contents(path)


def run_many(kind: str, count: int, seed: int = 0) -> Counter[str]:
    """`count` damaged files, of all variants in turn; how many were refused, how many said the same."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for n in range(seed, seed + count):
            data, expected = template(n % len(VARIANTS))
            path = Path(folder) / f"{n}"  # a new one: the last may still be mapped
            path.write_bytes(damaged(data, kind, random.Random(f"index file {kind} {n}")))
            try:
                found = contents(path)
            except (FormatError, IndexCorrupt):
                outcomes["refused"] += 1
            else:
                assert found == expected, f"{kind} {n}: it answers otherwise than before, in silence"
                outcomes["harmless"] += 1
            path.unlink()
    return outcomes
