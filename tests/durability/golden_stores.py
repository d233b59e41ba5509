"""Stores of known content, kept as they were written by every format version: how one is made and described.

`golden/format-N/` holds `closed` (a store that was closed, with an index checkpoint), `unclean` (the same
store as a killed process leaves it: everything in the write-ahead log) and `content.json`, what both hold.
From format 2 on their model was changed once, and another change of it was begun and stopped.
They were made once, by the code that wrote that format, with

    python -m durability.golden_stores FOLDER

and are never made again: a new format gets a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

import warpmem
from reembedding import Hooked
from warpmem import Memory, NewItem, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import EmbeddingError
from warpmem.ops.clock import FixedClock
from warpmem.protocols import Engine
from warpmem.storage.codec import FAMILIES
from warpmem.storage.rocks import RocksEngine

GOLDEN = Path(__file__).with_name("golden")
DIMENSION, OTHER = 16, 24
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(days=1)
SCOPES = (
    Scope(user_id="ann"),
    Scope(user_id="bob", agent_id="helper", run_id="r1"),
    Scope(agent_id="helper"),
    Scope(corpus_id="manual"),
)
_NOT_DATA = ("LOG", "LOG.old.*", "OPTIONS-*", "*.index.*")


def open_golden(path: Path, **options: Any) -> Memory:
    """A store of the golden kind, on the day after its last change."""
    chosen = {"embedder": HashingEmbedder(DIMENSION), "clock": FixedClock(NOW), "backend": "cpu", **options}
    return warpmem.open(path, min_free_bytes=0, **chosen)


def fill(memory: Memory, clock: FixedClock) -> None:
    """Several owners, kinds, keys, duplicates, updates, deletions, expiry, idempotent calls."""
    ann, bob, helper, manual = SCOPES
    for city in ("Porto", "Lisbon", "Faro"):
        memory.add(f"Ann lives in {city}.", scope=ann, key="home", metadata={"city": city, "n": len(city)})
        clock.advance(timedelta(minutes=1))
    likes = memory.add(
        "Ann likes tea.", scope=ann, kind="preference", priority=0.9, metadata={"a": {"b": []}}
    )
    assert isinstance(likes, warpmem.AddResult)
    clock.advance(timedelta(seconds=5))
    memory.add("ANN  likes tea.", scope=ann, kind="preference", metadata={"a": {"b": []}})
    clock.advance(timedelta(seconds=5))
    memory.update(likes.id, text="Ann likes green tea.", expected_version=1)
    clock.advance(timedelta(seconds=5))
    memory.update(likes.id, metadata={"a": {"b": [1, None, "ü"]}}, entities=["Ann"], trust=0.5)
    gone = memory.add("Ann owns a bicycle.", scope=ann)
    assert isinstance(gone, warpmem.AddResult)
    clock.advance(timedelta(seconds=5))
    memory.update(gone.id, text="Ann owns a red bicycle.")
    clock.advance(timedelta(seconds=5))
    memory.delete(gone.id)
    messages = [{"role": "user", "content": f"message {n}"} for n in range(4)]
    memory.add(messages, scope=bob, idempotency_key="call-1")
    memory.add(
        "A parcel comes.", scope=bob, kind="event", valid_from=START + timedelta(days=30),
        expires_at=START + timedelta(days=60),
    )  # fmt: skip
    memory.add("Bob is away.", scope=bob, valid_to=START + timedelta(hours=2))
    vector = [float(n - 7) for n in range(memory.stats().dimension)]
    memory.add(NewItem(text="?", modality="image", blob="file:///cat.png", vector=vector), scope=helper)
    memory.add_many(
        [NewItem(text=f"Step {n}: turn screw {n * n}.", metadata={"step": n}) for n in range(8)],
        scope=manual, kind="procedure",
    )  # fmt: skip
    clock.advance(timedelta(seconds=5))
    for item in memory.list(manual, limit=3).items:
        memory.delete(item.id)
    memory.add("secret", user_id="eve")
    clock.advance(timedelta(seconds=5))
    memory.delete_all(user_id="eve")


def describe(memory: Memory) -> dict[str, Any]:
    """What a store answers, as plain JSON: listings, histories, the feed, searches with score bits."""
    owners = memory.owners()
    items = {owner: memory.list(owner, include_past=True, limit=10_000).items for owner in owners}
    changes = memory.changes(limit=10_000)
    searches = []
    for owner in owners:
        for options in (
            {},
            {"as_of": START},
            {"known_at": START + timedelta(minutes=4)},
            {"kinds": ["fact"]},
        ):
            result = memory.search("Ann lives in the city", scope=owner, k=50, mode="dense", **options)  # type: ignore[arg-type]
            searches.append([[hit.item.id, hit.item.version, hit.score.hex()] for hit in result])
    stats = memory.stats()
    return _plain(
        {
            "stats": [stats.items, stats.owners, stats.sequence, stats.model_id, stats.dimension],
            "owners": owners,
            "items": list(items.values()),
            "histories": {change.id: memory.history(change.id) for change in changes},
            "changes": changes,
            "searches": searches,
        }
    )


def families(engine: Engine, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Every stored value, as hex by family and key."""
    return {
        name: {key.hex(): value.hex() for key, value in engine.scan(name, b"", b"\xff" * 64)}
        for name in names
    }


def held_by(path: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """As `families`, of the store at `path`, which is only read."""
    engine = RocksEngine(path, read_only=True)
    try:
        return families(engine, names)
    finally:
        engine.close()


def content(folder: Path) -> dict[str, Any]:
    """What the stores of a golden folder hold."""
    found: dict[str, Any] = json.loads((folder / "content.json").read_text("utf-8"))
    return found


def _plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def _stop_after(count: int, model: Hooked) -> None:
    if len(model.embedded) >= count:
        raise EmbeddingError("stopped")


def make(folder: Path) -> None:
    """Write a golden folder with the code as it is."""
    store, clock = folder / "closed", FixedClock(START)
    memory = open_golden(store, clock=clock, embedder=HashingEmbedder(OTHER))
    fill(memory, clock)
    memory.reembed(HashingEmbedder(DIMENSION))
    halted = Hooked(OTHER, lambda texts: _stop_after(10, halted))
    with contextlib.suppress(EmbeddingError):
        memory.reembed(halted, batch=5)
    shutil.copytree(store, folder / "unclean", ignore=shutil.ignore_patterns(*_NOT_DATA))
    memory.close()
    with open_golden(store) as memory:
        answers = describe(memory)
        assert memory.checkpoint()
    held = {"families": held_by(store, FAMILIES), "memory": answers}
    for pattern in _NOT_DATA:
        for file in store.glob(pattern):
            file.unlink()
    (folder / "content.json").write_text(json.dumps(held, indent=0, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
