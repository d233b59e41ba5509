"""What a child does to a whole Memory until it is killed, and what must hold when it is opened again."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import NotFound

USERS = ("ann", "bob")
BATCH = 3
MOST = 4096  # hits of a search
MEMTABLE_BYTES = 64 << 10  # small: flushes and compactions are among what is interrupted


def write(memory: Memory, rng: random.Random, tag: str, acknowledge: Callable[[bytes], None]) -> None:
    """Add single items, keyed items and atomic lists, update and delete, for ever, each acknowledged."""
    known: list[str] = []
    for n in itertools.count():
        name = f"{tag}-{n}"
        user = rng.choice(USERS)
        what = rng.choice(("single", "keyed", "list", "update", "delete"))
        if what == "update" and known:
            item = memory.update(rng.choice(known), text=f"updated {name}")
            acknowledge(f"is {item.version} {item.id} updated {name}".encode())
        elif what == "delete" and known:
            item_id = known.pop(rng.randrange(len(known)))
            memory.delete(item_id)
            acknowledge(f"gone 0 {item_id} -".encode())
        elif what == "list":
            parts = [f"{name} part {part}" for part in range(BATCH)]
            items = [NewItem(text=part, metadata={"batch": name}) for part in parts]
            for part, result in zip(parts, memory.add_many(items, user_id=user), strict=True):
                acknowledge(f"is 1 {result.id} {part}".encode())
        else:
            key = f"key-{rng.randrange(3)}" if what == "keyed" else None
            result = memory.add(f"{what} {name}", user_id=user, key=key)
            assert isinstance(result, warpmem.AddResult)
            known.append(result.id)
            acknowledge(f"is 1 {result.id} {what} {name}".encode())


def child(
    path: str,
    seed: int,
    acknowledge: Callable[[bytes], None],
    durability: Literal["sync", "os"] = "sync",
    memtable_bytes: int = MEMTABLE_BYTES,
) -> None:
    """Two threads add single items, keyed items and atomic lists, update and delete, each acknowledged; a
    third writes the index checkpoint again and again."""
    memory = warpmem.open(path, embedder="hashing", durability=durability, memtable_bytes=memtable_bytes)

    def keep() -> None:
        while True:
            memory.checkpoint()

    threads = [
        threading.Thread(
            target=write, args=(memory, random.Random(seed * 2 + thread), f"{seed}-{thread}", acknowledge)
        )
        for thread in range(2)
    ]
    threads.append(threading.Thread(target=keep))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(path: str, acknowledged: Sequence[bytes]) -> None:
    """Every acknowledged item is there; nothing is half there; every family tells the same story."""
    with warpmem.open(path, embedder="hashing") as memory:
        check_items(memory, acknowledged)


def check_items(memory: Memory, acknowledged: Sequence[bytes], users: Sequence[str] = USERS) -> None:
    """The same of an open store, which has no other users."""
    gone = {token.decode().split()[2] for token in acknowledged if token.startswith(b"gone")}
    for token in acknowledged:
        what, version, item_id, text = token.decode().split(" ", 3)
        if item_id in gone:
            assert memory.get_many([item_id]) == (None,), "an acknowledged deletion was lost"
        if what == "is":
            try:
                history = memory.history(item_id)
            except NotFound:
                raise AssertionError("an acknowledged item was lost") from None
            versions = {entry.item.version: entry.item for entry in history if entry.item}
            assert int(version) in versions, "an acknowledged version was lost"
            assert versions[int(version)].text == text
        if what == "is" and item_id not in gone and memory.get_many([item_id]) == (None,):
            assert memory.history(item_id)[-1].operation == "delete", "an acknowledged item was lost"
    batches: Counter[str] = Counter()
    total = 0
    for user in users:
        everything = memory.list(user_id=user, include_past=True, limit=10_000)
        assert everything.cursor is None
        by_time = memory.list(user_id=user, include_past=True, limit=10_000, order="valid_from")
        assert {item.id for item in everything} == {item.id for item in by_time}
        current = memory.list(user_id=user, limit=10_000)
        found = {hit.item.id for hit in memory.search("item", user_id=user, k=MOST)}
        assert found <= {item.id for item in current} and len(found) == min(MOST, len(current))
        keyed = Counter(item.key for item in current if item.key is not None)
        assert all(count == 1 for count in keyed.values()), "two current values of one key"
        for item in everything:
            total += 1
            if "batch" in item.metadata:
                batches[item.metadata["batch"]] += 1
            if item.version > 1:
                assert [version.item.version for version in memory.history(item.id) if version.item] == list(
                    range(1, item.version + 1)
                )
    assert all(count == BATCH for count in batches.values()), "a list was stored by half"
    stats = memory.stats()
    assert stats.items == total
    cursors = [change.cursor for change in memory.changes(limit=10_000)]
    assert cursors == list(range(1, stats.sequence + 1))
