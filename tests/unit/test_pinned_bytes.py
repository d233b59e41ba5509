"""Codes of all owners on the device and full rows of those who are asked for most, on the emulator, by the
public settings; and what these are where nobody says."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from emulated_cuda import emulated
from tiered_pools import healthy_device
from warpmem import Config, VectorIndex
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError
from warpmem.index import cuda_backend, device_options
from warpmem.index.cuda_backend import CudaBackend
from warpmem.ops import host_memory

DIM, ROWS, OWNERS = 384, 64, 25
VRAM, PINNED = 2 << 20, 8 << 20
HOT = [20, 22, 24]


@pytest.fixture(autouse=True)
def by_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    given = CudaBackend.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(CudaBackend.__init__, "__kwdefaults__", {**given, "least_work": 0})
    with healthy_device():
        yield


def test_codes_of_all_owners_and_rows_of_the_hot_ones(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((OWNERS * ROWS, DIM)).astype(np.float32)
    owners = np.arange(len(rows)) // ROWS
    assert rows.nbytes > VRAM
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": VRAM, "pinned_bytes": PINNED}
    index = VectorIndex(DIM, metric="ip", **options)
    host = VectorIndex(DIM, metric="ip", backend="cpu")
    for each in (index, host):
        each.add(rows, owners=owners)
    everyone = np.arange(OWNERS)

    def same(searched: VectorIndex, owners: Any, lists: int | None) -> None:
        queries = rows[:2] + 1
        found = searched.search(queries, 9, owners=owners, explain=True)
        wanted = host.search(queries, 9, owners=owners)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in wanted]
        assert found.plan is not None
        assert lists is None or found.plan["device_lists"] == lists

    index.warm(everyone, wait=True)
    for _ in range(40):
        for owner in HOT:
            same(index, owner, 1)
    index.warm([], wait=True)
    same(index, None, OWNERS)
    held = index.stats()["tiers"]
    whole = held["lists"] - held["codes_lists"]
    assert held["lists"] == OWNERS and 5 < whole < 15 and held["refused"] == 0
    assert held["allocated"] <= VRAM and held["limit"] == VRAM
    assert 0 < held["pinned"] <= PINNED and held["pinned_limit"] == PINNED
    there = [owner for owner in everyone if emulated().holds(rows[owner * ROWS + 5].tobytes())]
    assert len(there) == whole and set(HOT) < set(there)

    index.save(tmp_path / "rows")
    loaded = VectorIndex.load(tmp_path / "rows", **options)
    loaded.warm(everyone, wait=True)
    same(loaded, None, OWNERS)
    without = VectorIndex.load(tmp_path / "rows", **{**options, "pinned_bytes": 0})
    without.warm(everyone, wait=True)
    same(without, None, None)
    held = without.stats()["tiers"]
    assert held["lists"] < OWNERS and (held["codes_lists"], held["pinned"], held["pinned_limit"]) == (0, 0, 0)


def test_who_is_warmed_has_his_rows_there_when_the_device_is_full() -> None:
    rows = np.random.default_rng(1).standard_normal((OWNERS * ROWS, DIM)).astype(np.float32)
    index = VectorIndex(DIM, metric="ip", backend="cuda", vram_bytes=VRAM, pinned_bytes=PINNED)
    index.add(rows, owners=np.arange(len(rows)) // ROWS)
    index.warm(np.arange(OWNERS - 1), wait=True)
    for _ in range(5):
        for owner in range(OWNERS - 1):
            index.search(rows[:1], 3, owners=owner)
    before = index.stats()["tiers"]
    index.warm([OWNERS - 1], wait=True)
    assert emulated().holds(rows[-5].tobytes())
    after = index.stats()["tiers"]
    assert after["evictions"] - before["evictions"] == 1 and after["lists"] == OWNERS
    assert after["codes_lists"] - before["codes_lists"] == 1


def test_a_store_says_what_it_keeps_of_whom() -> None:
    options: dict[str, Any] = {"backend": "cuda", "vram_bytes": 1 << 20, "pinned_bytes": 4 << 20}
    notes = [f"note {i} of the harbour" for i in range(20)]
    with warpmem.open(embedder="hashing", **options) as store:
        for user in range(16):
            store.add(notes, user_id=f"u{user}")
        for user in range(16):
            store.warm(user_id=f"u{user}", wait=True)
        held = store.stats().device
        assert held["lists"] == 16 > held["codes_lists"] > 0
        assert held["pinned_limit"] == 4 << 20 >= held["pinned"] > 0
        found = [
            [(hit.item.text, hit.score) for hit in store.search("note 7", user_id=f"u{user}", mode="dense")]
            for user in range(16)
        ]
        assert store.stats().device["searches"] == 16
        told = store.metrics().splitlines()
    for name, key in (("lists", "lists"), ("codes_lists", "codes_lists"), ("pinned_limit", "pinned_limit")):
        assert f"warpmem_device_{name} {held[key]}" in told
    with warpmem.open(embedder="hashing", backend="cpu") as store:
        store.add(notes, user_id="u")
        wanted = [(hit.item.text, hit.score) for hit in store.search("note 7", user_id="u", mode="dense")]
    assert all(each == wanted for each in found)


@pytest.mark.parametrize("pinned", [1, 4096, 200_000])
def test_a_tiny_limit_costs_no_list(pinned: int) -> None:
    rows = np.random.default_rng(1).standard_normal((OWNERS * ROWS, DIM)).astype(np.float32)
    held = []
    for given in (0, pinned):
        index = VectorIndex(DIM, metric="ip", backend="cuda", vram_bytes=3 << 20, pinned_bytes=given)
        index.add(rows, owners=np.arange(len(rows)) // ROWS)
        index.warm(np.arange(OWNERS), wait=True)
        held.append(index.stats()["tiers"])
    without, little = held
    assert little["lists"] >= without["lists"] > OWNERS // 2
    page = ROWS * DIM * 4
    assert little["pinned_limit"] == (pinned if pinned >= page else 0)
    assert little["codes_lists"] == pinned // page


@pytest.fixture
def eighth(monkeypatch: pytest.MonkeyPatch) -> int:
    """Of what the host has available, of which nobody was promised anything yet."""
    monkeypatch.setattr(device_options.host_memory, "available", lambda: 80 << 20)
    monkeypatch.setattr(device_options, "_promised", weakref.WeakSet())
    return 10 << 20


def limit(index: VectorIndex) -> int:
    return int(index.stats()["tiers"]["pinned_limit"])


def test_the_usual_is_half_of_what_is_left_of_an_eighth_of_what_the_host_has_available(eighth: int) -> None:
    def make(**given: int) -> VectorIndex:
        return VectorIndex(DIM, backend="cuda", vram_bytes=VRAM, **given)

    made = [make() for _ in range(4)]
    assert [limit(index) for index in made] == [eighth >> n for n in range(1, 5)]
    assert [limit(make(pinned_bytes=given)) for given in (PINNED, 0)] == [PINNED, 0]
    made += [make() for _ in range(6)]
    assert sum(limit(index) for index in made) <= eighth
    del made
    gc.collect()
    assert limit(make()) == eighth // 2


def test_a_store_has_a_limit_for_each_index_and_tells_of_all(eighth: int) -> None:
    others = {"code": HashingEmbedder(512), "log": HashingEmbedder(256)}
    options: dict[str, Any] = {"embedder": "hashing", "embedders": others, "backend": "cuda"}
    for given, limits in (({}, eighth // 2 + eighth // 4), ({"pinned_bytes": 4 << 20}, 8 << 20)):
        with warpmem.open(vram_bytes=VRAM, **options, **given) as store:
            store.add("a note", user_id="u")
            alone = store.stats().device
            assert alone["limit"] == VRAM
            store.add(code="a = 1", user_id="u")
            store.warm(user_id="u", wait=True)
            held = store.stats().device
            assert (held["limit"], held["pinned_limit"]) == (2 * VRAM, limits)
            assert held["lists"] == 2 and held["failure"] is None and held["device"] == 0
            assert f"warpmem_device_pinned_limit {limits}" in store.metrics().splitlines()
        del store
        gc.collect()


def test_host_memory_goes_back_with_the_owners() -> None:
    rows = np.random.default_rng(1).standard_normal((OWNERS * ROWS, DIM)).astype(np.float32)
    index = VectorIndex(DIM, metric="ip", backend="cuda", vram_bytes=VRAM, pinned_bytes=PINNED)
    index.add(rows, owners=np.arange(len(rows)) // ROWS)
    index.warm(np.arange(OWNERS), wait=True)
    assert index.stats()["tiers"]["pinned"] > 0
    index.evict(np.arange(OWNERS))
    assert index.stats()["tiers"]["pinned"] == 0


@pytest.mark.parametrize("wrong", [-1, True, "much", 1.5])
@pytest.mark.parametrize("name", ["pinned_bytes", "rebuild_ms"])
def test_settings_are_checked(name: str, wrong: Any) -> None:
    for make in (lambda **given: VectorIndex(4, backend="cpu", **given), Config, warpmem.open):
        with pytest.raises(InputError, match=name):
            make(**{name: wrong})


# ------------------------------------------------------------------------------------- the host's memory


def test_this_machine_says_what_it_has() -> None:
    assert 0 < host_memory.available() < 1 << 50


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 0),
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 5000 kB\n"}, 5000 << 10),
        (
            {
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "proc/self/cgroup": "0::/team/job\n",
                "sys/fs/cgroup/team/job/memory.max": "max\n",
                "sys/fs/cgroup/team/memory.max": "3000000\n",
                "sys/fs/cgroup/team/memory.current": "1000000\n",
            },
            2000000,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "proc/self/cgroup": "3:cpu:/a\n2:memory:/docker/1f\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "800\n",
            },
            0,
        ),
        (
            {  # most of what is used are files that were read
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "proc/self/cgroup": "0::/job\n",
                "sys/fs/cgroup/job/memory.max": "3000000\n",
                "sys/fs/cgroup/job/memory.current": "2900000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 500000\nactive_file 7\n\ninactive_file 2000000\n",
                "sys/fs/cgroup/memory.max": "9000000\n",
                "sys/fs/cgroup/memory.current": "8000000\n",
                "sys/fs/cgroup/memory.stat": "inactive_file 6000000\n",
            },
            2100000,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "proc/self/cgroup": "2:memory:/docker/1f\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "700\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "800\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 9\ntotal_inactive_file 300\n",
            },
            200,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "700\n",
                "sys/fs/cgroup/memory.current": "100\n",
                "sys/fs/cgroup/memory.stat": "inactive_file\n",
            },
            600,
        ),
        ({"proc/meminfo": "MemAvailable: 7 kB\n", "proc/self/cgroup": "nothing\n"}, 7 << 10),
    ],
)
def test_what_is_available(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host_memory.available(tmp_path) == expected
