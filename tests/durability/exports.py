"""Damage to an export: what is imported from it is what was exported, or the import says that it is not."""

from __future__ import annotations

import io
import random
from collections import Counter

import warpmem
from durability.damage import damaged

KINDS = ("bit", "byte", "zero", "truncate", "swap", "line gone", "line twice")


def make_export(items: int) -> bytes:
    with warpmem.open(embedder="hashing") as memory:
        for n in range(items):
            memory.add(f"item {n} " + "words " * (n % 7), user_id=f"u{n % 3}", metadata={"n": n})
        stream = io.BytesIO()
        memory.export(stream, vectors=False)
    return stream.getvalue()


def damaged_export(data: bytes, kind: str, rng: random.Random) -> bytes:
    """`data` with one damage: to its bytes, or to its lines."""
    lines = data.splitlines(keepends=True)
    which = rng.randrange(len(lines))
    if kind == "line gone":
        return b"".join(lines[:which] + lines[which + 1 :])
    if kind == "line twice":
        return b"".join(lines[: which + 1] + lines[which:])
    if kind == "truncate" and rng.random() < 0.5:
        return b"".join(lines[: max(which, 1)])
    return damaged(data, kind, rng)


def contents(memory: warpmem.Memory) -> list[tuple[str, str]]:
    return sorted(
        (item.text, str(item.metadata))
        for owner in memory.owners()
        for item in memory.list(owner, include_past=True, limit=10_000)
    )


def run_many(kind: str, count: int, seed: int = 0, items: int = 30) -> Counter[str]:
    """`count` damaged exports; how many were refused, and how many gave all that was exported."""
    data = make_export(items)
    with warpmem.open(embedder="hashing") as memory:
        memory.import_(io.BytesIO(data))
        expected = contents(memory)
    outcomes: Counter[str] = Counter()
    for n in range(count):
        stream = io.BytesIO(damaged_export(data, kind, random.Random(f"{kind} {seed + n}")))
        with warpmem.open(embedder="hashing") as memory:
            report = memory.import_(stream)
            found = contents(memory)
        assert set(found) <= set(expected), f"{kind} {seed + n}: what was never exported is imported"
        if report.stopped:
            outcomes["refused"] += 1
        else:
            assert found == expected, f"{kind} {seed + n}: items are missing, in silence"
            outcomes["harmless"] += 1
    return outcomes
