"""Faults that were found in the index, each with what shows it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import VectorIndex
from warpmem.errors import IndexCorrupt, InputError
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.storage.directory import INDEX_NAME

DIM = 64


def unit(n: int, dim: int = DIM, seed: int = 0) -> Any:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("isa", CpuBackend().isas())
def test_late_filters_also_refuse_rows_of_thin_pages(isa: str, storage: str) -> None:
    """Pages with one or two rows took a short way round the screen, and round the filter."""
    rng = np.random.default_rng(1)
    for n in (64 * 20 + 1, 64 * 20 + 2, 64 * 40 + 1):
        rows = unit(n, seed=n)
        ids = np.arange(n)
        columns = (rng.random((n, 1)) < 0.05).astype(np.int64)
        columns[-1] = 1  # the last page is thin, and its rows are refused
        options: dict[str, Any] = {"storage": storage}
        pools = [
            CpuBackend(isa).pool(DIM, 1, screen=screen, **options)
            for screen in (("auto" if storage == "int8" else "int8"), "none")
        ]
        for pool in pools:
            pool.apply([], 0 * ids, ids, ids.astype(np.uint32), columns, rows)
            # and some pages in the middle become thin
            pool.apply(
                [(0, i) for i in range(64 * 10, 64 * 16) if i % 64 > 1],
                ids[:0], ids[:0], ids[:0].astype(np.uint32), columns[:0], rows[:0],
            )  # fmt: skip
        words = np.packbits(columns[:, 0] == 0, bitorder="little")
        bitmap = np.zeros((n + 63) // 64, np.uint64)
        bitmap.view(np.uint8)[: len(words)] = words
        for i in [*rng.integers(0, n, 20).tolist(), n - 1, 64 * 10, 64 * 11 + 1]:
            for terms, mask in ((((0, 0, 0, 0),), None), ((), bitmap)):
                segment = [(0, 0, 0, terms, (), mask)]
                screened, plain = (pool.scan(rows[i : i + 1], segment, 5) for pool in pools)
                assert (columns[screened[3][0][screened[3][0] >= 0], 0] == 0).all()
                assert all((a == b).all() for a, b in zip(screened, plain, strict=True))


def test_an_index_of_codes_comes_back_from_its_file(tmp_path: Path) -> None:
    """It was saved as two pools and opened as the empty one of them."""
    rows = unit(600)
    index = VectorIndex(DIM, storage="pq", columns={"n": "int64"})
    index.train(rows)
    index.add(rows, owners=np.arange(600) % 3, attributes={"n": np.arange(600)})
    before = index.search(rows[:9], 5, filter={"n": {"lt": 300}})
    index.save(tmp_path / "codes")
    again = VectorIndex.load(tmp_path / "codes")
    assert len(again) == 600
    after = again.search(rows[:9], 5, filter={"n": {"lt": 300}})
    assert (after.ids == before.ids).all() and (after.scores == before.scores).all()
    again.add(rows[:1], owners=1)
    again.remove(5)
    assert len(again) == 600


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_an_index_that_is_not_trained_yet_comes_back(tmp_path: Path, backend: str) -> None:
    VectorIndex(DIM, storage="pq", backend=backend).save(tmp_path / "empty")
    index = VectorIndex.load(tmp_path / "empty", backend=backend)
    index.train(unit(100))
    assert index.add(unit(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("storage", ["pq", "int8"])
def test_vectors_of_a_damaged_page_of_codes_are_refused(tmp_path: Path, storage: str) -> None:
    from warpmem.index.kernels import pq_train

    rows = unit(200)
    books = pq_train(rows, 16, 4)
    options: dict[str, Any] = {"storage": storage, "screen": "pq", "codebooks": books}
    from warpmem._cpu import Pool, open_pool

    pool = Pool(DIM, 0, **options)
    ids = np.arange(200)
    pool.apply([], 0 * ids, ids, ids.astype(np.uint32), np.zeros((200, 0), np.int64), rows)
    path = tmp_path / "file"
    pool.save(path, {})
    original, data = pool.vectors(0, ids), path.read_bytes()
    refused = 0
    for at in range(4096, len(data), 509):
        path.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        try:
            assert (open_pool(path)[0].vectors(0, ids) == original).all()
        except IndexCorrupt:
            refused += 1
    assert refused > 5


def test_an_approximate_search_for_many_rows_finds_many() -> None:
    rows = unit(24_000, 32)
    index = VectorIndex(32, recall=0.9, threads=2)
    index.add(rows)
    index.optimise()
    assert index.stats()["recall"] >= 0.9
    for queries in (rows[:1], rows[:3]):
        assert (index.search(queries, 4000).ids >= 0).all()
    with pytest.raises(InputError, match="refine"):
        index.search(rows[0], refine=5000)


def test_optimise_keeps_int8_rows_as_they_are() -> None:
    rows = unit(21_000, 32, seed=3)
    index = VectorIndex(32, storage="int8", recall=0.8, threads=2)
    ids = index.add(rows)
    before = index.vectors(ids)
    index.optimise()
    assert (index.vectors(ids) == before).all()


def test_an_emptied_index_whose_numbers_are_used_up_can_be_compacted() -> None:
    index = VectorIndex(4)
    index.add(unit(3, 4))
    index.remove([0, 1, 2])
    index._store.next_ordinal = 1 << 32
    with pytest.raises(InputError, match="compact"):
        index.add(unit(1, 4))
    index.compact()
    assert index.add(unit(1, 4)).tolist() == [3]


# ------------------------------------------------------------------------------------ checkpoints


def filled(path: Path) -> None:
    with warpmem.open(path, dimension=DIM, durability="os", checkpoint_rows=0) as memory:
        memory.add_many([f"t{i}" for i in range(200)], user_id="u", vectors=unit(200))
        memory.search(vector=unit(1)[0], user_id="u")
        assert memory.checkpoint()


def damage(path: Path) -> None:
    data = bytearray((path / INDEX_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (path / INDEX_NAME).write_bytes(data)


def nearest(memory: warpmem.Memory) -> list[str]:
    return [memory.search(vector=row, user_id="u", k=1)[0].item.text for row in unit(200)]


def test_a_damaged_checkpoint_is_renewed(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    damage(tmp_path / "s")
    with warpmem.open(tmp_path / "s", dimension=DIM, checkpoint_rows=0) as memory:
        assert memory.checkpoint()
        assert nearest(memory) == [f"t{i}" for i in range(200)]
        assert memory.checkpoint()
    with warpmem.open(tmp_path / "s", dimension=DIM) as memory:
        assert "1 owners" in memory._index.restored  # type: ignore[attr-defined]
        assert nearest(memory) == [f"t{i}" for i in range(200)]


def test_a_search_that_gives_up_an_owner_does_not_spoil_the_checkpoint(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    with warpmem.open(tmp_path / "s", dimension=DIM, checkpoint_rows=0) as memory:
        index: Any = memory._index
        memory.add("later", user_id="u", vector=unit(1, seed=9)[0])
        backend, save = index._checkpoint._backend, index._checkpoint._backend.save_pool

        def late(*arguments: Any) -> None:
            if late.first:  # type: ignore[attr-defined]
                late.first = False  # type: ignore[attr-defined]
                partition = index._partitions[1]
                with partition.lock:
                    index._drop(1, partition)
                index._partition(1)
            save(*arguments)

        late.first = True  # type: ignore[attr-defined]
        backend.save_pool = late
        assert memory.checkpoint()
        del backend.save_pool
    with warpmem.open(tmp_path / "s", dimension=DIM) as memory:
        assert nearest(memory) == [f"t{i}" for i in range(200)]


def test_a_checkpoint_that_fails_does_not_keep_a_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise MemoryError

    with warpmem.open(tmp_path / "s", dimension=DIM, durability="os", checkpoint_rows=1) as memory:
        memory.add("t", user_id="u", vector=unit(1)[0])
        memory.search(vector=unit(1)[0], user_id="u")
        monkeypatch.setattr(CpuBackend, "save_pool", fail)
    with warpmem.open(tmp_path / "s", dimension=DIM) as memory:
        assert len(memory.search(vector=unit(1)[0], user_id="u")) == 1


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"passed": True, "families": {"scan": {"cases": 6, "mismatches": 0}}}, None),
        (
            {"passed": False, "families": {"scan": {"cases": 6, "mismatches": 2}}},
            r"other bits than the CPU \(scan\)",
        ),
        ({"passed": False, "families": {}}, r"other bits than the CPU \(the scorer\)"),
        (RuntimeError("no kernel image"), r"self-test of CUDA device 0 failed \(no kernel image\)"),
    ],
)
def test_a_device_that_computes_otherwise_is_not_chosen(found: Any, reason: str | None) -> None:
    """`auto` took a CUDA device without ever having compared its answers with the CPU's."""
    asked = []

    def self_test(device: int) -> Any:
        asked.append(device)
        if isinstance(found, Exception):
            raise found
        return found

    module: Any = ModuleType("a_device")
    module.unavailable_reason, module.device_count, module.self_test = lambda: None, lambda: 1, self_test
    for _ in range(2):
        told = CudaBackend(module=module).available()
        assert told is None if reason is None else re.search(reason, told or "")
    assert asked == [0]  # once a process


@pytest.mark.parametrize("k", range(1, 12))
def test_few_hits_by_entities_are_the_first_of_many(k: int) -> None:
    """Scores were rounded after the k best of each list had been chosen: rows became equal that had not been,
    and the one that was added first stood before them in a longer answer alone."""
    with warpmem.open(dimension=2) as memory:
        for i in range(12):  # each is a little nearer than those before
            memory.add(f"note {i}", user_id="u", entities=["Ada"], vector=[1.0, 0.5 - i * 1e-4])
        ranking = warpmem.Ranking(similarity=1.0, entities=1e6)
        asked = {"user_id": "u", "vector": [1.0, 0.0], "ranking": ranking}
        many = memory.search("Ada", k=100, **asked)
        assert [hit.item.text for hit in many] == [f"note {i}" for i in reversed(range(12))]
        assert list(memory.search("Ada", k=k, **asked)) == list(many[:k])
