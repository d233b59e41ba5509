"""k-means on the device of the cuda backend, on the emulator: equal bits, faults, turns. Its steps alone are
the business of tests/cpp/test_kmeans_train.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emulated_cuda import emulated
from gated_devices import wait_for
from tiered_pools import busy_after, healthy_device
from warpmem.errors import BackendUnavailable, DeadlineExceeded, InputError, InvalidVector, Overloaded
from warpmem.index import clustering, cuda_backend, kernels
from warpmem.index.clustering import cluster_by
from warpmem.index.cpu import CpuBackend
from warpmem.index.cuda_backend import CudaBackend
from warpmem.jobs.tools import Stopped
from warpmem.ops.cancel import Cancellation, current
from warpmem.ops.devices import scheduler_of


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One, by its name; it holds nothing behind a test, and nothing that was given back with rows in it."""
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))
    with healthy_device():
        before = emulated().allocated()
        yield
        assert emulated().allocated() == before


def rows(n: int, dim: int, seed: int, *, different: int | None = None) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return found if different is None else found[np.arange(n) % different]


def same(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> None:
    for part, expected in zip(found, wanted, strict=True):
        assert np.asarray(part).dtype == np.asarray(expected).dtype
        assert np.asarray(part).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(
    ("n", "dim", "k", "different", "sample"),
    [
        (1, 1, 1, None, None),
        (120, 33, 1, None, None),
        (60, 16, 60, None, None),
        (150, 20, 12, None, 40),
        (90, 7, 70, None, 90),
        (90, 8, 30, 5, None),  # 25 clusters stay empty, or take what is served worst
        (40, 3, 9, 1, None),
    ],
)
def test_the_device_gives_the_bits_of_the_host(
    n: int, dim: int, k: int, different: int | None, sample: int | None, spherical: bool, init: Any
) -> None:
    x = rows(n, dim, n + k, different=different)
    options: dict[str, Any] = {
        "iterations": 6, "seed": 3, "init": init, "sample": sample, "spherical": spherical,
    }  # fmt: skip
    written = emulated().written()
    found = kernels.kmeans(x, k, backend="cuda", **options)
    same(found, kernels.kmeans(x, k, backend="cpu", **options))
    for part in (x, x[:0]):
        same(
            kernels.kmeans_assign(part, found[0], spherical=spherical, backend="cuda"),
            kernels.kmeans_assign(part, found[0], spherical=spherical, backend="cpu"),
        )
    assert emulated().written() == written


BAD: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (kernels.kmeans, (np.ones((5, 3)), 6), {}),
    (kernels.kmeans, (np.ones((5, 0)), 2), {}),
    (kernels.kmeans, (np.ones(5), 2), {}),
    (kernels.kmeans, (np.ones((5, 3), np.int32), 2), {}),
    (kernels.kmeans, (np.ones((5, 3)), 0), {}),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"sample": 1}),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"init": "best"}),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"seed": -1}),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"iterations": -1}),
    (kernels.kmeans, (np.ones((5, 3)), 2), {"threads": 0}),
    (kernels.kmeans, (np.full((5, 3), np.nan), 2), {}),
    (kernels.kmeans, (np.full((5, 3), 1e300), 2), {}),
    (kernels.kmeans_assign, (np.ones((5, 3)), np.ones((2, 4))), {}),
    (kernels.kmeans_assign, (np.ones((5, 3)), np.ones((0, 3))), {}),
    (kernels.kmeans_assign, (np.ones((5, 3)), np.full((2, 3), np.inf)), {}),
    (kernels.kmeans_assign, (np.full((5, 3), np.inf), np.ones((2, 3))), {}),
]


@pytest.mark.parametrize(("kernel", "arguments", "options"), BAD)
def test_bad_input_is_refused_as_by_the_host(kernel: Any, arguments: Any, options: dict[str, Any]) -> None:
    calls = emulated().calls()
    with pytest.raises((InputError, InvalidVector)) as wanted:
        kernel(*arguments, backend="cpu", **options)
    with pytest.raises(type(wanted.value)) as found:
        kernel(*arguments, backend="cuda", **options)
    assert str(found.value) == str(wanted.value) and emulated().calls() == calls


def test_the_native_functions_check_for_themselves() -> None:
    kmeans, x = emulated().module.kmeans, rows(5, 3, 1)
    for error, match, arguments, options in (
        (TypeError, "x must be float32", (x.astype(np.float64), 2), {}),
        (ValueError, "5 rows are too few for 6", (x, 6), {}),
        (ValueError, "device must be within", (x, 2), {"device": -1}),
        (TypeError, "spherical must be a bool", (x, 2), {"spherical": 1}),
        (TypeError, "between must be a function or None, not int", (x, 2), {"between": 7}),
        (ValueError, "init must be", (x, 2), {"init": 7}),
    ):
        with pytest.raises(error, match=match):
            kmeans(*arguments, **options)


def test_what_has_no_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(9, 2, 1)
    with pytest.raises(BackendUnavailable, match="there is no CUDA device 3"):
        kernels.kmeans(x, 2, backend="cuda", device=3)
    with pytest.raises(BackendUnavailable, match="there is no CUDA device 3; 1 can be used"):
        emulated().module.kmeans(x, 2, device=3)
    with pytest.raises(InputError, match=r"of a device of backend cuda; .* auto has none"):
        kernels.kmeans_assign(x, x[:2], device=1)
    with pytest.raises(InputError, match=r"isa forces .* backend cuda has none"):
        kernels.kmeans(x, 2, backend="cuda", isa="serial")
    for refused in (kernels.pq_encode, kernels.pq_lut):
        with pytest.raises(InputError, match="backend cuda has kmeans, kmeans_assign and pq_train only"):
            refused(x, np.ones((2, 16, 1)), backend="cuda")
    monkeypatch.setattr(cuda_backend, "_load", lambda: (None, "there is no module"))
    with pytest.raises(BackendUnavailable, match="cuda cannot run here: there is no module"):
        kernels.kmeans(x, 2, backend="cuda")


# ------------------------------------------------------------------------------------------------- faults

_ZEROING = 3
"""Calls behind the results, which overwrite what is left."""


def test_a_device_that_fails_at_any_call_is_a_typed_error_and_keeps_nothing() -> None:
    x = rows(60, 9, 1, different=4)
    centroids = x[:3].copy()
    before = emulated().allocated()
    for work in (
        lambda: kernels.kmeans(x, 8, iterations=2, sample=50, backend="cuda"),
        lambda: kernels.kmeans_assign(x, centroids, backend="cuda"),
    ):
        calls = emulated().calls()
        wanted = work()
        needed = emulated().calls() - calls - _ZEROING
        for n in range(needed):
            emulated().fail_from(n)
            with pytest.raises(BackendUnavailable, match="the CUDA device did not do k-means: "):
                work()
            assert emulated().allocated() == before
        emulated().fail_from(needed)
        same(work(), wanted)
        emulated().heal()
        assert needed > 8


def test_a_device_without_memory_keeps_nothing_of_the_rows() -> None:
    x = rows(60, 9, 1)
    emulated().fail_allocation(0)
    with pytest.raises(BackendUnavailable, match=r"did not do k-means: it has no \d+ bytes"):
        kernels.kmeans(x, 8, backend="cuda")
    emulated().capacity(1000)
    with pytest.raises(BackendUnavailable, match=r"did not do k-means: it has no \d+ bytes"):
        kernels.kmeans_assign(x, x[:3], backend="cuda")
    emulated().heal()
    same(kernels.kmeans(x, 8, backend="cuda"), kernels.kmeans(x, 8))
    assert not emulated().holds(x[7].tobytes())


# -------------------------------------------------------------------------------------------------- turns


def test_what_is_raised_between_two_pieces_ends_the_work_and_leaves_zeros() -> None:
    x, written, calls = rows(400, 16, 1), emulated().written(), 0

    def refuse() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            assert emulated().holds(x[7].tobytes())
            raise Overloaded("much", 1.0)

    with pytest.raises(Overloaded, match="much"):
        emulated().module.kmeans(x, 200, between=refuse)
    assert calls == 2 and emulated().written() == written
    assert not emulated().holds(x[7].tobytes())


class Clustering:
    """Clusters of 400 rows on the device, compared with the host's."""

    def __init__(self) -> None:
        self.scheduler = scheduler_of("cuda:0")
        self.x = rows(400, 16, 1)
        self.x /= np.linalg.norm(self.x, axis=1, keepdims=True)
        self.wanted = cluster_by(CpuBackend())(self.x, 200)

    def run(self) -> tuple[int, int]:
        """Turns that were taken, and how often the device made means."""
        before = self._counts()
        found = cluster_by(CudaBackend())(self.x, 200)
        emulated().heal()
        assert found.dtype == np.int32 and found.tobytes() == self.wanted.tobytes()
        turns, means = self._counts()
        return turns - before[0], means - before[1]

    def _counts(self) -> tuple[int, int]:
        return self.scheduler.stats()["served"]["background"], emulated().launches(b"kmeans_mean")


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> Clustering:
    monkeypatch.setattr(clustering, "LEAST_WORK", 0)
    return Clustering()


def test_clusters_are_made_where_the_index_is_in_turns(clusters: Clustering) -> None:
    turns, means = clusters.run()
    assert turns > 1 and means > 1


def test_the_host_makes_the_clusters_that_the_device_cannot(
    clusters: Clustering, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated().fail_allocation(0)
    assert clusters.run() == (1, 0)
    emulated().fail_from(0)
    assert clusters.run() == (1, 0)
    emulated().fail_from(80)  # among the starts
    turns, means = clusters.run()
    assert turns >= 1 and means == 0
    monkeypatch.setattr(cuda_backend, "_load", lambda: (None, "there is no module"))
    assert clusters.run() == (0, 0)


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_host_makes_the_clusters_that_a_busy_device_refuses(
    clusters: Clustering, monkeypatch: pytest.MonkeyPatch, granted: int
) -> None:
    monkeypatch.setattr(clusters.scheduler, "turn", busy_after(granted, clusters.scheduler.turn))
    written = emulated().written()
    assert clusters.run() == (granted, 0)
    assert emulated().written() == written and not emulated().holds(clusters.x[7].tobytes())


@pytest.mark.parametrize("patient", [False, True])
def test_the_host_makes_the_clusters_that_a_device_leaves_waiting(
    clusters: Clustering, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    """Turns of a device that others keep busy were waited for, however long that took."""
    if not patient:
        monkeypatch.setattr(clustering, "PATIENCE", 0.05)
    with ThreadPoolExecutor(1) as pool:
        with clusters.scheduler.turn("interactive"):
            run = pool.submit(clusters.run)
            if patient:
                wait_for(clusters.scheduler, 1)
            else:
                assert run.result(60) == (0, 0)
        turns, means = run.result(60)
    assert bool(turns) == bool(means) == patient
    assert clusters.run()[0] > 1, "the device is free again"


def test_who_gives_up_while_a_device_leaves_him_waiting_gets_no_clusters(clusters: Clustering) -> None:
    cancellation = Cancellation()

    def cluster() -> None:
        current.set(cancellation)
        cluster_by(CudaBackend())(clusters.x, 200)

    with ThreadPoolExecutor(1) as pool, clusters.scheduler.turn("interactive"):
        waiting = pool.submit(cluster)
        wait_for(clusters.scheduler, 1)
        cancellation.cancel()
        with pytest.raises(DeadlineExceeded):
            waiting.result(60)


@pytest.mark.parametrize("checks", [0, 1, 2])
def test_who_has_to_stop_stops_at_the_next_turn(clusters: Clustering, checks: int) -> None:
    left, written, means = checks, emulated().written(), emulated().launches(b"kmeans_mean")

    def check() -> None:
        nonlocal left
        if left == 0:
            raise Stopped
        left -= 1

    with pytest.raises(Stopped):
        cluster_by(CudaBackend())(clusters.x, 200, check=check)
    with pytest.raises(Stopped):
        cluster_by(CpuBackend())(clusters.x, 200, check=check)
    assert emulated().launches(b"kmeans_mean") == means
    assert emulated().written() == written and not emulated().holds(clusters.x[7].tobytes())
    assert clusters.run()[0] > 1, "the device is free again"


def test_little_is_the_hosts() -> None:
    x, calls = rows(300, 16, 1), emulated().calls()
    wanted = cluster_by(CpuBackend())(x, 50)
    assert cluster_by(CudaBackend())(x, 50).tobytes() == wanted.tobytes()
    assert emulated().calls() == calls
