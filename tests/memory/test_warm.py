"""What is loaded before it is asked for, and what leaves the device again."""

from __future__ import annotations

from pathlib import Path

import pytest

import warpmem
from emulated_cuda import emulated
from warpmem import Memory, Scope
from warpmem.errors import InputError, InvalidScope
from warpmem.index.cuda_backend import CudaBackend


def fill(memory: Memory) -> list[str]:
    return [memory.add(f"note {i} of a long list", user_id="u", entities=["Ann"]).id for i in range(200)]


def test_an_owner_is_loaded_before_his_first_search(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        fill(memory)
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        index = memory._index
        assert index.stats()["owners"] == 0
        assert memory.warm(user_id="nobody") == 0
        assert index.stats()["owners"] == 0
        assert memory.warm(user_id="u", words=False) == 0  # there is no device
        assert index.stats()["owners"] == 1
        (partition,) = index._partitions.values()  # type: ignore[attr-defined]
        assert partition.words is None
        memory.warm(scope=Scope(user_id="u"), words=True)
        words = partition.words
        assert words is not None
        memory.search("note 7", user_id="u", mode="hybrid")
        assert partition.words is words
        assert partition.entities is None
        memory.warm(user_id="u", entities=True)
        names = partition.entities
        assert names is not None and "ann" in names.named
        assert [entity.name for entity in memory.entities(user_id="u")] == ["Ann"]
        assert partition.entities is names
        memory.evict(user_id="u")
        assert len(memory.search("note 7", user_id="u")) == 10
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.warm(user_id="u")
        (partition,) = memory._index._partitions.values()  # type: ignore[attr-defined]
        assert partition.words is not None
    with warpmem.open(tmp_path / "store", embedder="hashing", mode="dense") as memory:
        memory.warm(user_id="u")
        (partition,) = memory._index._partitions.values()  # type: ignore[attr-defined]
        assert partition.words is None


def test_a_device_holds_who_was_warmed_until_he_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CudaBackend(module=emulated().module, vram_bytes=1 << 26, least_work=0)
    monkeypatch.setattr("warpmem.compose.choose", lambda *ignored: (backend, "a test"))
    with warpmem.open(embedder="hashing") as memory:
        fill(memory)
        before = memory.search("note 7", user_id="u")
        assert memory.warm(user_id="u", wait=True) <= 2
        assert memory._index.stats()["device_pages"] > 0
        assert [(hit.item.id, hit.score) for hit in memory.search("note 7", user_id="u")] == [
            (hit.item.id, hit.score) for hit in before
        ]
        memory.evict(user_id="u")
        assert memory._index.stats()["device_pages"] == 0


def test_bad_arguments() -> None:
    with warpmem.open(embedder="hashing") as memory:
        for call in (memory.warm, memory.evict):
            with pytest.raises(InvalidScope):
                call()
            with pytest.raises(InvalidScope):
                call(user_id="u", scope=Scope(user_id="u"))
        with pytest.raises(InputError):
            memory.warm(user_id="u", words="yes")  # type: ignore[arg-type]
        with pytest.raises(InputError):
            memory.warm(user_id="u", wait=1)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            memory.warm(user_id="u", entities=None)  # type: ignore[arg-type]
