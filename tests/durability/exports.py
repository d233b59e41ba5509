"""Damage to an export: what is imported from it is what was exported, or the import says that it is not."""

from __future__ import annotations

import io
import random
from collections import Counter

import warpmem

KINDS = ("bit", "byte", "zero", "truncate", "swap", "line gone", "line twice")
_BLOCK = 512


def make_export(items: int) -> bytes:
    with warpmem.open(embedder="hashing") as memory:
        for n in range(items):
            memory.add(f"item {n} " + "words " * (n % 7), user_id=f"u{n % 3}", metadata={"n": n})
        stream = io.BytesIO()
        memory.export(stream, vectors=False)
    return stream.getvalue()


def damage(data: bytes, kind: str, rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out))
    block = at // _BLOCK * _BLOCK
    if kind == "bit":
        out[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        out[at] ^= rng.randrange(1, 256)
    elif kind == "zero":
        out[block : block + _BLOCK] = bytes(len(out[block : block + _BLOCK]))
    elif kind == "truncate":
        cuts = [place + 1 for place, byte in enumerate(data[:-1]) if byte == 10]
        del out[rng.choice(cuts) if rng.random() < 0.5 else at :]
    elif kind == "swap":
        other = rng.randrange(len(out) // _BLOCK) * _BLOCK
        first, second = bytes(out[block : block + _BLOCK]), bytes(out[other : other + _BLOCK])
        if len(first) == len(second):
            out[block : block + _BLOCK], out[other : other + _BLOCK] = second, first
    else:
        lines = data.splitlines(keepends=True)
        which = rng.randrange(len(lines))
        lines[which : which + 1] = [] if kind == "line gone" else [lines[which]] * 2
        return b"".join(lines)
    return bytes(out)


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
        damaged = damage(data, kind, random.Random(f"{kind} {seed + n}"))
        with warpmem.open(embedder="hashing") as memory:
            report = memory.import_(io.BytesIO(damaged))
            found = contents(memory)
        assert set(found) <= set(expected), f"{kind} {seed + n}: what was never exported is imported"
        if report.stopped:
            outcomes["refused"] += 1
        else:
            assert found == expected, f"{kind} {seed + n}: items are missing, in silence"
            outcomes["harmless"] += 1
    return outcomes
