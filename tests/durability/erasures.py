"""A child that erases until it is killed, and what must hold when its store is opened again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import warpmem

ITEMS = 12


def _word(name: str) -> str:
    return "".join(random.Random(name).choices("bcdfghjklmnpqrstvwxz", k=24))


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Adds an owner, changes and deletes some of its items, erases it or half of it; acknowledges each."""
    with warpmem.open(path, embedder="hashing", memtable_bytes=64 << 10, min_free_bytes=0) as memory:
        _erase_again_and_again(memory, seed, acknowledge)


def _erase_again_and_again(memory: warpmem.Memory, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    rng = random.Random(seed)
    acknowledge(b"opened - -")
    for n in range(1000):
        name = f"{seed}-{n}"
        user = f"user {_word(name)}"
        agents = ("left", "right")
        for i in range(ITEMS):
            item = f"{_word(name)} says {i} to {_word(name + agents[i % 2])}"
            added = memory.add(item, user_id=user, agent_id=agents[i % 2], key=f"k{i % 5}", durability="os")
            assert isinstance(added, warpmem.AddResult)
            if i % 3 == 0:
                memory.update(added.id, text=f"again {item}", durability="os")
            if i % 4 == 0:
                memory.delete(added.id, durability="os")
        memory.add(f"of {name}", user_id="bystander")
        for family in memory._log._engine._families.values():  # type: ignore[attr-defined]
            family.flush()  # tables, which a compaction must write anew
        del family  # it would keep the database open
        if rng.random() < 0.3:
            memory.search("again", user_id=user)
            memory.checkpoint()
        acknowledge(f"added {name} -".encode())
        whole = rng.random() < 0.5
        acknowledge(f"begun {name} {'whole' if whole else 'half'}".encode())
        if whole:
            memory.erase(user_id=user)
        else:
            memory.erase(user_id=user, agent_id="left")
        acknowledge(f"erased {name} {'whole' if whole else 'half'}".encode())


def check(path: str, acknowledged: Sequence[bytes]) -> None:
    """What was acknowledged as erased is in no file; what was begun is erased whole or not at all."""
    tokens = [token.decode().split() for token in acknowledged]
    with warpmem.open(path, embedder="hashing", memtable_bytes=64 << 10, min_free_bytes=0) as memory:
        assert memory.stats().pending_erasures == 0
        cursors = [change.cursor for change in memory.changes(limit=10_000)]
        assert cursors == list(range(1, memory.stats().sequence + 1))
        said = {item.text for item in memory.list(user_id="bystander", limit=10_000)}
        bytes_of = {file.name: file.read_bytes() for file in Path(path).iterdir()}
        done = {name for what, name, _ in tokens if what == "erased"}
        for what, name, extent in tokens:
            if what == "added":
                assert f"of {name}" in said, "a bystander is lost"
            if what not in ("begun", "erased"):
                continue
            user = f"user {_word(name)}"
            scope = warpmem.Scope(user_id=user, agent_id=None if extent == "whole" else "left")
            left = memory.count(scope, include_past=True)
            assert left == 0 or name not in done, "an acknowledged erasure was lost"
            if extent == "half":
                assert memory.count(user_id=user, agent_id="right", include_past=True) == ITEMS // 2
            if left == 0:
                gone = (_word(name) if extent == "whole" else _word(name + "left")).encode()
                holding = [file for file, data in bytes_of.items() if gone in data]
                assert not holding, f"erased bytes in {holding}"
            else:
                assert left == ITEMS // 2 - (3 if extent != "whole" else -3)
