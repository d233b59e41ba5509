"""Arrays on the device in and out, and the cuda backend under its name, on the emulator."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import stubs
import warpmem
from emulated_cuda import emulated
from tiered_pools import DIM, Pair, healthy_device, rows
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, InputError
from warpmem.index import cuda_backend
from warpmem.index.cuda_backend import CudaBackend


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    with healthy_device():
        yield


# ---------------------------------------------------------------------------------- arrays on the device


class Interface:
    """An array that knows `__cuda_array_interface__` alone."""

    def __init__(self, array: Any, **change: Any) -> None:
        self.kept = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **change}


def test_queries_and_results_on_the_device() -> None:
    pair = Pair()
    pair.add(0, rows(200, 0))
    pair.add(1, rows(90, 1))
    pair.tiered.warm([0], wait=True)  # the host answers for the other
    queries = rows(4, 5)
    segments: Any = [(q, i, 0, [], [], None) for q in range(4) for i in (0, 1)]
    wanted = pair.native.scan(queries, segments, 6)
    (there,) = pair.tiered._cache.put([queries])
    for x in (there, Interface(there), Interface(there, strides=(4 * DIM, 4)), Interface(there, stream=None)):
        found = pair.tiered.scan(x, segments, 6, explain=True)
        assert [part.tobytes() for part in found[:5]] == [part.tobytes() for part in wanted]
        assert found[5]["device_lists"] >= 1
    for x in (queries, there):
        found = pair.tiered.scan(x, segments, 6, results="device")
        assert [part.to_host().tobytes() for part in found] == [part.tobytes() for part in wanted]
        for part, host in zip(found, wanted, strict=True):
            assert part.shape == host.shape and part.dtype == host.dtype and part.device == 0
            assert part.__cuda_array_interface__["typestr"] == host.dtype.str
            assert part.__dlpack_device__() == (2, 0)
    del there
    assert pair.check([0, 1])["device_failure"] is None


def test_arrays_on_the_device_are_checked() -> None:
    pair = Pair()
    pair.add(0, rows(70, 0))
    segments: Any = [(0, 0, 0, [], [], None)]
    put = pair.tiered._cache.put
    bad: list[tuple[Any, type[Exception], str]] = [
        (put([rows(1, 0).astype(np.float64)])[0], TypeError, "must be float32"),
        (put([rows(1, 0)[0]])[0], ValueError, "expected 2 axes, not 1"),
        (put([rows(1, 0)[:, :7]])[0], ValueError, f"expected {DIM} dimensions, not 7"),
        (put([np.full((1, DIM), np.nan, np.float32)])[0], ValueError, "queries: row 0"),
        (Interface(put([rows(2, 0)])[0], typestr="<i4"), TypeError, "must be float32"),
        (Interface(put([rows(2, 0)])[0], strides=(4, 8)), ValueError, "C-contiguous"),
        (Interface(put([rows(2, 0)])[0], shape=(2, DIM, 1)), ValueError, "not 3"),
    ]
    for x, error, match in bad:
        with pytest.raises(error, match=match):
            pair.tiered.scan(x, segments, 3)
    with pytest.raises(ValueError, match="results must be host or device"):
        pair.tiered.scan(rows(1, 0), segments, 3, results="disk")

    class Elsewhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 5)

        def __dlpack__(self, **_: Any) -> Any:
            raise AssertionError

    with pytest.raises(ValueError, match="lie on device 5, but this index uses device 0"):
        pair.tiered.scan(Elsewhere(), segments, 3)
    with pytest.raises(TypeError, match="device must be the port of a PageCache"):
        pair.native.scan(rows(1, 0), segments, 3, device=7)
    with pytest.raises(TypeError, match="pool must be the port of a pool"):
        emulated().module.PageCache(pair.tiered._cache.port(), limit=1 << 20)
    with pytest.raises(ValueError, match="limit must be within"):
        emulated().module.PageCache(pair.native.port(), limit=7)


def test_an_address_that_is_none_is_its_callers_mistake() -> None:
    """And nobody else's: the device is asked whose memory it is before it reads."""
    pair = Pair()
    pair.add(0, rows(70, 0))
    pair.tiered.warm([0], wait=True)
    segments: Any = [(0, 0, 0, [], [], None)]
    (there,) = pair.tiered._cache.put([rows(1, 0)])
    address = there.__cuda_array_interface__["data"][0]
    on_host = rows(1, 0)
    wrong = [
        {"data": (on_host.ctypes.data, False)},
        {"data": (0, False)},
        {"data": (1 << 62, False)},
        {"data": (address + (1 << 30), False)},
        {"shape": (1 << 20, DIM)},  # it begins in the device's memory, and ends elsewhere
        {"shape": (1 << 60, DIM)},
        {"shape": (-1, DIM)},
        {"stream": 0},
    ]
    for change in wrong:
        with pytest.raises(InputError, match="queries: "):
            pair.tiered.scan(Interface(there, **change), segments, 3)
        assert pair.check([0])["device_lists"] == 1
    assert pair.tiered.failure is None


class Exporter:
    """An array that is given away as the arguments say."""

    def __init__(self, array: Any, **arguments: Any) -> None:
        self.array, self.arguments = array, arguments

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**{**arguments, **self.arguments})


def test_dlpack_as_it_is_asked_for() -> None:
    pair = Pair()
    pair.add(0, rows(70, 0))
    queries = rows(2, 5)
    segments: Any = [(q, 0, 0, [], [], None) for q in range(2)]
    wanted = pair.native.scan(queries, segments, 6)
    pair.tiered.warm([0], wait=True)
    (there,) = pair.tiered._cache.put([queries])
    pair.tiered.scan(there, segments, 6)  # what a launch takes is there
    before = emulated().allocated()
    capsule = there.__dlpack__(copy=True)
    assert emulated().allocated() > before
    del capsule
    for arguments in ({"copy": True}, {"copy": False}, {"dl_device": (2, 0)}, {"max_version": (1, 0)}):
        found = pair.tiered.scan(Exporter(there, **arguments), segments, 6)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in wanted]
        del found
        gc.collect()
        assert emulated().allocated() == before
    for device in ((1, 0), (2, 1), (13, 0)):
        with pytest.raises(BufferError, match=r"lies on device \(2, 0\) and is not given to"):
            there.__dlpack__(dl_device=device)


def test_a_search_comes_behind_what_the_arrays_stream_has_to_do() -> None:
    pair = Pair()
    pair.add(0, rows(70, 0))
    pair.tiered.warm([0], wait=True)
    early, late = rows(2, 5), rows(2, 6)
    segments: Any = [(q, 0, 0, [], [], None) for q in range(2)]
    wanted = pair.native.scan(late, segments, 6)[0].tobytes()

    def write_later(array: Any, stream: int) -> None:
        address = array.__cuda_array_interface__["data"][0]
        emulated().write_later(stream, address, late.tobytes(), late.nbytes)

    for stream in (1, 2, 0x7000):
        (there,) = pair.tiered._cache.put([early])
        write_later(there, stream)
        unsaid, said = (pair.tiered.fetch(Interface(there, stream=each)) for each in (None, stream))
        assert (unsaid.host.tobytes(), said.host.tobytes()) == (early.tobytes(), late.tobytes())
        assert pair.tiered.scan(said, segments, 6)[0].tobytes() == wanted

    class Producer(Exporter):
        """Writes on the stream that it is told of, as the protocol asks for."""

        def __dlpack__(self, *, stream: int, **arguments: Any) -> Any:
            assert stream > 2
            write_later(self.array, stream)
            return super().__dlpack__(stream=stream, **arguments)

    (there,) = pair.tiered._cache.put([early])
    said = pair.tiered.fetch(Producer(there))
    assert said.host.tobytes() == late.tobytes()
    assert pair.tiered.scan(said, segments, 6)[0].tobytes() == wanted


def test_arrays_that_are_refused_are_given_back() -> None:
    pair = Pair()
    pair.add(0, rows(70, 0))
    segments: Any = [(0, 0, 0, [], [], None)]
    pair.tiered.warm([0], wait=True)
    put = pair.tiered._cache.put
    gc.collect()
    before = emulated().allocated()
    for make in (lambda: rows(1, 0).astype(np.float64), lambda: rows(1, 0)[0], lambda: rows(1, 0)[:, :7]):
        (there,) = put([make()])
        with pytest.raises((TypeError, ValueError)):
            pair.tiered.scan(Exporter(there), segments, 3)
        del there
        gc.collect()
        assert emulated().allocated() == before


# --------------------------------------------------------------------------------- the backend by its name


def test_available_says_what_is_missing() -> None:
    assert CudaBackend(module=emulated().module).available() is None
    other = CudaBackend(device=3, module=emulated().module)
    assert other.available() == "there is no CUDA device 3; choose one of 0 to 0"
    with pytest.raises(BackendUnavailable, match="cuda cannot run here: there is no CUDA device 3"):
        other.pool(4, 0)
    assert "'mmx' is not supported" in (CudaBackend("mmx", module=emulated().module).available() or "")


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_backend, "_load", lambda: (emulated().module, None))


@pytest.mark.usefixtures("by_name")
def test_an_index_on_the_device(tmp_path: Any) -> None:
    vectors = rows(6000, 1)
    options: dict[str, Any] = {"metric": "ip", "columns": {"n": "int64"}}
    index = VectorIndex(DIM, backend="cuda", vram_bytes=1 << 24, **options)
    host = VectorIndex(DIM, backend="cpu", **options)
    for each in (index, host):
        each.add(vectors, owners=np.arange(6000) % 3, attributes={"n": np.arange(6000)})
    assert index.warm([0, 1, 2], wait=True) == 3
    asked: list[dict[str, Any]] = [{}, {"owners": 1}, {"filter": {"n": {"lt": 3000}}}]

    def same(left: VectorIndex, lists: int) -> None:
        for arguments in asked:
            found = left.search(vectors[:5], 4, explain=True, **arguments)
            wanted = host.search(vectors[:5], 4, **arguments)
            assert found.ids.tobytes() == wanted.ids.tobytes()
            assert found.scores.tobytes() == wanted.scores.tobytes()
            assert found.plan is not None and found.plan["backend"] == found.plan["isa"] == "cuda"
            if lists:  # else they are loaded meanwhile
                assert found.plan["device_lists"] == (1 if "owners" in arguments else lists)

    same(index, 3)
    assert index.stats()["tiers"]["lists"] == 3 and index.stats()["backend"] == "cuda"
    for each in (index, host):
        each.remove(np.arange(0, 6000, 11))
    same(index, 3)
    index.evict(1)
    assert index.stats()["tiers"]["lists"] == 2
    index.save(tmp_path / "rows")
    loaded = VectorIndex.load(tmp_path / "rows", backend="cuda", vram_bytes=1 << 24)
    same(loaded, 0)
    assert loaded.warm([0, 1, 2], wait=True) >= 0
    same(loaded, 3)
    with pytest.raises(BackendUnavailable, match="no CUDA device 2"):
        VectorIndex(DIM, backend="cuda", device=2)
    for wrong in ({"device": -1}, {"vram_bytes": 5}, {"vram_bytes": "much"}):
        with pytest.raises(InputError):
            VectorIndex(DIM, backend="cuda", **wrong)  # type: ignore[arg-type]
    assert VectorIndex(DIM, backend="cpu").warm(3) == 0


@pytest.mark.usefixtures("by_name")
def test_a_store_on_the_device(tmp_path: Any) -> None:
    texts = [f"note {i} about {('tea', 'coffee', 'rain', 'snow', 'wind')[i % 5]}" for i in range(40)]
    hits = []
    for name in ("cuda", "cpu"):
        options: dict[str, Any] = {"backend": name, "vram_bytes": 1 << 24}
        with warpmem.open(tmp_path / name, embedder="hashing", **options) as store:
            for text in texts:
                store.add(text, user_id="u")
            found = store.search("tea and snow", user_id="u", k=9)
            hits.append([(hit.item.text, hit.score) for hit in found])
            assert f"exact scan, {name}/" in str(found.plan)
            if name == "cuda":
                emulated().fail_from(0)
                store.warm(user_id="u", wait=True)
                failed = store.search("tea and snow", user_id="u", k=9)
                assert [(hit.item.text, hit.score) for hit in failed] == hits[-1]
                assert "does not answer, the CPU does: " in str(failed.plan)
                emulated().heal()
            store.checkpoint()
        with warpmem.open(tmp_path / name, **options) as store:
            again = store.search("tea and snow", user_id="u", k=9)
            assert [hit.item.text for hit in again] == [text for text, _ in hits[-1]]
    assert [text for text, _ in hits[0]] == [text for text, _ in hits[1]]


def test_the_stub_names_what_the_module_has() -> None:
    """Where nvcc is missing no installed module is compared with the stub; this one always can be."""
    stub = (stubs.ROOT / "python" / "warpmem" / "_cuda.pyi").read_text(encoding="utf-8")
    module = emulated().module
    for name in stubs.surface(stub):
        owner: Any = module
        for part in name.split("."):
            assert hasattr(owner, part), name
            owner = getattr(owner, part)
    assert {name for name in vars(module) if not name.startswith("_")} <= stubs.surface(stub).keys()
