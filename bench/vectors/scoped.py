"""Searches of a part of the rows: by a filter, and of one owner."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from approximate import TARGETS, built, loaded
from data import Data, nearest
from numpy.typing import NDArray
from systems import DIMENSION, F32, I64, K, Setting, System, package
from timing import ratio, rounds
from tuning import one_by_one, tune

import warpmem

ROUNDS = 7
SHARES = (50, 10, 1)  # per cent of the rows that a filter lets through
Search = Callable[[F32], I64]


def _column(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(11).integers(0, 100, n)


class _Fixed:
    """A search without settings, as a system."""

    family, knobs = "", ()

    def __init__(self, name: str) -> None:
        self.name = name

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        yield [()]

    def choose(self, setting: Setting) -> None:
        pass


def _approximate_ours(data: Data, column: NDArray[np.int64]) -> warpmem.VectorIndex:
    index = warpmem.VectorIndex(DIMENSION, recall=0.95, columns={"n": "int64"}, threads=1)
    index.add(data.rows, attributes={"n": column})
    index.optimise()
    return index


def _filtered(data: Data, work: Path, column: NDArray[np.int64], share: int, ours: Any) -> Iterator[Any]:
    """(system, search) of each that takes a filter."""
    condition = {"n": {"lt": share}}
    allowed = column < share
    exact, approximate = ours
    system: Any = loaded_as("warpmem", approximate)
    knobs = system.knobs

    def ours_by_cells(queries: F32) -> I64:
        chosen = dict(zip(knobs, system.setting, strict=True))
        found: I64 = approximate.search(queries, K, filter=condition, **chosen).ids
        return found

    yield system, ours_by_cells
    yield _Fixed("warpmem exact"), lambda queries: exact.search(queries, K, filter=condition).ids
    if built(work, "hnswlib-16") is not None:
        graph: Any = loaded(work, "hnswlib-16", data)
        admits = allowed.tolist().__getitem__
        yield (
            graph,
            lambda queries: graph.index.knn_query(queries, K, num_threads=1, filter=admits)[0].astype(
                np.int64
            ),
        )
    if package("faiss") is None:
        return
    faiss = package("faiss")
    bits = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
    if built(work, "faiss-hnsw-32") is not None:
        links: Any = loaded(work, "faiss-hnsw-32", data)

        def by_links(queries: F32) -> I64:
            asked = faiss.SearchParametersHNSW(efSearch=links.index.hnsw.efSearch, sel=selector)
            found: I64 = links.index.search(queries, K, params=asked)[1]
            return found

        yield links, by_links
    lists: Any = loaded(work, "faiss-flat", data)

    def by_lists(queries: F32) -> I64:
        asked = faiss.SearchParametersIVF(nprobe=lists.index.nprobe, sel=selector)
        found: I64 = lists.index.search(queries, K, params=asked)[1]
        return found

    yield lists, by_lists
    flat = faiss.IndexFlatIP(DIMENSION)
    flat.add(data.rows)
    yield (
        _Fixed("faiss IndexFlatIP"),
        lambda queries: flat.search(queries, K, params=faiss.SearchParameters(sel=selector))[1],
    )


def _at(system: System, search: Search, setting: Setting) -> Search:
    """The search at this setting, whatever the system was set to in between."""

    def run(queries: F32) -> I64:
        system.choose(setting)
        return search(queries)

    return run


def loaded_as(name: str, index: Any) -> System:
    """Our system's settings for an index that has columns."""
    from systems import Warpmem

    class Here(Warpmem):
        setting: Setting = (1, 1)

        def choose(self, setting: Setting) -> None:
            self.setting = setting

    here = Here(0.95)
    here.name, here.index = name, index
    return here


def filters(data: Data, work: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One query a call, at recall 0.95 of the rows that the filter lets through."""
    column = _column(len(data.rows))
    exact = warpmem.VectorIndex(DIMENSION, columns={"n": "int64"}, threads=1)
    exact.add(data.rows, attributes={"n": column})
    ours = exact, _approximate_ours(data, column)
    asked, measured = data.queries[data.tuned[:100]], data.queries[data.measured[:100]]
    out: list[dict[str, Any]] = []
    for share in SHARES:
        allowed = column < share
        truth, known = nearest(data.rows, asked, allowed), nearest(data.rows, measured, allowed)
        base: Any = None
        for system, search in _filtered(data, work, column, share, ours):

            def mean(found: I64, truth: I64 = truth) -> float:
                return float(data.recall(found, data.tuned[:100], truth).mean())

            setting = tune(system, search, asked, mean, TARGETS[0], len(data.rows), [1])[1]
            line: dict[str, Any] = {"system": system.name, "share": share, "setting": None}
            if setting is not None:
                system.choose(setting)
                found = one_by_one(search, measured)
                real_rows = found[found >= 0]
                assert allowed[real_rows].all(), "a row that the filter leaves out"
                base = base or _at(system, search, setting)  # warpmem, which comes first
                theirs = _at(system, search, setting)
                calls = {
                    "ours": lambda base=base: one_by_one(base, measured),
                    "theirs": lambda theirs=theirs: one_by_one(theirs, measured),
                }
                times = rounds(calls, ROUNDS)
                line |= {
                    "setting": dict(zip(system.knobs, setting, strict=True)),
                    "recall": float(data.recall(found, data.measured[:100], known).mean()),
                    "ms_a_query": 1e3 * statistics.median(times["theirs"]) / len(measured),
                    "warpmem_over_it": ratio(times["theirs"], times["ours"]),
                }
            out.append(line)
            report(f"filter {line}")
    return out


# ------------------------------------------------------------------------------------------- owners


def owners(data: Data, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One owner a query, exactly: what each package has for it at best."""
    order = np.argsort(data.owners, kind="stable")
    sorted_rows = np.ascontiguousarray(data.rows[order])
    begins = np.searchsorted(data.owners[order], np.arange(int(data.owners.max()) + 2))
    index = warpmem.VectorIndex(DIMENSION, threads=1)
    index.add(data.rows, owners=data.owners)
    asked = data.measured[:400]
    truth = np.full((len(asked), K), -1, np.int64)
    for i, query in enumerate(asked):
        first, last = begins[data.query_owners[query]], begins[data.query_owners[query] + 1]
        if last > first:
            found = nearest(sorted_rows[first:last], data.queries[query : query + 1])[0]
            truth[i] = np.where(found >= 0, order[first + np.maximum(found, 0)], -1)

    def part(query: int) -> tuple[int, int]:
        owner = data.query_owners[query]
        return int(begins[owner]), int(begins[owner + 1])

    def padded(found: Any, first: int) -> I64:
        row = np.full((1, K), -1, np.int64)
        at = np.asarray(found, np.int64).ravel()[:K]
        at = at[at >= 0]
        row[0, : len(at)] = order[first + at]
        return row

    searches: dict[str, Callable[[int], I64]] = {
        "warpmem, owners": lambda q: (
            index.search(data.queries[q : q + 1], K, owners=int(data.query_owners[q])).ids
        )
    }
    if package("usearch") is not None:
        module = package("usearch.index")

        def slices(q: int) -> I64:
            first, last = part(q)
            if first == last:
                return padded([], first)
            n = min(K, last - first)
            rows, query = sorted_rows[first:last], data.queries[q]
            return padded(
                module.search(rows, query, n, module.MetricKind.IP, exact=True, threads=1).keys, first
            )

        searches["usearch exact, slices of one array"] = slices
    if package("faiss") is not None:
        searches |= _faiss_owners(data, sorted_rows, part, padded)
    if package("hnswlib") is not None:
        searches["hnswlib, an index an owner"] = _hnswlib_owners(data, sorted_rows, begins, part, padded)
    times = rounds(
        {name: lambda search=search: [search(int(q)) for q in asked] for name, search in searches.items()},
        ROUNDS,
    )
    out = []
    for name, search in searches.items():
        found = np.concatenate([search(int(q)) for q in asked])
        recall = float(data.recall(found, asked, truth).mean())
        assert recall >= (0.9 if name.startswith("hnswlib") else 0.9995), (name, recall)
        line = {
            "system": name,
            "recall": recall,
            "us_a_query": 1e6 * statistics.median(times[name]) / len(asked),
            "warpmem_over_it": ratio(times[name], times["warpmem, owners"]),
        }
        out.append(line)
        report(f"owners {line}")
    return out


def _faiss_owners(data: Data, sorted_rows: F32, part: Any, padded: Any) -> dict[str, Callable[[int], I64]]:
    faiss = package("faiss")
    faiss.omp_set_num_threads(1)
    n, ids = int(data.owners.max()) + 1, np.arange(len(data.rows))
    coarse = faiss.IndexFlatIP(DIMENSION)
    coarse.add(np.zeros((n, DIMENSION), np.float32))
    lists = faiss.IndexIVFFlat(coarse, DIMENSION, n, faiss.METRIC_INNER_PRODUCT)
    lists.is_trained = True
    lists.add_core(len(ids), faiss.swig_ptr(data.rows), faiss.swig_ptr(ids), faiss.swig_ptr(data.owners))
    zero = np.zeros((1, 1), np.float32)

    def slices(q: int) -> I64:
        first, last = part(q)
        if first == last:
            return padded([], first)
        metric = faiss.METRIC_INNER_PRODUCT
        query = data.queries[q : q + 1]
        return padded(faiss.knn(query, sorted_rows[first:last], min(K, last - first), metric)[1], first)

    def preassigned(q: int, keep: Any = coarse) -> I64:
        owner = data.query_owners[q : q + 1][:, None]
        found: I64 = lists.search_preassigned(data.queries[q : q + 1], K, owner, zero)[1]
        return found

    return {"faiss.knn, slices of one array": slices, "faiss IVFFlat, lists = owners": preassigned}


def _hnswlib_owners(
    data: Data, sorted_rows: F32, begins: I64, part: Any, padded: Any
) -> Callable[[int], I64]:
    """A graph for each owner of the measured queries: what its makers advise for partitions."""
    graphs: dict[int, Any] = {}
    for owner in sorted(set(data.query_owners[data.measured[:400]].tolist())):
        first, last = int(begins[owner]), int(begins[owner + 1])
        if first == last:
            continue
        graph = package("hnswlib").Index(space="ip", dim=DIMENSION)
        graph.init_index(last - first, M=16, ef_construction=100)
        graph.add_items(sorted_rows[first:last], num_threads=1)
        graph.set_ef(20)
        graphs[owner] = graph

    def search(q: int) -> I64:
        first, last = part(q)
        if first == last:
            return padded([], first)
        graph = graphs[int(data.query_owners[q])]
        found: I64 = graph.knn_query(data.queries[q : q + 1], min(K, last - first), num_threads=1)[0]
        return padded(found, first)

    return search
