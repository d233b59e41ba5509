"""Repair: everything that is whole is brought over, and what is lost is said. test_every_damage.py repairs
after damage of every kind; test_repair_end.py looks at what is lost without a trace."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rocksdict import BottommostLevelCompaction, CompactOptions

import warpmem
from durability import damage
from durability.damage import make_store, read_contents
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import FormatError, InputError, StoreCorrupt, StoreError, StoreLocked
from warpmem.storage import codec, vector_build
from warpmem.storage.identity import FORMAT, read_identity
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.values import encode


def test_the_repair_of_a_whole_store_is_that_store(templates: Path, tmp_path: Path) -> None:
    for name in ("closed", "live"):
        report = warpmem.repair(templates / name, tmp_path / name)
        assert report.ok and report.stubs == 0 and report.embedded == 0
        found, before = read_contents(tmp_path / name).all, read_contents(templates / name).all
        notes = [(family, key) for family, key in found.keys() - before.keys() if key.startswith(b"backup")]
        assert len(notes) == 1, "it notes the original"
        assert {place: value for place, value in found.items() if place not in notes} == before
    assert sorted(os.listdir(tmp_path)) == ["closed", "live"]


def test_a_lost_vector_is_made_anew_by_the_model_or_ends_its_item(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", min_free_bytes=0) as memory:
        kept, lost = (memory.add(text, user_id="u").id for text in ("first text", "second text"))
        same = memory.update(kept, metadata={"n": 1}).version
    engine = RocksEngine(tmp_path / "store")
    vectors = dict(engine.scan("vectors", b"", b"\xff" * 64))
    gone = [key for key in vectors if warp_id(key) == lost or (warp_id(key) == kept and key[-1] == same)]
    assert len(gone) == 2
    engine.close()
    overwrite(tmp_path / "store", "vectors", gone)
    assert not warpmem.verify(tmp_path / "store").ok
    report = warpmem.repair(tmp_path / "store", tmp_path / "with-model")
    assert report.ok and report.embedded == 1, (
        "the other is that of the version before it, with the same text"
    )
    found = dict(read_contents(tmp_path / "with-model").all)
    assert {key: found["vectors", key] for key in vectors} == vectors
    engine = RocksEngine(tmp_path / "store")
    write_model(engine, "somebody-else")
    engine.close()
    report = warpmem.repair(tmp_path / "store", tmp_path / "without")
    assert [(loss.id, loss.version) for loss in report.lost] == [(lost, 1)]
    assert "no embedder was given; its text stands in history" in report.lost[0].what
    with warpmem.open(tmp_path / "without", read_only=True) as memory:
        assert memory.get_many([lost, kept])[0] is None
        assert memory.history(lost)[0].item.text == "second text"
        assert memory.get(kept).metadata == {"n": 1}
    with pytest.raises(InputError, match="somebody-else"):
        warpmem.repair(tmp_path / "store", tmp_path / "wrong", embedder=HashingEmbedder())


def warp_id(key: bytes) -> str:
    return damage.warpmem_id(key[:20])


def compact(engine: RocksEngine, family: str) -> None:
    """Write all tables of a family anew, without what was replaced or deleted."""
    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
    engine._families[family].compact_range(b"", b"\xff" * 64, options)


def overwrite(path: Path, family: str, keys: list[bytes]) -> None:
    """Put what has no checksum in the place of values, and leave no table that still has them."""
    engine = RocksEngine(path)
    engine.write([(family, key, b"damaged!") for key in keys])
    engine._families[family].flush()
    compact(engine, family)
    engine.close()
    RocksEngine(path).close()  # removes the tables that were replaced


def write_model(engine: RocksEngine, model_id: str) -> None:
    identity = msgspec.structs.replace(read_identity(engine), model_id=model_id)
    engine.write([("meta", b"identity", codec.seal("meta", b"identity", encode(identity)))])


def test_a_lost_identity_is_made_anew(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 5, items=20)
    before = read_contents(tmp_path / "store")
    overwrite(tmp_path / "store", "meta", [b"identity"])
    report = warpmem.repair(tmp_path / "store", tmp_path / "new")
    assert [loss.what for loss in report.lost] == [
        "the store's identity: made anew, with the model 'hashing-256-v1'; idempotent calls are forgotten",
        "some of what stands beside the items: notes of backups, revoked origins, costs",
    ]
    after = read_contents(tmp_path / "new")
    assert (after.live, after.past, after.log) == (before.live, before.past, before.log | notices(after))
    with warpmem.open(tmp_path / "new", embedder="hashing", min_free_bytes=0) as memory:
        repeated = memory.add(next(iter(memory.list(user_id="ann", kinds=["fact"]))).text, user_id="ann")
        assert repeated.action in ("touched", "added")


def notices(contents: damage.Contents) -> dict[int, object]:
    return {n: entry for n, entry in contents.log.items() if entry.operation == "erase"}


def test_what_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    """Tables that compaction has replaced may still lie about, with what was deleted since."""
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        deleted = memory.add("to be deleted", user_id="u").id
        memory.add("to stay", user_id="u")
    old = {file.name: file.read_bytes() for file in path.glob("*.sst")}
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        memory.delete(deleted)
    engine = RocksEngine(path)
    for family in codec.FAMILIES:
        compact(engine, family)
    engine.close()
    for name, data in old.items():
        (path / name).write_bytes(data)
    (path / "CURRENT").unlink()
    assert warpmem.repair(path, tmp_path / "new").ok
    with warpmem.open(tmp_path / "new", read_only=True) as memory:
        assert [item.text for item in memory.list(user_id="u")] == ["to stay"]
        assert memory.history(deleted)[-1].operation == "delete"


def test_refusals(templates: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not empty"):
        warpmem.repair(templates / "closed", templates)
    for nothing in (tmp_path / "absent", tmp_path):
        with pytest.raises(FormatError, match="there is no store"):
            warpmem.repair(nothing, tmp_path / "new")
        with pytest.raises(FormatError, match="there is no store"):
            warpmem.verify(nothing)
    store = shutil.copytree(templates / "closed", tmp_path / "store")
    memory = warpmem.open(store, embedder="hashing", min_free_bytes=0)
    with pytest.raises(StoreLocked, match="open for writing"):
        warpmem.repair(store, tmp_path / "new")
    memory.close()
    (tmp_path / "link").symlink_to(store)
    for inside in (store / "new", tmp_path / "link" / "deeper" / "new"):
        with pytest.raises(InputError, match="inside"):
            warpmem.repair(store, inside)
    (tmp_path / "link").unlink()
    assert not (store / "new").exists() and not (store / "deeper").exists()
    for file in store.glob("*.sst"):
        file.write_bytes(random.Random(1).randbytes(file.stat().st_size))
    with pytest.raises(StoreCorrupt, match="nothing to repair"):
        warpmem.repair(store, tmp_path / "new")
    assert os.listdir(tmp_path) == ["store"]


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 5, items=3)
    engine = RocksEngine(tmp_path / "store")
    identity = msgspec.structs.replace(read_identity(engine), format=FORMAT + 1)
    engine.write([("meta", b"identity", codec.seal("meta", b"identity", encode(identity)))])
    engine.close()
    for what in (
        lambda: warpmem.repair(tmp_path / "store", tmp_path / "new"),
        lambda: warpmem.verify(tmp_path / "store"),
    ):
        with pytest.raises(FormatError, match=f"format {FORMAT + 1}, this warpmem reads up to {FORMAT}"):
            what()
    assert os.listdir(tmp_path) == ["store"]


def test_a_store_whose_model_was_changed(tmp_path: Path) -> None:
    """The vectors in use may stand in the other family; those made so far of a third model are not kept."""
    path = tmp_path / "store"
    make_store(path, 6, items=20)
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        memory.reembed(HashingEmbedder(64))
    with warpmem.open(path, embedder=HashingEmbedder(64), min_free_bytes=0) as memory:
        calls = iter(range(3))

        def stop(done: int, total: int) -> None:
            if next(calls) == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            memory.reembed("hashing", progress=stop, batch=4)
        hits = [(hit.item.id, hit.score) for hit in memory.search("item", user_id="ann", k=50)]
    report = warpmem.verify(path)
    assert report.ok and report.entries["vectors_b"] and report.entries["jobs"] == 1, report
    report = warpmem.repair(path, tmp_path / "new")
    assert [loss.what for loss in report.lost] == [
        "the vectors of 'hashing-256-v1' made so far: begin re-embedding anew"
    ]
    with warpmem.open(tmp_path / "new", embedder=HashingEmbedder(64), min_free_bytes=0) as memory:
        assert [(hit.item.id, hit.score) for hit in memory.search("item", user_id="ann", k=50)] == hits
    overwrite(path, "meta", [b"identity"])
    report = warpmem.repair(path, tmp_path / "without-identity")
    assert (report.model_id, report.dimension) == ("hashing-256-v1", 64)
    assert "with the model 'hashing-256-v1'" in report.lost[1].what


@pytest.mark.parametrize("flushed", [False, True], ids=["in the log", "in tables"])
def test_vectors_of_a_model_before_the_last_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    """The family had been emptied by a deletion of a range, which a repair did not see: where the vector in
    use was damaged, that of the model before the last was taken, since it had the same length."""

    def model(seed: int) -> dict[str, Any]:
        def embed(texts: Sequence[str]) -> Any:
            rows = [np.random.default_rng([seed, *text.encode()]).standard_normal(16) for text in texts]
            return np.array(rows, np.float32)

        return {"embedder": embed, "dimension": 16, "model_id": f"model {seed}"}

    monkeypatch.setattr(vector_build, "_give_back", lambda engine, family: None)
    path = tmp_path / "store"
    with warpmem.open(path, **model(1), min_free_bytes=0) as memory:
        memory.add("something", user_id="ann")
        for seed in (2, 3):
            if flushed:
                memory._log._engine.flush()  # type: ignore[attr-defined]
            memory.reembed(**model(seed))
        if flushed:
            memory._log._engine.flush()  # type: ignore[attr-defined]
        vector = memory.search(vector=np.ones(16), user_id="ann", return_vectors="numpy").vectors[0]
        while not (tmp_path / "copy").exists():
            try:
                shutil.copytree(
                    path, tmp_path / "copy", ignore=shutil.ignore_patterns("warpmem.lock", "LOCK")
                )
            except shutil.Error:  # a compaction has just removed a file
                shutil.rmtree(tmp_path / "copy")
    damaged = 0
    for file in (tmp_path / "copy").glob("*.sst" if flushed else "*.log"):
        content = file.read_bytes()
        damaged += content.count(vector.tobytes())
        file.write_bytes(content.replace(vector.tobytes(), bytes(64)))
    assert damaged == 1
    report = warpmem.repair(tmp_path / "copy", tmp_path / "new")
    assert [loss.what for loss in report.lost if loss.id is not None] and report.items == 0, report
    with warpmem.open(tmp_path / "new", read_only=True) as memory:
        assert not memory.search(vector=np.ones(16), user_id="ann")


@pytest.mark.parametrize("format", [1, 2])
def test_older_formats_are_verified_and_repaired_into_todays(tmp_path: Path, format: int) -> None:
    golden = Path(__file__).with_name("golden") / f"format-{format}"
    if not golden.exists():
        pytest.skip("there is no store of this format yet")
    store = shutil.copytree(next(golden.rglob("CURRENT")).parent, tmp_path / "store")
    before = warpmem.verify(store)
    assert before.ok and before.format == format
    report = warpmem.repair(store, tmp_path / "new")
    # The golden store of format 2 has a re-embedding half done, which begins anew.
    assert all("begin re-embedding anew" in loss.what for loss in report.lost)
    assert len(report.lost) == (format == 2)
    assert (report.items, report.sequence) == (before.items, before.sequence)
    assert warpmem.verify(tmp_path / "new").format == FORMAT


def test_an_unfinished_erasure_is_brought_over(tmp_path: Path) -> None:
    """Whoever opens the repaired store for writing finishes it; until then it cannot be verified in full."""
    make_store(tmp_path / "store", 5, items=10)
    engine = RocksEngine(tmp_path / "store")
    key = b"erase" + bytes(20)
    engine.write([("meta", key, codec.seal("meta", key, b"\x94\x01\x90\xc4\x00\xc3"))])
    engine.close()
    assert warpmem.repair(tmp_path / "store", tmp_path / "new").ok
    engine = RocksEngine(tmp_path / "new", read_only=True)
    assert engine.get("meta", key) is not None
    engine.close()


def die(*arguments: object) -> int:
    raise StoreError("the process died here")


@pytest.mark.parametrize("whole_owner", [True, False])
@pytest.mark.parametrize("step", ["compact", "renew"])
def test_what_is_being_erased_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, whole_owner: bool
) -> None:
    """The process died while the files were still to be cleaned, and every deletion is lost to damage: the
    mark, which named nobody any more by then, let repair bring everything back."""
    path, name = tmp_path / "store", "somebody"
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        erased = memory.add("to be erased", user_id=name, agent_id="a", key="k", idempotency_key="call").id
        memory.update(erased, text="to be erased, again")
        memory.add("to stay", user_id=name)
        memory.add("of a bystander", user_id="bob")
    before = read_contents(path).all
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        monkeypatch.setattr(RocksEngine, step, die)
        with pytest.raises(StoreError, match="died here"):
            memory.erase(user_id=name, agent_id=None if whole_owner else "a")
        monkeypatch.undo()
    engine = RocksEngine(path)
    engine.write([(family, key, value) for (family, key), value in before.items() if family != "meta"])
    engine.close()
    assert warpmem.repair(path, tmp_path / "new").ok
    found = read_contents(tmp_path / "new")
    stays = ["of a bystander"] if whole_owner else ["of a bystander", "to stay"]
    assert sorted(found.live.values()) == stays and not found.past
    gone = name.encode() if whole_owner else erased.encode()
    assert [entry for entry, value in found.all.items() if gone in value] == []
    with warpmem.open(tmp_path / "new", embedder="hashing", min_free_bytes=0) as memory:
        assert memory.stats().pending_erasures == 0
        assert memory.get_many([erased]) == (None,)
        assert len(memory.owners()) == (1 if whole_owner else 2)
        again = memory.add("to be erased", user_id=name, agent_id="a", key="k", idempotency_key="call")
        assert again.action == "added" and again.id != erased
    assert warpmem.verify(tmp_path / "new").ok


def test_the_number_of_an_owner_who_is_being_erased_stays_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all that stood of him is lost to damage: the next owner would be erased in his place."""
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        memory.add("of a bystander", user_id="bob")
        erased = memory.add("to be erased", user_id="somebody").id
        monkeypatch.setattr(RocksEngine, "compact", die)
        with pytest.raises(StoreError, match="died here"):
            memory.erase(user_id="somebody")
        monkeypatch.undo()
    overwrite(path, "owners", [codec.owner_state_key(2)])
    assert warpmem.repair(path, tmp_path / "new").ok
    for _ in range(2):
        with warpmem.open(tmp_path / "new", embedder="hashing", min_free_bytes=0) as memory:
            assert memory.stats().pending_erasures == 0
            again = memory.add("added since", user_id="somebody").id
            assert again[:7] != erased[:7]
            assert memory.count(user_id="somebody") == 1
