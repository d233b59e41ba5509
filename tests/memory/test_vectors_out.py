"""Vectors of the hits for a model: on the device that searches, or in host memory where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from emulated_cuda import emulated
from tiered_pools import healthy_device
from warpmem import Memory, Scope
from warpmem.errors import InputError
from warpmem.index.cuda_backend import CudaBackend


class Backwards:
    """A reranker that turns the order round."""

    model_id = "backwards"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.arange(len(texts), dtype=np.float32)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    backend = CudaBackend(module=emulated().module, vram_bytes=1 << 26, least_work=0)
    monkeypatch.setattr("warpmem.compose.choose", lambda *ignored: (backend, "a test"))
    with healthy_device():
        with warpmem.open(embedder="hashing") as memory:
            memory.add([f"note {i} of the harbour" for i in range(90)], user_id="u")
            memory.warm(user_id="u", wait=True)
            yield memory
        del memory


def both(memory: Memory, **asked: Any) -> tuple[Any, NDArray[np.float32]]:
    """What "dlpack" and "numpy" give for the same search."""
    there = memory.search("note 7", user_id="u", return_vectors="dlpack", **asked)
    here = memory.search("note 7", user_id="u", return_vectors="numpy", **asked)
    assert [hit.item.id for hit in there] == [hit.item.id for hit in here]
    return there.vectors, here.vectors


def test_they_lie_on_the_device_that_searches(on_device: Memory) -> None:
    there, here = both(on_device, k=12)
    assert type(here) is np.ndarray and here.shape == (12, 256) and here.dtype == np.float32
    assert there.__dlpack_device__() == (2, 0) and there.__dlpack__() is not None
    interface = there.__cuda_array_interface__
    assert interface["shape"] == (12, 256) and interface["typestr"] == "<f4"
    np.testing.assert_array_equal(there.to_host(), here)


@pytest.mark.parametrize("where", ["numpy", "dlpack", "nowhere", True])
def test_a_context_has_none(where: Any) -> None:
    """They were copied, to the device too, and nobody had them."""
    with warpmem.open(embedder="hashing") as memory:
        memory.add("a note of the harbour", user_id="u")
        with pytest.raises(InputError, match=r"a context has no vectors: ask search"):
            memory.context("harbour", user_id="u", return_vectors=where)
        assert memory.context("harbour", user_id="u", return_vectors=None).text


def test_they_follow_the_order_of_a_reranker(on_device: Memory) -> None:
    plain, _ = both(on_device, k=20)
    turned, here = both(on_device, k=20, rerank=Backwards())
    np.testing.assert_array_equal(turned.to_host(), here)
    assert (turned.to_host() != plain.to_host()).any()


def test_of_many_searches_and_of_nothing(on_device: Memory) -> None:
    results = on_device.search_many(
        ["note 1", "note 2", "note 3"], k=3, return_vectors="dlpack",
        scopes=[Scope(user_id="u"), Scope(user_id="nobody"), Scope(user_id="u")],
    )  # fmt: skip
    assert [result.vectors.shape for result in results] == [(3, 256), (0, 256), (3, 256)]
    for result, text in zip(results, ["note 1", "note 2", "note 3"], strict=True):
        alone = on_device.search(text, user_id="u", k=3, return_vectors="numpy").vectors[: len(result)]
        np.testing.assert_array_equal(result.vectors.to_host(), alone)
    assert on_device.search_many([], scopes=[], return_vectors="dlpack") == ()


def test_they_outlive_the_store(on_device: Memory) -> None:
    there, here = both(on_device, k=4)
    on_device.close()
    np.testing.assert_array_equal(there.to_host(), here)


def test_a_device_that_fails_leaves_them_in_host_memory(on_device: Memory) -> None:
    _, here = both(on_device, k=5)
    emulated().fail_from(0)
    found = on_device.search("note 7", user_id="u", k=5, return_vectors="dlpack")
    assert type(found.vectors) is np.ndarray
    np.testing.assert_array_equal(np.from_dlpack(found.vectors), here)
    emulated().heal()


def test_no_room_on_the_device_leaves_them_in_host_memory(on_device: Memory) -> None:
    _, here = both(on_device, k=5)
    emulated().fail_allocation(0)
    found = on_device.search("note 7", user_id="u", k=5, return_vectors="dlpack")
    assert type(found.vectors) is np.ndarray
    np.testing.assert_array_equal(found.vectors, here)
    emulated().heal()
    there, here = both(on_device, k=5)
    np.testing.assert_array_equal(there.to_host(), here)


@pytest.mark.parametrize("options", [{}, {"ranking": warpmem.Ranking(similarity=1.0, diversity=0.5)}])
def test_what_is_deleted_while_one_searches_has_no_vector_of_zeros(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(dimension=8) as memory:
        rows = np.eye(8, dtype=np.float32) + 1.0
        ids = [
            added.id
            for added in memory.add_many(
                [warpmem.NewItem(text=f"t{i}", vector=row) for i, row in enumerate(rows)], user_id="u"
            )
        ]
        index: Any = memory._index
        scan, deleted = index.search, []

        def late(*arguments: Any) -> Any:
            found = scan(*arguments)
            if not deleted:
                deleted.append(ids[0])
                memory.delete(ids[0])
            return found

        monkeypatch.setattr(type(index), "search", lambda self, *arguments: late(*arguments))
        found = memory.search(vector=rows[0], user_id="u", k=3, return_vectors="numpy", **options)
        assert deleted and ids[0] not in {hit.item.id for hit in found} and len(found) == 3
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, atol=1e-6)
