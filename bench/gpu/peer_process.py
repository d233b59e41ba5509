"""faiss or cuvs, alone in a process, on the data that measure.py has.

    PYTHONPATH=~/peer-site:bench/gpu python bench/gpu/peer_process.py cuvs exact '{"rows": 1000, ...}'

prints a line with a JSON object for each case as soon as it is measured: its milliseconds; of ivf_pq also
setting and recall.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]
Told = Iterator[tuple[str, Any]]
ROUNDS = 9
ON_DEVICE = ", device arrays"
"""Behind the name of a case whose queries and results stay on the device; others go from host to host."""
PRECISIONS = (
    {"lut_dtype": "float16"},
    {"lut_dtype": "float16", "internal_distance_dtype": "float16", "coarse_search_dtype": "float16"},
    {"lut_dtype": "uint8", "internal_distance_dtype": "float16", "coarse_search_dtype": "float16"},
)
"""Types in which cuVS computes with codes: each may be the fastest one that reaches a recall."""


def milliseconds(call: Callable[[], object], seconds: float = 3.0) -> float:
    """The median of calls behind one that warms up."""
    import cupy

    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) <= ROUNDS and (len(times) < 4 or time.perf_counter() < end):
        cupy.cuda.Device().synchronize()
        started = time.perf_counter()
        call()
        cupy.cuda.Device().synchronize()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[1:])


def faiss_exact(spec: Spec) -> Told:
    """GpuIndexFlatIP over float16 rows; queries come from the host and results go there."""
    import cupy
    import data
    import faiss  # type: ignore[import-not-found]

    resources = faiss.StandardGpuResources()
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16, config.use_cuvs = True, False
    index = faiss.GpuIndexFlatIP(resources, spec["dim"], config)
    for _, rows in data.blocks(cupy, spec["rows"], spec["dim"], spec["seed"]):
        index.add(rows.get())
    for name, batch, k, seed, centres in spec["cases"]:
        asked = data.mixture(cupy, batch, spec["dim"], seed, centres=centres).get()
        yield name, milliseconds(lambda asked=asked, k=k: index.search(asked, k))


def cuvs_exact(spec: Spec) -> Told:
    """Brute force over float16 rows, or float32 where it takes no others."""
    import cupy
    import data
    from cuvs.common import Resources  # type: ignore[import-not-found]
    from cuvs.neighbors import brute_force  # type: ignore[import-not-found]

    resources = Resources()
    rows = data.mixture(cupy, spec["rows"], spec["dim"], spec["seed"], dtype=cupy.float16)
    try:
        index = brute_force.build(rows, metric="inner_product", resources=resources)
    except (TypeError, ValueError, RuntimeError):
        rows = rows.astype(cupy.float32)
        index = brute_force.build(rows, metric="inner_product", resources=resources)
    yield "kind", str(rows.dtype)
    for name, batch, k, seed, centres in spec["cases"]:
        there = data.mixture(cupy, batch, spec["dim"], seed, centres=centres).astype(rows.dtype)
        here = there.get()

        def call(asked: Any = there, k: int = k) -> tuple[Any, Any]:
            found = brute_force.search(index, asked, k, resources=resources)
            resources.sync()
            return found

        def of_host(asked: Any = here, call: Any = call) -> list[Any]:
            return [cupy.asarray(part).get() for part in call(cupy.asarray(asked))]

        yield name, milliseconds(of_host)
        yield name + ON_DEVICE, milliseconds(call)


def faiss_owners(spec: Spec) -> Told:
    """search_preassigned over an inverted file of float16 rows, one list for each owner."""
    import cupy
    import data
    import faiss  # type: ignore[import-not-found]
    import numpy as np

    dim, sizes = spec["dim"], spec["sizes"]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.zeros((len(sizes), dim), np.float32))
    kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    host = faiss.IndexIVFScalarQuantizer(quantizer, dim, len(sizes), kind, metric, False)
    host.is_trained = True
    ends = np.cumsum(sizes)
    for owner, n in enumerate(sizes):
        host.invlists.resize(owner, n)  # once: lists that grow take up to twice the memory
    for first, rows in data.blocks(cupy, int(ends[-1]), dim, spec["seed"]):
        codes = data.to_host(rows.astype(cupy.float16))  # how that quantizer keeps a row
        begin = 0
        while begin < len(codes):
            owner = int(np.searchsorted(ends, first + begin, side="right"))
            end = min(len(codes), int(ends[owner]) - first)
            part = np.ascontiguousarray(codes[begin:end]).view(np.uint8)
            ids = np.arange(first + begin, first + end, dtype=np.int64)
            place = first + begin - int(ends[owner]) + sizes[owner]
            pointers = faiss.swig_ptr(ids), faiss.swig_ptr(part)
            host.invlists.update_entries(owner, place, end - begin, *pointers)
            begin = end
    host.ntotal = int(ends[-1])
    resources = faiss.StandardGpuResources()
    config = faiss.GpuIndexIVFScalarQuantizerConfig()
    config.use_cuvs = False
    index = faiss.GpuIndexIVFScalarQuantizer(resources, host, config)
    del host
    index.nprobe = 1
    asked = data.to_host(data.mixture(cupy, len(sizes), dim, spec["query_seed"], centres=spec["seed"]))
    lists, distances = np.arange(len(sizes))[:, None], np.zeros((len(sizes), 1), np.float32)

    def search() -> Any:
        return index.search_preassigned(asked, spec["k"], lists, distances)

    inside = search()[1][:, 0]
    if not ((inside >= ends - np.array(sizes)) & (inside < ends)).all():
        raise RuntimeError("search_preassigned answered from other lists")
    yield "search_preassigned", milliseconds(search, 10.0)


def cuvs_ivf_pq(spec: Spec) -> Told:
    """IVF-PQ with refinement, tuned to a recall on the queries that are timed, in each of PRECISIONS."""
    import checks
    import cupy
    import data
    import tuning
    from cuvs.common import Resources  # type: ignore[import-not-found]
    from cuvs.neighbors import ivf_pq, refine  # type: ignore[import-not-found]

    dim, seed, k = spec["dim"], spec["seed"], spec["k"]
    resources = Resources()
    rows = data.mixture(cupy, spec["rows"], dim, seed, dtype=cupy.float16)
    asked = data.mixture(cupy, spec["queries"], dim, spec["query_seed"], centres=seed)
    truth = checks.nearest(
        cupy, ((i, rows[i : i + data.CHUNK]) for i in range(0, len(rows), data.CHUNK)), asked, k
    )
    queries = asked.astype(rows.dtype)  # a refinement takes queries of the rows' type alone
    started = time.perf_counter()
    options = {"metric": "inner_product", "pq_bits": 8, "pq_dim": spec["pq_dim"]}
    params = ivf_pq.IndexParams(n_lists=spec["cells"], kmeans_trainset_fraction=spec["fraction"], **options)
    index = ivf_pq.build(params, rows, resources=resources)
    resources.sync()
    yield "build_seconds", time.perf_counter() - started

    def both(setting: Any, asked: Any) -> tuple[Any, Any]:
        """Distances and ids, on the device."""
        probes, wider, precision = setting
        types = {name: getattr(cupy, kind) for name, kind in PRECISIONS[precision].items()}
        how = ivf_pq.SearchParams(n_probes=probes, **types)
        distances, ids = ivf_pq.search(how, index, asked, k * wider, resources=resources)
        if wider > 1:
            ids = cupy.asarray(ids).astype(cupy.int64)
            distances, ids = refine(rows, asked, ids, k, metric="inner_product", resources=resources)
        resources.sync()
        return distances, ids

    def to_host(found: tuple[Any, Any]) -> list[Any]:
        return [data.to_host(cupy.asarray(part)) for part in found]

    settings: list[Any] = []
    failures = {}
    for precision in range(len(PRECISIONS)):

        def ids_of(setting: tuple[int, int], precision: int = precision) -> Any:
            return to_host(both((*setting, precision), queries))[1]

        try:
            reached = tuning.reaching(ids_of, truth, spec["recall"], spec["cells"])
        except Exception as error:  # noqa: BLE001  # whatever the library does not do: the other types go on
            failures[str(PRECISIONS[precision])] = f"{type(error).__name__}: {error}"
        else:
            settings += [((*setting, precision), recall) for setting, recall in reached]
    if failures:
        yield "failures", failures
    if not settings:
        raise RuntimeError("; ".join(failures.values()) or "no setting reaches the recall")
    for batch in spec["batches"]:
        there = queries[:batch]
        here = data.to_host(there)

        def of_host(setting: Any, asked: Any = here) -> Any:
            return to_host(both(setting, cupy.asarray(asked)))

        def of_device(setting: Any, asked: Any = there) -> Any:
            return both(setting, asked)

        for case, call in ((str(batch), of_host), (f"{batch}{ON_DEVICE}", of_device)):
            took, setting, reached = tuning.fastest(
                settings, lambda s, call=call: milliseconds(lambda: call(s), 1.0)
            )
            used = {"setting": list(setting[:2]), "types": PRECISIONS[setting[2]]}
            yield case, {"ms": took, "recall": reached, **used}


TASKS: dict[tuple[str, str], Callable[[Spec], Told]] = {
    ("faiss", "exact"): faiss_exact,
    ("cuvs", "exact"): cuvs_exact,
    ("faiss", "owners"): faiss_owners,
    ("cuvs", "ivf_pq"): cuvs_ivf_pq,
}


def main() -> int:
    """Measure one task of one peer."""
    name, task, spec = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    importlib.import_module(name)  # before CuPy and torch
    for case, measured in TASKS[name, task](spec):
        print(json.dumps({case: measured}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
