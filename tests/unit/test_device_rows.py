"""Vectors and results of a VectorIndex on a device, on the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from emulated_cuda import emulated
from tiered_pools import DIM, rows
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, InputError, InvalidVector, NotSupported
from warpmem.index import cuda_backend


@pytest.fixture(autouse=True)
def by_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    emulated().heal()
    yield
    emulated().heal()


class Interface:
    """An array that knows `__cuda_array_interface__` alone: nothing copies it to the host."""

    def __init__(self, array: Any, **change: Any) -> None:
        self.kept = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **change}


class Tensor:
    """An array as torch has them: DLPack, and a copy by cpu()."""

    def __init__(self, array: Any, device: int = 0) -> None:
        self.array, self.device = array, device
        self.shape, self.dtype = array.shape, f"torch.{array.dtype}"
        self.handed_over = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.device)

    def __dlpack__(self, **options: Any) -> Any:
        self.handed_over += 1
        return self.array.__dlpack__(**options)

    def cpu(self) -> Any:
        return self.array.to_host()


def put(*arrays: Any) -> Any:
    index = VectorIndex(DIM, backend="cuda", vram_bytes=1 << 24)
    copies = index._store.serving.pool.put(arrays)  # type: ignore[attr-defined]
    return copies[0] if len(copies) == 1 else copies


def pair(metric: Any, n: int = 6000) -> tuple[VectorIndex, VectorIndex]:
    """The same rows in an index on the device and in one on the host; the first from device memory."""
    index = VectorIndex(DIM, metric=metric, backend="cuda", vram_bytes=1 << 24)
    host = VectorIndex(DIM, metric=metric, backend="cpu")
    vectors = rows(n, 1)
    for each, x in ((index, put(vectors)), (host, vectors)):
        assert each.add(x, owners=np.arange(n) % 3).tolist() == list(range(n))
    index.warm([0, 1, 2], wait=True)
    return index, host


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_arrays_on_the_device_are_used_there(metric: Any) -> None:
    index, host = pair(metric)
    everything = np.arange(6000)
    assert index.vectors(everything).tobytes() == host.vectors(everything).tobytes()
    queries = rows(5, 2) * 3
    wanted = host.search(queries, 4)
    there = put(queries)
    kernel = b"scan_normalize"
    for x in (there, Interface(there), Interface(there, strides=(4 * DIM, 4)), Tensor(there), queries):
        before = emulated().launches(kernel)
        for results in ("host", "device"):
            found = index.search(x, 4, explain=True, results=results)  # type: ignore[arg-type]
            assert found.plan is not None and found.plan["device_lists"] == 3
            if results == "device":
                assert found.ids.__dlpack_device__() == found.scores.__dlpack_device__() == (2, 0)
                assert found.ids.shape == found.scores.shape == (5, 4)
            got = [part if results == "host" else part.to_host() for part in found]
            assert [part.tobytes() for part in got] == [part.tobytes() for part in wanted]
        on_device = x is not queries and metric == "cosine"
        assert emulated().launches(kernel) - before == 2 * on_device
    tensor = Tensor(there)
    index.search(tensor, 4)
    assert tensor.handed_over == 1
    ids, scores = index.search(there, 4, results="device")
    assert index.search(there, 4, filter=None, owners=99, results="device").ids.to_host().max() == -1
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    assert index.remove(put(np.arange(3))) == 3  # ids may lie there too


def test_what_the_device_cannot_use_is_copied_or_refused() -> None:
    index, host = pair("cosine", 300)
    x = rows(3, 4)
    wanted = host.search(x, 3).ids.tolist()
    copied = [
        Tensor(put(x), device=1),  # of another device
        Tensor(put(x.astype(np.float64))),
        put(x.astype(np.float64)),
    ]
    for each in copied:
        assert index.search(each, 3).ids.tolist() == wanted
    assert copied[0].handed_over == 0
    assert index.search(put(x[0]), 3).ids.tolist() == wanted[:1]
    assert host.search(put(x), 3).ids.tolist() == wanted
    bad: list[tuple[Any, str]] = [
        (put(x[:, :7].copy()), f"queries: expected {DIM} dimensions, not 7"),
        (put(np.zeros((2, DIM), np.float32)), "row 0 of 2 is all zero"),
        (put(np.full((2, DIM), np.inf, np.float32)), "in row 0 are NaN, infinite"),
        (Interface(put(x), strides=(4, 8)), "queries: Interface cannot be read"),
        (Interface(put(x), typestr="<i4"), "queries: Interface cannot be read"),
    ]
    for value, match in bad:
        with pytest.raises(InvalidVector, match=match):
            index.search(value, 3)
    plain = VectorIndex(DIM, metric="ip", backend="cuda", vram_bytes=1 << 24)
    for call in (plain.search, plain.add):
        with pytest.raises(InvalidVector, match="in row 0 are NaN"):
            call(put(np.full((2, DIM), np.nan, np.float32)))


def test_results_on_the_device_need_one() -> None:
    index, host = pair("cosine", 300)
    x = rows(1, 0)
    with pytest.raises(NotSupported, match=r'needs an exact index with backend="cuda"; .*: exact scan, cpu'):
        host.search(x, 3, results="device")
    with pytest.raises(InputError, match="results must be one of host, device"):
        index.search(x, 3, results="disk")  # type: ignore[arg-type]
    there = put(x)
    emulated().fail_from(0)
    assert index.search(x, 3).ids.shape == (1, 3)
    with pytest.raises(BackendUnavailable, match="told to fail"):
        index.search(x, 3, results="device")
    with pytest.raises(BackendUnavailable, match="told to fail"):
        index.search(there, 3)
    emulated().heal()  # but the index has not: it asks the array's library for a copy
    assert index.search(there, 3).ids.tolist() == host.search(x, 3).ids.tolist()
