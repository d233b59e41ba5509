"""What bench/gpu asks of FAISS and cuVS, of stand-ins that refuse what the packages refuse: NumPy is CuPy."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "gpu"
DIM, ROWS, QUERIES, K = 16, 300, 6, 5


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture(autouse=True)
def like_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    import checks

    module: Any = ModuleType("cupy")
    vars(module).update({name: getattr(np, name) for name in dir(np) if not name.startswith("_")})
    module.cuda = SimpleNamespace(Device=lambda: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(checks, "largest", lambda xp, scores, k: by_sorting(scores, k))
    return module


def by_sorting(scores: Any, k: int) -> tuple[Any, Any]:
    places = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, places, axis=1), places


class LikeCuvs:
    """Rows scored by rounded products, the more so the smaller the types; what does not suit is refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.searches: list[dict[str, Any]] = []
        self.refuses: dict[str, Any] = {}
        self.resources = SimpleNamespace(sync=lambda: None)
        ivf_pq = SimpleNamespace(
            IndexParams=dict,
            SearchParams=dict,
            build=lambda params, rows, resources: rows,
            search=self.search,
        )
        for name, parts in {
            "cuvs": {},
            "cuvs.common": {"Resources": lambda: self.resources},
            "cuvs.neighbors": {"ivf_pq": ivf_pq, "refine": self.refine},
        }.items():
            module = ModuleType(name)
            vars(module).update(parts)
            monkeypatch.setitem(sys.modules, name, module)

    def search(self, params: Any, rows: Any, queries: Any, k: int, resources: Any) -> tuple[Any, Any]:
        assert set(params) <= {"n_probes", "lut_dtype", "internal_distance_dtype", "coarse_search_dtype"}
        if self.refuses.items() & params.items():
            raise RuntimeError("no such type")
        self.searches.append(params)
        rounded = (queries.astype(np.float32) @ rows.astype(np.float32).T).round(1)
        scores, ids = by_sorting(rounded, min(k, len(rows)))
        return scores, ids.astype(np.int64)

    def refine(
        self, rows: Any, queries: Any, ids: Any, k: int, metric: str, resources: Any
    ) -> tuple[Any, Any]:
        if rows.dtype != queries.dtype:
            raise RuntimeError("type mismatch between dataset and queries")
        exact = np.einsum("qd,qkd->qk", queries.astype(np.float32), rows[ids].astype(np.float32))
        scores, places = by_sorting(exact, k)
        return scores, np.take_along_axis(ids, places, axis=1)


def ivf_pq_of(recall: float) -> dict[str, Any]:
    import peer_process

    spec = {
        "rows": ROWS, "dim": DIM, "seed": 1, "query_seed": 2, "queries": QUERIES, "k": K, "recall": recall,
        "cells": 4, "pq_dim": 4, "batches": [1, QUERIES], "fraction": 1.0,
    }  # fmt: skip
    return dict(peer_process.cuvs_ivf_pq(spec))


def test_codes_of_cuvs_are_refined_with_queries_of_the_rows_type(monkeypatch: pytest.MonkeyPatch):
    """Of another type they are refused, and nothing of cuVS would be told."""
    cuvs = LikeCuvs(monkeypatch)
    told = ivf_pq_of(0.9)
    assert "failures" not in told and told["build_seconds"] >= 0.0
    for case in ("1", "1, device arrays", str(QUERIES), f"{QUERIES}, device arrays"):
        assert told[case]["ms"] > 0 and told[case]["recall"] >= 0.9
        assert told[case]["setting"][1] > 1  # what is rounded so does not reach that by itself
    assert {params.get("lut_dtype") for params in cuvs.searches} == {np.float16, np.uint8}


def test_types_that_cuvs_refuses_leave_the_others(monkeypatch: pytest.MonkeyPatch):
    cuvs = LikeCuvs(monkeypatch)
    cuvs.refuses = {"lut_dtype": np.uint8}
    told = ivf_pq_of(0.5)
    (failure,) = told["failures"].values()
    assert failure == "RuntimeError: no such type" and told["1"]["types"]["lut_dtype"] == "float16"
    cuvs.refuses = {"lut_dtype": np.float16}
    assert ivf_pq_of(0.5)["1"]["types"]["lut_dtype"] == "uint8"
    cuvs.refuses = {}
    with pytest.raises(RuntimeError, match="no setting reaches the recall"):
        ivf_pq_of(1.1)


class Lists:
    """Inverted lists that do not grow."""

    def __init__(self) -> None:
        self.codes: dict[int, Any] = {}

    def resize(self, owner: int, n: int) -> None:
        assert owner not in self.codes
        self.codes[owner] = np.zeros((n, 2 * DIM), np.uint8), np.full(n, -1, np.int64)

    def update_entries(self, owner: int, place: int, n: int, ids: Any, codes: Any) -> None:
        held_codes, held_ids = self.codes[owner]
        assert (held_ids[place : place + n] == -1).all() and len(ids) == n
        held_codes[place : place + n], held_ids[place : place + n] = codes, ids


def test_lists_of_faiss_have_their_size_before_they_are_filled(
    monkeypatch: pytest.MonkeyPatch, like_cupy: Any
):
    """Lists that grow take up to twice the memory of their rows, which the host of all owners has not."""
    import data
    import peer_process

    monkeypatch.setattr(data, "CHUNK", 64)
    faiss: Any = ModuleType("faiss")
    lists = Lists()

    def search_preassigned(asked: Any, k: int, owners: Any, distances: Any) -> tuple[Any, Any]:
        found = []
        for query, (owner,) in zip(asked, owners, strict=True):
            codes, ids = lists.codes[owner]
            scores = codes.view(np.float16).astype(np.float32) @ query
            found.append(ids[np.argsort(-scores)[:k]])
        return None, np.array(found)

    host = SimpleNamespace(invlists=lists)
    faiss.IndexFlatIP = lambda dim: SimpleNamespace(add=lambda rows: None)
    faiss.ScalarQuantizer, faiss.METRIC_INNER_PRODUCT = SimpleNamespace(QT_fp16=1), 0
    faiss.IndexIVFScalarQuantizer = lambda *given: host
    faiss.StandardGpuResources = lambda: None
    faiss.GpuIndexIVFScalarQuantizerConfig = SimpleNamespace
    faiss.GpuIndexIVFScalarQuantizer = lambda *given: SimpleNamespace(search_preassigned=search_preassigned)
    faiss.swig_ptr = lambda array: array
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    sizes = [70, 5, 130, 9]
    told = dict(peer_process.faiss_owners({"dim": DIM, "sizes": sizes, "seed": 3, "query_seed": 4, "k": 3}))
    assert told["search_preassigned"] > 0
    rows = data.mixture(like_cupy, sum(sizes), DIM, 3, dtype=np.float16)
    held = [lists.codes[owner] for owner in range(len(sizes))]
    assert np.array_equal(np.concatenate([ids for _, ids in held]), np.arange(sum(sizes)))
    assert np.concatenate([codes for codes, _ in held]).tobytes() == rows.tobytes()
