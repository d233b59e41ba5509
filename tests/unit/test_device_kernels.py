"""select_k and codes on the device by themselves, on the emulator: bits of the host, wrong arguments, faults.
Kernels are the business of tests/cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulated_cuda import emulated
from tiered_pools import healthy_device
from warpmem.errors import BackendUnavailable
from warpmem.index import kernels
from warpmem.index.cuda_backend import CudaBackend


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    """It holds nothing behind a test."""
    with healthy_device():
        before = emulated().allocated()
        yield
        assert emulated().allocated() == before


def there(scores: NDArray[np.float32]) -> Any:
    """A copy on the device."""
    pool: Any = CudaBackend(module=emulated().module, vram_bytes=1 << 20).pool(1, 0)
    return pool.put([scores])[0]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 40), (2, 5000), (70, 33), (1, 40_000)])
@pytest.mark.parametrize("k", [1, 10, 100, 700])
def test_the_device_gives_the_bits_of_the_host(rows: int, columns: int, k: int):
    random = np.random.default_rng(k + columns)
    scores = random.integers(-50, 50, (rows, columns)).astype(np.float32)  # with many equal ones
    scores[0, :: 1 + columns // 3] = np.inf
    selection = emulated().module.Selection(rows, columns, k)
    for _ in range(2):
        found = [part.to_host() for part in selection(there(scores))]
        for part, wanted in zip(found, kernels.select_k(scores, k, backend="cpu"), strict=True):
            assert part.dtype == wanted.dtype and part.tobytes() == wanted.tobytes()
        scores = np.ascontiguousarray(scores[:, ::-1])


def test_what_cannot_be_selected_is_refused():
    module = emulated().module
    for shape in ((0, 5, 1), (5, 0, 1), (5, 5, 0), (5, 5, 4097)):
        with pytest.raises(ValueError, match="must be within"):
            module.Selection(*shape)
    with pytest.raises(TypeError, match="rows must be an integer"):
        module.Selection(2.5, 5, 1)
    with pytest.raises(BackendUnavailable, match="no CUDA device 3"):
        module.Selection(5, 5, 1, device=3)
    selection = module.Selection(2, 6, 3)
    with pytest.raises(ValueError, match=r"scores: expected shape \(2, 6\), not \(2, 7\)"):
        selection(there(np.zeros((2, 7), np.float32)))
    with pytest.raises(TypeError):
        selection(np.zeros((2, 6), np.float32))
    scores = np.zeros((2, 6), np.float32)
    scores[1, 4] = np.nan
    with pytest.raises(ValueError, match="scores: row 1 holds a NaN"):
        selection(there(scores))
    assert selection(there(np.zeros((2, 6), np.float32)))[1].to_host().tolist() == [[0, 1, 2]] * 2


def test_results_stay_when_the_selection_is_gone():
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    values, indexes = emulated().module.Selection(2, 6, 2)(there(scores))
    assert values.to_host().tolist() == [[5, 4], [11, 10]]
    assert indexes.to_host().tolist() == [[5, 4]] * 2
    del values, indexes


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "dim", "pq_dim"), [(300, 24, 3), (257, 24, 24), (1000, 40, 5)])
def test_the_device_encodes_as_the_host(rows: int, dim: int, pq_dim: int, bits: int):
    x = np.random.default_rng(rows).standard_normal((rows, dim), dtype=np.float32)
    books = kernels.pq_train(x, pq_dim, bits, iterations=2, seed=1)
    encoder = emulated().module.Encoder(books, rows)
    for _ in range(2):
        found, wanted = encoder(there(x)).to_host(), kernels.pq_encode(x, books, backend="cpu")
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
        x = np.ascontiguousarray(x[::-1])


def test_what_cannot_be_encoded_is_refused():
    module, books = emulated().module, np.zeros((3, 16, 4), np.float32)
    with pytest.raises(ValueError, match="must be within"):
        module.Encoder(books, 0)
    with pytest.raises(ValueError, match="expected 16 or 256 entries"):
        module.Encoder(np.zeros((3, 7, 4), np.float32), 5)
    with pytest.raises(BackendUnavailable, match="no CUDA device 3"):
        module.Encoder(books, 5, device=3)
    with pytest.raises(ValueError, match=r"x: expected shape \(5, 12\), not \(5, 13\)"):
        module.Encoder(books, 5)(there(np.zeros((5, 13), np.float32)))


def selecting() -> Any:
    return emulated().module.Selection(2, 6, 2)


def encoding() -> Any:
    return emulated().module.Encoder(np.eye(16, 6, dtype=np.float32)[None], 2)


@pytest.mark.parametrize("make", [selecting, encoding])
def test_a_device_that_fails_at_any_call_is_a_typed_error_and_keeps_nothing(make: Callable[[], Any]):
    rows = there(np.arange(12, dtype=np.float32).reshape(2, 6))
    before, made = emulated().allocated(), emulated().calls()
    kernel = make()
    asked = emulated().calls()
    found = kernel(rows)
    making, asking = asked - made, emulated().calls() - asked
    whole = _bytes(found)
    del found
    assert making >= 3 and asking >= 1
    for n in range(asking):
        emulated().fail_from(n)
        with pytest.raises(BackendUnavailable):
            kernel(rows)
        emulated().heal()
        assert _bytes(kernel(rows)) == whole
    del kernel
    for n in range(making):
        emulated().fail_from(n)
        with pytest.raises(BackendUnavailable):
            make()
        emulated().heal()
        assert emulated().allocated() == before


def _bytes(found: Any) -> list[bytes]:
    return [part.to_host().tobytes() for part in (found if isinstance(found, tuple) else (found,))]
