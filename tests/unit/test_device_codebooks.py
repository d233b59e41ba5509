"""Codebooks and cells of an index, trained on the device of the cuda backend, on the emulator: the bits of
the host wherever that was, faults, turns. The steps alone are the business of
tests/cpp/test_kmeans_train.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulated_cuda import emulated
from tiered_pools import busy_after, healthy_device
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, InputError, InvalidVector, Overloaded
from warpmem.index import clustering, cuda_backend, ivf, kernels
from warpmem.index.clustering import Training
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.jobs.tools import Stopped
from warpmem.ops.devices import scheduler_of

SCHEDULER = scheduler_of("cuda:0")
"""Kept, or its counts would begin anew with each index."""

ZEROING = 3
"""Calls behind the last results, which overwrite what is left."""


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One, by its name, for work however little; it keeps nothing of what was trained."""
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    monkeypatch.setattr(clustering, "LEAST_WORK", 0)
    monkeypatch.setattr(clustering, "LEAST_PIECE", 0)
    with healthy_device():
        yield


def rows(n: int, dim: int, seed: int = 20_441) -> NDArray[np.float32]:
    """Of a seed that is no other suite's, whose pools stay on the device."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def counts() -> NDArray[np.int64]:
    """Turns that were taken, means that the device made, calls of it."""
    turns = SCHEDULER.stats()["served"]["background"]
    return np.array([turns, emulated().launches(b"kmeans_mean"), emulated().calls()])


@pytest.mark.parametrize(
    ("n", "dim", "pq_dim", "pq_bits", "different"),
    [
        (16, 1, 1, 4, 16), (90, 12, 4, 4, 90), (90, 10, 5, 4, 5), (40, 7, 1, 4, 1), (256, 6, 2, 8, 256),
        (300, 4, 4, 8, 60),
    ],
)  # fmt: skip
def test_the_device_gives_the_codebooks_of_the_host(
    n: int, dim: int, pq_dim: int, pq_bits: int, different: int
) -> None:
    x = rows(n, dim)[np.arange(n) % different]
    asked: dict[str, Any] = {"iterations": 4, "seed": 3}
    found = kernels.pq_train(x, pq_dim, pq_bits, backend="cuda", **asked)
    for backend in ("cpu", "numpy"):
        wanted = kernels.pq_train(x, pq_dim, pq_bits, backend=backend, **asked)  # type: ignore[arg-type]
        assert found.dtype == wanted.dtype and found.shape == (pq_dim, 1 << pq_bits, dim // pq_dim)
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("x", "pq_dim", "options"),
    [
        (np.ones((20, 6)), 4, {}),
        (np.ones((20, 6)), 0, {}),
        (np.ones((15, 6)), 2, {}),
        (np.ones((20, 6)), 2, {"pq_bits": 5}),
        (np.ones((20, 6)), 2, {"iterations": -1}),
        (np.ones((20, 6)), 2, {"seed": -1}),
        (np.ones((20, 6)), 2, {"threads": 0}),
        (np.ones((20, 0)), 2, {}),
        (np.ones(20), 2, {}),
        (np.full((20, 6), np.nan), 2, {}),
    ],
)
def test_bad_input_is_refused_as_by_the_host(x: Any, pq_dim: int, options: dict[str, Any]) -> None:
    calls, asked = emulated().calls(), {"pq_bits": 4, **options}
    with pytest.raises((InputError, InvalidVector)) as wanted:
        kernels.pq_train(x, pq_dim, backend="cpu", **asked)
    with pytest.raises(type(wanted.value)) as found:
        kernels.pq_train(x, pq_dim, backend="cuda", **asked)
    assert str(found.value) == str(wanted.value) and emulated().calls() == calls


def test_the_native_function_checks_for_itself() -> None:
    pq_train, x = emulated().module.pq_train, rows(20, 6)
    for error, match, arguments, options in (
        (TypeError, "x must be float32", (x.astype(np.float64), 2, 4), {}),
        (ValueError, "15 rows are too few for 16", (x[:15], 2, 4), {}),
        (ValueError, "pq_dim must divide the dimension: 6 dimensions, pq_dim 4", (x, 4, 4), {}),
        (ValueError, "pq_bits must be 4 or 8, not 5", (x, 2, 5), {}),
        (ValueError, "device must be within", (x, 2, 4), {"device": -1}),
        (TypeError, "between must be a function or None, not int", (x, 2, 4), {"between": 7}),
    ):
        with pytest.raises(error, match=match):
            pq_train(*arguments, **options)
    with pytest.raises(BackendUnavailable, match="there is no CUDA device 3"):
        kernels.pq_train(x, 2, 4, backend="cuda", device=3)
    with pytest.raises(InputError, match=r"of a device of backend cuda; .* auto has none"):
        kernels.pq_train(x, 2, 4, device=1)
    with pytest.raises(InputError, match=r"isa forces .* backend cuda has none"):
        kernels.pq_train(x, 2, 4, backend="cuda", isa="serial")


# -------------------------------------------------------------------------------------------------- faults


def test_a_device_that_fails_at_any_call_leaves_the_codebooks_to_the_host() -> None:
    x, before = rows(60, 6), emulated().allocated()
    wanted = Training(CpuBackend()).pq_train(x, 2, 4, iterations=2, seed=5)
    start, written = counts(), emulated().written()
    assert Training(CudaBackend()).pq_train(x, 2, 4, iterations=2, seed=5).tobytes() == wanted.tobytes()
    turns, means, calls = counts() - start
    assert turns >= 1 and means == 4 and emulated().written() == written
    for n in range(int(calls) - ZEROING):
        emulated().fail_from(n)
        found = Training(CudaBackend()).pq_train(x, 2, 4, iterations=2, seed=5)
        assert found.tobytes() == wanted.tobytes() and emulated().allocated() == before
    emulated().heal()
    emulated().fail_allocation(0)
    assert Training(CudaBackend()).pq_train(x, 2, 4, iterations=2, seed=5).tobytes() == wanted.tobytes()
    assert not emulated().holds(x[7, :3].tobytes())


def test_kernels_alone_say_that_the_device_failed() -> None:
    x = rows(60, 6)
    for n in (0, 5, 20):
        emulated().fail_from(n)
        with pytest.raises(BackendUnavailable, match="the CUDA device did not train codebooks: "):
            kernels.pq_train(x, 2, 4, iterations=2, backend="cuda")
    emulated().heal()
    emulated().capacity(1000)
    with pytest.raises(BackendUnavailable, match=r"did not train codebooks: it has no \d+ bytes"):
        kernels.pq_train(x, 2, 4, iterations=2, backend="cuda")


def test_no_module_is_the_host() -> None:
    x, start = rows(60, 6), counts()
    wanted = Training().pq_train(x, 2, 4)
    backend = CudaBackend()
    backend.available = lambda: "there is no module"  # type: ignore[method-assign]
    assert Training(backend).pq_train(x, 2, 4).tobytes() == wanted.tobytes()
    assert (counts() == start).all()


def test_too_few_rows_are_refused_as_by_the_host() -> None:
    training = Training(CudaBackend())
    with pytest.raises(InputError, match="15 rows are too few for 16"):
        training.pq_train(rows(15, 4), 2, 4)
    with pytest.raises(InputError, match="3 rows are too few for 4"):
        training.kmeans(rows(3, 4), 4)


def test_little_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of codebooks each subspace counts, and threads of the host do as much more."""
    x, training = rows(64, 8), Training(CudaBackend())
    monkeypatch.setattr(clustering, "LEAST_WORK", 64 * 8 * 5)
    monkeypatch.setattr(clustering, "LEAST_PIECE", 64 * 2 * 16)

    def by_device(work: Callable[[], object]) -> bool:
        start = counts()
        work()
        return bool(counts()[1] > start[1])

    assert by_device(lambda: training.kmeans(x, 5)) and not by_device(lambda: training.kmeans(x, 4))
    assert not by_device(lambda: training.kmeans(x, 5, threads=2))
    assert by_device(lambda: training.pq_train(x, 4, 4))
    assert not by_device(lambda: training.pq_train(x[1:], 4, 4))
    assert not by_device(lambda: training.pq_train(x, 8, 4))
    assert not by_device(lambda: training.pq_train(x, 4, 4, threads=2))


# --------------------------------------------------------------------------------------------------- turns


def test_what_is_raised_between_two_steps_ends_the_work_and_leaves_zeros() -> None:
    x, calls, written = rows(400, 32), 0, emulated().written()

    def refuse() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Overloaded("much", 1.0)

    with pytest.raises(Overloaded, match="much"):
        emulated().module.pq_train(x, 16, 4, between=refuse)
    assert calls == 2 and emulated().written() == written
    assert not emulated().holds(x[7, :2].tobytes())


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_a_busy_device_leaves_codebooks_to_the_host(monkeypatch: pytest.MonkeyPatch, granted: int) -> None:
    x = rows(400, 32)
    wanted = Training().pq_train(x, 16, 4, seed=2)
    monkeypatch.setattr(SCHEDULER, "turn", busy_after(granted, SCHEDULER.turn))
    start = counts()
    assert Training(CudaBackend()).pq_train(x, 16, 4, seed=2).tobytes() == wanted.tobytes()
    assert counts()[0] - start[0] == granted


def test_who_has_to_stop_stops_at_the_next_turn() -> None:
    x = rows(400, 32)
    for checks in (0, 1):
        left = [None] * checks

        def check(left: list[None] = left) -> None:
            if not left:
                raise Stopped
            left.pop()

        with pytest.raises(Stopped):
            Training(CudaBackend()).pq_train(x, 16, 4, check=check)
    with SCHEDULER.turn("background"):
        pass  # the device is free again


# ------------------------------------------------------------------------------------------------- indexes


def made_index(backend: str, monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> VectorIndex:
    """Trained with a device in the state that `before` leaves it in."""
    given = ivf.build_ivf.__kwdefaults__ or {}
    monkeypatch.setattr(ivf.build_ivf, "__kwdefaults__", {**given, "min_rows": 300})
    index = VectorIndex(24, backend=backend, recall=0.7, threads=1)  # type: ignore[arg-type]
    index.add(rows(400, 24))
    before()
    index.optimise()
    emulated().heal()
    assert index._store.serving.approximate
    return index


def trained(index: VectorIndex) -> tuple[bytes, ...]:
    """Codebooks, cells, and what is found by them."""
    pool: Any = index._store.serving.pool
    found = index.search(rows(5, 24, 9), 7)
    centroids = pool.centroids(0)
    return pool.codebooks.tobytes(), centroids.tobytes(), found.ids.tobytes(), found.scores.tobytes()


def test_cells_and_codebooks_are_trained_where_the_index_is(monkeypatch: pytest.MonkeyPatch) -> None:
    start = counts()
    wanted = trained(made_index("cpu", monkeypatch, lambda: None))
    assert (counts() == start).all()
    assert trained(made_index("cuda", monkeypatch, lambda: None)) == wanted
    turns, means, _ = counts() - start
    assert turns >= 2 and means > 8  # of 8 subspaces a round and more, of cells up to 6
    for n in range(0, 200, 23):
        broken = made_index("cuda", monkeypatch, lambda n=n: emulated().fail_from(n))  # type: ignore[misc]
        assert trained(broken) == wanted


def test_an_index_of_codes_is_trained_where_it_is() -> None:
    x, books = rows(500, 24), []
    for backend in ("cpu", "cuda"):
        start = counts()
        index = VectorIndex(24, storage="pq", backend=backend, threads=1)  # type: ignore[arg-type]
        index.train(x)
        pool: Any = index._store.serving.pool
        books.append(pool.codebooks.tobytes())
        assert (counts()[1] > start[1]) == (backend == "cuda")
    assert books[0] == books[1]
