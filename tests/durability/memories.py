"""What a child does to a whole Memory until it is killed, and what must hold when it is opened again."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import warpmem
from warpmem import NewItem

USERS = ("ann", "bob")
BATCH = 3


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Two threads add single items, keyed items and atomic lists, and update, each acknowledged."""
    memory = warpmem.open(path, embedder="hashing")

    def work(thread: int) -> None:
        rng = random.Random(seed * 2 + thread)
        known: list[str] = []
        for n in itertools.count():
            name = f"{seed}-{thread}-{n}"
            user = rng.choice(USERS)
            what = rng.choice(("single", "keyed", "list", "update"))
            if what == "update" and known:
                item = memory.update(rng.choice(known), text=f"updated {name}")
                acknowledge(f"at-least {item.version} {item.id}".encode())
            elif what == "list":
                items = [
                    NewItem(text=f"batch {name} part {part}", metadata={"batch": name})
                    for part in range(BATCH)
                ]
                for result in memory.add_many(items, user_id=user):
                    acknowledge(f"item 1 {result.id}".encode())
            else:
                key = f"key-{rng.randrange(3)}" if what == "keyed" else None
                result = memory.add(f"{what} {name}", user_id=user, key=key)
                assert isinstance(result, warpmem.types.AddResult)
                known.append(result.id)
                acknowledge(f"item 1 {result.id}".encode())

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(path: str, acknowledged: Sequence[bytes]) -> None:
    """Every acknowledged item is there; nothing is half there; every family tells the same story."""
    with warpmem.open(path, embedder="hashing") as memory:
        for token in acknowledged:
            _, version, item_id = token.decode().split()
            assert memory.get(item_id).version >= int(version)
        batches: Counter[str] = Counter()
        total = 0
        for user in USERS:
            everything = memory.list(user_id=user, include_past=True, limit=10_000)
            assert everything.cursor is None
            by_time = memory.list(user_id=user, include_past=True, limit=10_000, order="valid_from")
            assert {item.id for item in everything} == {item.id for item in by_time}
            current = memory.list(user_id=user, limit=10_000)
            found = memory.search("item", user_id=user, k=4096)
            assert {hit.item.id for hit in found} == {item.id for item in current}
            keyed = Counter(item.key for item in current if item.key is not None)
            assert all(count == 1 for count in keyed.values()), "two current values of one key"
            for item in everything:
                total += 1
                if "batch" in item.metadata:
                    batches[item.metadata["batch"]] += 1
                if item.version > 1:
                    assert [
                        version.item.version for version in memory.history(item.id) if version.item
                    ] == list(range(1, item.version + 1))
        assert all(count == BATCH for count in batches.values()), "a list was stored by half"
        stats = memory.stats()
        assert stats.items == total
        cursors = [change.cursor for change in memory.changes(limit=10_000)]
        assert cursors == list(range(1, stats.sequence + 1))
