"""After erase() no file of the store, and no object of the process, holds a byte of what was erased."""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import warpmem
from durability.canaries import Canaries
from warpmem import NewItem, Ranking
from warpmem.embed.hashing import HashingEmbedder, _hash
from warpmem.memory.cache import ItemCache
from warpmem.memory.costs import CostLedger
from warpmem.memory.embedding_cache import EmbeddingCache
from warpmem.memory.reader import Reader
from warpmem.ops.ids import parse_id
from warpmem.storage import backup, erasure, rocks_open
from warpmem.storage.erasure import StoreErasures
from warpmem.storage.values import make_scope

NAMES = ("user", "text", "update", "deleted", "meta", "key", "entity", "blob", "agent", "call", "tag")
OPTIONS: dict[str, Any] = {
    "embedder": "hashing", "columns": {"tag": "string"}, "memtable_bytes": 64 << 10, "min_free_bytes": 0,
}  # fmt: skip
SECONDS = 60


@pytest.fixture(params=["compressed", "plain"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a store may be. Compression hides text from a search for bytes, so it is off once."""
    if request.param == "plain":
        make = rocks_open._options
        monkeypatch.setattr(
            rocks_open, "_options", lambda *a, **options: make(*a, **{**options, "compress": False})
        )
    return tmp_path / "store"


def fill(path: Path, canaries: Canaries) -> tuple[warpmem.Memory, list[str]]:
    """An open store with somebody's data in every place that there is, others' around it; and their ids."""
    word = canaries.word
    memory = warpmem.open(path, **OPTIONS)
    for n in range(300):
        memory.add(f"bystander {n} of the store", user_id=f"bob{n % 7}", durability="os")
    item = NewItem(
        text=f"lives at {word('text')}",
        metadata={"note": word("meta"), "tag": word("tag")},
        key=word("key"),
        entities=(word("entity"),),
        blob=word("blob"),
    )
    first = memory.add(item, user_id=word("user"), agent_id=word("agent"), idempotency_key=word("call"))
    assert isinstance(first, warpmem.AddResult)
    vector = np.random.default_rng(7).standard_normal(256).astype(np.float32)
    second = memory.add("by its vector", user_id=word("user"), vector=vector)
    third = memory.add(f"soon gone: {word('deleted')}", user_id=word("user"))
    assert isinstance(second, warpmem.AddResult) and isinstance(third, warpmem.AddResult)
    derived = memory.add(NewItem(text=f"told by {word('text')}", sources=(first.id,)), user_id="bob1")
    assert isinstance(derived, warpmem.AddResult)
    for user in (word("user"), "bob1", "bob2"):
        assert memory.search("x", user_id=user)
    memory.checkpoint()
    memory.close()
    memory = warpmem.open(path, **OPTIONS)
    assert memory.stats().loaded_owners >= 1  # from the checkpoint, which is mapped now
    memory.update(first.id, text=f"moved to {word('update')}")
    memory.delete(third.id)
    memory.checkpoint()
    for n in range(300):
        memory.add(f"later bystander {n}", user_id=f"bob{n % 7}", durability="os")
    found = memory.search(word("update"), user_id=word("user"), return_vectors="numpy")
    assert len(found) == 2
    for row in found.vectors:
        canaries.note(row)
    embedder = memory._current.now.embedder  # type: ignore[attr-defined]
    for row in embedder.embed([word("update"), f"moved to {word('update')}"], role="document"):
        canaries.note(row)
    memory.search("x", user_id=word("user"), filters={"text": {"contains": word("update")}})
    memory.search("x", user_id=word("user"), filters={"metadata.tag": word("tag")})
    memory.context(word("update"), user_id=word("user"), agent_id=word("agent"))
    memory.list(user_id=word("user"))
    memory.history(third.id)
    return memory, [first.id, second.id, third.id]


def bystanders(memory: warpmem.Memory) -> list[str]:
    return [
        item.text for n in range(7) for item in memory.list(user_id=f"bob{n}", limit=1000, include_past=True)
    ]


def test_a_whole_owner(store: Path) -> None:
    canaries = Canaries(random.Random("owner"))
    memory, ids = fill(store, canaries)
    before = [text for text in bystanders(memory) if "told by" not in text]
    assert canaries.in_files(store) and canaries.in_objects(), "this test would see nothing"
    user = canaries.word("user")
    started = time.monotonic()
    receipt = memory.erase(user_id=user)
    del user
    assert canaries.in_files(store) == []
    assert canaries.in_objects() == []
    assert time.monotonic() - started < SECONDS
    assert (receipt.items, receipt.owners, receipt.checkpoint) == (3, 1, "rewritten")
    assert len(receipt.derived) == 1 and receipt.log_entries == 6 and receipt.files > 0
    assert memory.get_many(ids) == (None, None, None)
    assert bystanders(memory) == before
    assert memory.stats().pending_erasures == 0
    memory.close()
    assert canaries.in_files(store) == []
    with warpmem.open(store, **OPTIONS) as again:
        assert "from the checkpoint" in again._index.restored  # type: ignore[attr-defined]
        assert bystanders(again) == before
        assert again.search("x", user_id=canaries.word("user")).items == ()
        canaries.in_files(store)


def test_items_of_an_owner_who_stays(store: Path) -> None:
    canaries = Canaries(random.Random("items"))
    memory, ids = fill(store, canaries)
    kept = memory.add("stays with its owner", user_id=canaries.word("user"))
    assert isinstance(kept, warpmem.AddResult)
    receipt = memory.erase(ids)
    user = canaries.word("user")
    assert [item.id for item in memory.list(user_id=user)] == [kept.id]
    assert [hit.item.id for hit in memory.search("x", user_id=user)] == [kept.id]
    assert (receipt.items, receipt.owners) == (3, 0)
    canaries.forget("user")  # it is the id of the item that stays
    assert canaries.in_files(store) == []
    keys = [parse_id(item_id) for item_id in ids]
    holding = [path.name for path in store.iterdir() if any(key in path.read_bytes() for key in keys)]
    assert holding == [], "the marks named them until all else was gone"
    assert canaries.in_objects() == []
    memory.close()


def test_past_versions_of_items_that_stay(store: Path) -> None:
    """What a source alone had said, in an item that has another source by now."""
    canaries = Canaries(random.Random("versions"))
    word = canaries.word
    with warpmem.open(store, **OPTIONS) as memory:
        source, other = (memory.add(text, user_id="ann").id for text in ("one", "another"))
        item = NewItem(
            text=f"she said {word('text')}", metadata={"tag": word("tag"), "n": word("meta")},
            entities=(word("entity"),), sources=(source,),
        )  # fmt: skip
        made = memory.add(item, user_id="ann", agent_id="a").id
        (row,) = memory.search("x", user_id="ann", agent_id="a", return_vectors="numpy").vectors
        canaries.note(row)
        del row, item
        memory.update(made, text="she said nothing", metadata={}, entities=[], sources=[source, other])
        memory.checkpoint()
        memory.search("x", user_id="ann", filters={"metadata.tag": word("tag")})
        assert canaries.in_files(store) and canaries.in_objects(), "this test would see nothing"
        receipt = memory.erase([source])
        assert receipt.versions == ((made, 1),)
        assert canaries.in_files(store) == []
        assert canaries.in_objects() == []
        assert [entry.item.text for entry in memory.history(made) if entry.item] == ["she said nothing"]
    assert canaries.in_files(store) == []
    assert warpmem.verify(store).ok


@pytest.mark.parametrize(
    ("backend", "left"),
    [("numpy", "warpmem.index"), ("numpy", "warpmem.index.new"), ("cpu", "warpmem.index.new")],
)
def test_a_checkpoint_that_the_index_does_not_read(tmp_path: Path, backend: str, left: str) -> None:
    """It stayed where another backend had written it, and where a process was killed in its first one."""
    store = tmp_path / "store"
    canaries = Canaries(random.Random(left))
    memory, _ = fill(store, canaries)
    memory.close()
    (store / "warpmem.index").rename(store / left)
    with warpmem.open(store, backend=backend, **OPTIONS) as memory:
        assert left in canaries.in_files(store), "this test would see nothing"
        receipt = memory.erase(user_id=canaries.word("user"))
        assert canaries.in_files(store) == []
        assert receipt.checkpoint == ("removed" if backend == "numpy" else "rewritten")
    assert canaries.in_files(store) == []
    assert (store / "warpmem.index").exists() == (backend == "cpu")


def test_entities_go_with_their_sources(store: Path) -> None:
    """Names that are kept in memory for searches, records of entities and relations in all their versions."""
    canaries = Canaries(random.Random("entities"))
    word = canaries.word
    with warpmem.open(store, **OPTIONS) as memory:
        source = memory.add("x", user_id="ann", entities=[word("entity"), "somebody"])
        assert isinstance(source, warpmem.AddResult)
        memory.add("y", user_id="ann", entities=["somebody"])
        assert len(memory.entities(user_id="ann")) == 2  # from here on names are kept up
        memory.name_entity(
            word("name"), aliases=[word("alias"), word("entity")], kind=word("kind"), user_id="ann",
            sources=[source.id],
        )  # fmt: skip
        for other in ("somebody", word("other")):
            memory.relate(
                word("alias"), word("predicate"), other, functional=True, user_id="ann", sources=[source.id]
            )
        memory.checkpoint()
        query = f"who is {word('alias')}?"
        assert len(memory.entities(user_id="ann", query=query)) == 1
        assert len(memory.relations(user_id="ann", entity=word("entity"), include_past=True)) == 2
        assert memory.search(query, user_id="ann", ranking=Ranking(lexical=1.0, entities=1.0))
        del query
        assert canaries.in_files(store) and canaries.in_objects(), "this test would see nothing"
        receipt = memory.erase([source.id])
        assert canaries.in_files(store) == []
        assert canaries.in_objects() == []
        assert (receipt.items, len(receipt.derived)) == (4, 3)
        assert [entity.name for entity in memory.entities(user_id="ann")] == ["somebody"]
        assert len(memory.relations(user_id="ann", include_past=True)) == 0
        assert len(memory.entities(user_id="ann", query=word("alias"))) == 0
        assert memory.search(word("alias"), user_id="ann", ranking=Ranking(entities=1.0))
    assert warpmem.verify(store).ok


@pytest.mark.parametrize("whole", [True, False], ids=["an owner", "some items"])
def test_ids_of_sources_that_are_believed_no_more(store: Path, whole: bool) -> None:
    """The list of them kept the ids of erased items, and so that there was somebody, and when."""
    with warpmem.open(store, **OPTIONS) as memory:
        added = [memory.add(f"told {n}", user_id="ann").id for n in range(3)]
        for source in ("web:example.org", *added):
            memory.revoke(source)
        memory.add("told again", user_id="bob", sources=[added[0], "somebody"])  # looks at the list
        gone, left = (added, []) if whole else (added[:2], added[2:])
        memory.erase(user_id="ann") if whole else memory.erase(gone)
        assert memory.revoked() == ("web:example.org", *left)
        raw = [one.encode() for one in gone]
        holding = [p.name for p in store.iterdir() if p.is_file() and any(r in p.read_bytes() for r in raw)]
        assert holding == []
        assert memory._current.now.revocations._last == (None, frozenset())  # type: ignore[attr-defined]
        kept = memory.add("told once more", user_id="bob", sources=["web:example.org"])
        assert memory.get(kept.id).quarantined
    assert warpmem.verify(store).ok


def test_a_backup_under_way_holds_it_until_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = Canaries(random.Random("backup"))
    memory, _ = fill(tmp_path / "store", canaries)
    copy = backup.copy_store

    def erase_first(*arguments: Any, **options: Any) -> None:
        receipt = memory.erase(user_id=canaries.word("user"))
        assert [Path(known.path).parent for known in receipt.backups] == [tmp_path / "backups"]
        held = canaries.in_files(tmp_path / "store" / "warpmem.snapshot")
        assert canaries.in_files(tmp_path / "store") == held != []
        copy(*arguments, **options)

    monkeypatch.setattr(backup, "copy_store", erase_first)
    memory.backup(tmp_path / "backups")
    assert canaries.in_files(tmp_path / "store") == []
    memory.close()


def test_a_walk_does_not_keep_what_is_erased(tmp_path: Path) -> None:
    """Snapshots and iterators of before: they let go, go on with what is left, and nobody waits for them."""
    canaries = Canaries(random.Random("walks"))
    memory, _ = fill(tmp_path / "store", canaries)
    engine = memory._log._engine  # type: ignore[attr-defined]
    count = len(list(engine.scan("items", b"", b"\xff" * 64)))
    forwards, backwards = (engine.scan("items", b"", b"\xff" * 64, reverse=r) for r in (False, True))
    chunks = engine.chunks("vectors", b"", b"\xff" * 64, 10)
    walks = (forwards, backwards, chunks)
    begun = [[next(walk)] for walk in walks]
    receipt = memory.erase(user_id=canaries.word("user"))
    del begun[0][0], begun[1][0], begun[2][0]
    assert canaries.in_files(tmp_path / "store") == []
    left = count - receipt.items
    assert len(list(forwards)) == left - 1
    assert len(list(backwards)) == left
    assert sum(len(keys) for keys, _ in chunks) == left - 10
    memory.close()


@pytest.mark.parametrize("step", ["compact", "renew", "checkpoint", "stubs"])
def test_without_a_step_the_bytes_are_found(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above can see: each step of the physical removal left out, one after the other."""
    make = rocks_open._options
    monkeypatch.setattr(
        rocks_open, "_options", lambda *a, **options: make(*a, **{**options, "compress": False})
    )
    canaries = Canaries(random.Random(step))
    memory, _ = fill(tmp_path / "store", canaries)
    engine: Any = type(memory._log._engine)  # type: ignore[attr-defined]
    if step == "compact":
        monkeypatch.setattr(engine, "compact", lambda self, ranges: 0)
    elif step == "renew":
        monkeypatch.setattr(engine, "compact", lambda self, ranges: 0)
        monkeypatch.setattr(engine, "renew", lambda self: None)
    elif step == "checkpoint":
        monkeypatch.setattr(memory._index, "renew", lambda: "none")
    else:
        monkeypatch.setattr(StoreErasures, "_erase_entries", lambda self, what, run: [])
    memory.erase(user_id=canaries.word("user"))
    assert canaries.in_files(tmp_path / "store") != []
    memory.close()


@pytest.mark.parametrize("cache", ["costs", "embedder", "embeddings", "items", "masks", "scopes"])
def test_caches_that_are_not_told_are_found(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        "costs": CostLedger, "embedder": HashingEmbedder, "embeddings": EmbeddingCache, "items": ItemCache,
        "masks": Reader,
    }  # fmt: skip
    canaries = Canaries(random.Random(cache))
    with monkeypatch.context() as patch:
        if cache == "scopes":
            patch.setattr(erasure, "make_scope", SimpleNamespace(cache_clear=lambda: None))
        else:
            patch.setattr(kinds[cache], "forget", lambda self, *changes: None)
        memory, _ = fill(tmp_path / "store", canaries)
        memory.erase(user_id=canaries.word("user"))
        assert canaries.in_objects() != []
        memory.close()
    _hash.cache_clear()
    make_scope.cache_clear()
