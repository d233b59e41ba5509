"""Owners whose rows stand in cells: the rows by cell, the centroids by owner, and which row is where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from ..records import SegmentTable
from . import cpu, kernels
from .ivf_plan import Cells
from .ivf_segments import Pairs

_MAX_K = 4096
_COARSE_REFINE = 2  # centroids compared exactly, for each wanted, where their order counts
_ASSIGN_REFINE = 8  # and when a row is given its cell
_ASSIGN_PIECE = 2048
# Up to so many dimensions all centroids are compared: it costs little, and short codes tell few apart.
_EXACT_DIM = 64
_SELF_TEST = 256  # centroids that must find themselves by codes
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Rows = tuple[I64, U32, I64, F32]
"""row_ids (n,), ordinals (n,), columns (n, n_columns), vectors (n, dim)."""


def native() -> Any:
    """The compiled module. BackendUnavailable without it."""
    module, reason = cpu._load()
    if module is None:
        raise BackendUnavailable(f"approximate search needs the backend cpu: {reason}; reinstall warpmem")
    return module


class CellStore:
    """Two native pools: rows with product-quantisation codes (list id = cell), and centroids (list id =
    owner, row id = cell). The caller serialises changes; scans may run at any time and each sees one moment
    of the rows. `owners` is replaced as a whole, never changed."""

    def __init__(
        self, dim: int, n_columns: int, *, storage: str, metric: str, codebooks: F32, threads: int, isa: str
    ) -> None:
        options: dict[str, Any] = {"metric": metric, "isa": isa, "threads": threads}
        rows = native().Pool(dim, n_columns, storage=storage, screen="pq", codebooks=codebooks, **options)
        self._set(rows, {})

    @classmethod
    def of(cls, rows: Any, owners: Mapping[int, tuple[Cells, F32]]) -> CellStore:
        """A store over a native pool whose lists are the cells of these owners, with their centroids."""
        made = cls.__new__(cls)
        made._set(rows, owners)
        return made

    def _set(self, rows: Any, owners: Mapping[int, tuple[Cells, F32]]) -> None:
        self.rows = rows
        self._isa = rows.isa  # of the host, where rows are assigned
        self.owners: Mapping[int, Cells] = MappingProxyType({})
        self._coarse = native().Pool(
            rows.dim,
            0,
            metric=rows.metric,
            isa=rows.isa,
            threads=rows.threads,
            screen="pq",
            codebooks=rows.codebooks,
        )
        self._owner_of = np.zeros(0, np.int64)  # by cell; -1 for one that is gone
        # Owners that hold rows, and at which of the changes that may alter that it was so.
        self._holding: tuple[int, I64] = (-1, np.zeros(0, np.int64))
        self._turn = 0
        # Centroids of the owners whose rows are compared with all of them.
        self._compared: dict[int, F32] = {}
        self._cell_of: dict[int, Any] = {}  # owner -> IdMap from row to cell, built when it is first needed
        for owner, (cells, centroids) in owners.items():
            self._add(owner, cells, centroids)

    # ------------------------------------------------------------------------------------- owners

    def add(self, owner: int, centroids: F32, *, spherical: bool, n_probes: int, refine: int) -> None:
        """Cells of a new owner."""
        self._add(owner, Cells(len(centroids), len(self._owner_of), spherical, n_probes, refine), centroids)

    def _add(self, owner: int, cells: Cells, centroids: F32) -> None:
        n = cells.n_cells
        here, order = np.full(n, owner, np.int64), np.arange(n, dtype=np.uint32)
        self._coarse.apply([], here, cells.ids, order, np.zeros((n, 0), np.int64), centroids)
        owner_of = np.full(max(len(self._owner_of), cells.first + n), -1, np.int64)
        owner_of[: len(self._owner_of)] = self._owner_of
        owner_of[cells.ids] = owner
        self._owner_of = owner_of
        if not self._found_by_codes(owner, cells, centroids):
            self._compared[owner] = centroids
        self._turn += 1
        self.owners = MappingProxyType({**self.owners, owner: cells})

    def _found_by_codes(self, owner: int, cells: Cells, centroids: F32) -> bool:
        """Whether codes say which centroid is near. Not where dot products do not, nor where an owner's rows
        lie closer together than the codebooks, which all owners share, can tell."""
        if self.rows.dim <= _EXACT_DIM or (self.rows.metric == "dot" and not cells.spherical):
            return False
        some = np.linspace(0, cells.n_cells - 1, min(cells.n_cells, _SELF_TEST)).astype(np.int64)
        found = self._nearest(owner, np.ascontiguousarray(centroids[some]))
        return bool((found == cells.first + some).mean() >= 0.98)

    def replace(self, owner: int, cells: Cells) -> None:
        """Another n_probes, refine or recall for an owner."""
        self.owners = MappingProxyType({**self.owners, owner: cells})

    def drop(self, owners: Sequence[int]) -> None:
        """Remove owners that have cells, rows and all."""
        self.rows.drop([cell for owner in owners for cell in self.owners[owner].ids.tolist()])
        self._coarse.drop(owners)
        self._turn += 1
        self.owners = MappingProxyType({o: cells for o, cells in self.owners.items() if o not in owners})
        for owner in owners:
            self._cell_of.pop(owner, None)
            self._compared.pop(owner, None)

    def owner_of(self, cells: I64) -> I64:
        """The owner of each cell; -1 stays."""
        return np.where(cells >= 0, self._owner_of[cells], cells)

    def holding(self) -> I64:
        """The owners that hold rows, ascending. Looked for in the cells only after the first row of an owner
        came or his last one went: a search over everybody asks each time."""
        turn = self._turn
        known, owners = self._holding
        if known != turn:
            owners = np.unique(self.owner_of(self.rows.lists()))
            owners.flags.writeable = False
            self._holding = turn, owners
        return owners

    def live(self, owner: int) -> list[int]:
        """Cells of an owner that hold rows."""
        cells = self.owners[owner]
        lists = self.rows.lists()
        inside: list[int] = lists[(lists >= cells.first) & (lists < cells.first + cells.n_cells)].tolist()
        return inside

    def trim(self) -> None:
        """Give back memory that only changes need."""
        self._cell_of.clear()
        self.rows.trim()
        self._coarse.trim()

    def bytes(self) -> int:
        """Memory beside the rows' pool."""
        compared = sum(centroids.nbytes for centroids in self._compared.values())
        return int(self._coarse.stats()["bytes"]) + int(self._owner_of.nbytes) + compared

    # ------------------------------------------------------------------------------------ changes

    def centroids(self, owner: int) -> F32:
        """(n_cells, dim) float32 of an owner, by cell."""
        found: F32 = self._coarse.vectors(owner, self.owners[owner].ids)
        return found

    def assign(self, owner: int, vectors: F32, threads: int) -> I64:
        """The cell of each row, (n,) int64: that of the nearest centroid among the _ASSIGN_REFINE nearest by
        their codes, or among all where codes do not tell."""
        cells, compared = self.owners[owner], self._compared.get(owner)
        if compared is not None:
            index, _ = kernels.kmeans_assign(
                vectors,
                compared,
                spherical=cells.spherical,
                threads=threads,
                backend="cpu",
                isa=self._isa,
            )
            return index.astype(np.int64) + cells.first
        parts = [vectors[at : at + _ASSIGN_PIECE] for at in range(0, len(vectors), _ASSIGN_PIECE)]
        own = max(1, threads // self.rows.threads)  # each scan has threads of its pool
        if own == 1 or len(parts) < 2:
            found = [self._nearest(owner, part) for part in parts]
        else:
            with ThreadPoolExecutor(own) as pool:
                found = list(pool.map(lambda part: self._nearest(owner, part), parts))
        return np.concatenate(found or [np.zeros(0, np.int64)])

    def _nearest(self, owner: int, vectors: F32) -> I64:
        table = SegmentTable(np.arange(len(vectors)), np.full(len(vectors), owner, np.int64))
        found: I64 = self._coarse.scan(vectors, table, 1, refine=_ASSIGN_REFINE)[3][:, 0]
        return found

    def cell_of(self, owner: int) -> Any:
        """IdMap from row to cell."""
        found = self._cell_of.get(owner)
        if found is None:
            found = native().IdMap()
            for cell in self.live(owner):
                row_ids = self.rows.rows(cell)[0]
                found.put(row_ids, np.full(len(row_ids), cell, np.int64))
            self._cell_of[owner] = found
        return found

    def ranks(self, owner: int, queries: F32, row_ids: I64) -> I64:
        """As IvfPool.ranks."""
        cells = self.owners[owner]
        n, n_cells = len(queries), cells.n_cells
        table = SegmentTable(np.arange(n), np.full(n, owner, np.int64))
        order = (
            self._coarse.scan(queries, table, min(n_cells, _MAX_K), refine=_COARSE_REFINE)[3] - cells.first
        )
        place = np.full((n, n_cells + 1), n_cells, np.int64)  # the last column stands for no cell
        np.put_along_axis(place, order, np.arange(order.shape[1])[None, :], axis=1)
        held = self.cell_of(owner).get(row_ids.ravel(), -1).reshape(row_ids.shape)
        return np.take_along_axis(place, np.where(held >= 0, held - cells.first, n_cells), axis=1)

    def fill(self, cells: I64, rows: Rows) -> None:
        """Add rows that are assigned already and that their owners do not hold yet. Their maps are built anew
        when they are needed."""
        for owner in np.unique(self._owner_of[cells]).tolist():
            self._cell_of.pop(owner, None)
        self.rows.apply([], cells, *rows)
        self._turn += 1

    def change(self, removes: Sequence[tuple[int, int]], owners: I64, rows: Rows) -> None:
        """Remove (owner, row id) pairs, then add rows to their owners, as one change of the rows' pool."""
        row_ids, ordinals, columns, vectors = rows
        last = {pair: at for at, pair in enumerate(zip(owners.tolist(), row_ids.tolist(), strict=True))}
        take = np.array(sorted(last.values()), np.int64)  # of adds with one id the later stays
        owners, row_ids = owners[take], row_ids[take]
        gone: dict[int, list[int]] = {}
        for owner, row_id in removes:
            gone.setdefault(owner, []).append(row_id)
        cells = np.zeros(len(take), np.int64)
        leaves: list[tuple[int, int]] = []
        moves: list[tuple[Any, I64, I64, I64]] = []
        for owner in {*gone, *owners.tolist()}:
            known = self.cell_of(owner)
            removed = np.array(gone.get(owner, ()), np.int64)
            mine = owners == owner
            added = row_ids[mine]
            if len(added):
                cells[mine] = self.assign(owner, vectors[take[mine]], self.rows.threads)
            for ids in (removed, added):
                leaves += _present(known.get(ids, -1), ids)
            moves.append((known, removed, added, cells[mine]))
        for known, _, added, _ in moves:  # so that putting cannot fail once the rows are in
            known.reserve(len(known) + len(added))
        held = [len(known) > 0 for known, *_ in moves]
        self.rows.apply(leaves, cells, row_ids, ordinals[take], columns[take], vectors[take])
        for known, removed, added, to in moves:
            known.pop(removed, -1)
            known.put(added, to)
        if held != [len(known) > 0 for known, *_ in moves]:
            self._turn += 1

    # ----------------------------------------------------------------------------------- searches

    def scan(
        self,
        queries: F32,
        work: Pairs,
        k: int,
        *,
        known: Mapping[int, Cells],
        n_probes: int | None,
        most_probes: int | None,
        refine: int | None,
        explain: bool,
        ranks: bool,
        ranking: dict[str, Any],
    ) -> Any:
        """The k best rows of each query as the native pool returns them, with owners as list ids. known: the
        owners with cells when the search began."""
        owners = [known[owner] for owner in work.lists.tolist()]
        sizes = np.array([cells.n_cells for cells in owners], np.int64)
        wanted = np.array([cells.n_probes for cells in owners], np.int64)
        if n_probes is not None:
            wanted[:] = n_probes
        if most_probes is not None:
            wanted = np.minimum(wanted, most_probes)
        rescored = max(cells.refine for cells in owners) if refine is None else refine
        options = {**ranking, "refine": rescored, "explain": explain, "ranks": ranks}
        probes, counts = self._probe(queries, work, owners, np.minimum(wanted, sizes), sizes)
        result = self.rows.scan(queries, work.over(probes, counts), k, **options)
        read = int(counts.sum())
        short = (counts < sizes) & (result[4][work.queries] < k)
        if "min_similarity" not in ranking and short.any():
            # Too little was in the nearest cells, by a filter or a large k: such queries ask all cells.
            again = np.unique(work.queries[short])
            kept = np.isin(work.queries, again)
            rest = [cells for cells, keep in zip(owners, kept.tolist(), strict=True) if keep]
            probes, counts = self._probe(queries, work.only(kept), rest, sizes[kept], sizes[kept])
            fuller = self.rows.scan(queries, work.only(kept).over(probes, counts), k, **options)
            read += int(counts.sum())
            for to, better in zip(result[:5], fuller[:5], strict=True):
                to[again] = better[again]
            for name, value in fuller[5].items() if explain or ranks else ():
                if name in ("groups", "ordinals"):
                    result[5][name][again] = value[again]
                elif name in ("rows_seen", "rows_rescored", "tiles"):
                    result[5][name] += value
        if explain or ranks:
            result[5].update(plan="ivf", cells=read, n_probes=int(wanted.max()), refine=rescored)
        return (*result[:2], self.owner_of(result[2]), *result[3:])

    def scan_one(self, queries: F32, cells: Cells, owner: int, group: int, k: int, **options: Any) -> Any:
        """scan() of one query over one owner, without a filter, that probes some of its cells."""
        n_probes = options.pop("n_probes")
        if type(self.rows) is type(self._coarse):
            ranking = options.copy()
            refine, explain = ranking.pop("refine"), ranking.pop("explain")
            # By place: it takes a microsecond to look for names of which there are none.
            result = self.rows.scan_nearest(
                queries, self._coarse, owner, group, n_probes, k, refine, explain, **ranking
            )
        else:  # a device's cache stands before the rows
            segment = ((0, owner, 0, (), (), None),)
            nearest = self._coarse.scan(queries, segment, n_probes, unordered=True)[3][0]
            result = self._scan_cells(queries, nearest, owner, group, k, options)
        if result[4][0] < k and "min_similarity" not in options:
            n_probes = len(cells.ids)
            result = self._scan_cells(queries, cells.ids, owner, group, k, options)
        if options["explain"]:
            plan = {"plan": "ivf", "cells": n_probes, "n_probes": n_probes, "refine": options["refine"]}
            result[5].update(plan)
        return result

    def scan_all(
        self, queries: F32, cells: Cells, owner: int, n_probes: int, k: int, options: dict[str, Any]
    ) -> Any:
        """scan() of many queries over one owner, without a filter, each of which probes as many of its cells;
        None where another pool stands before the rows."""
        if type(self.rows) is not type(self._coarse):
            return None
        result = self.rows.scan_nearest(queries, self._coarse, owner, 0, n_probes, k, **options)
        short = np.flatnonzero(result[4] < k)
        if len(short) and "min_similarity" not in options:
            ids = cells.ids
            every = SegmentTable(np.repeat(np.arange(len(short)), len(ids)), np.tile(ids, len(short)))
            fuller = self.rows.scan(queries[short], every, k, **options)
            for to, better in zip(result, fuller, strict=True):
                to[short] = better
            result[2][short] = np.where(fuller[2] >= 0, owner, fuller[2])
        return result

    def _scan_cells(
        self, queries: F32, cells: I64, owner: int, group: int, k: int, options: dict[str, Any]
    ) -> Any:
        """The rows' scan of one query over these cells, without a filter; list ids are the owner."""
        probes: Any = SegmentTable(np.zeros(len(cells), np.int64), cells)
        if group:
            probes = [(0, cell, group, (), (), None) for cell in cells.tolist()]
        result = self.rows.scan(queries, probes, k, **options)
        return (*result[:2], np.where(result[2] >= 0, owner, result[2]), *result[3:])

    def _probe(
        self, queries: F32, work: Pairs, owners: Sequence[Cells], wanted: I64, sizes: I64
    ) -> tuple[I64, I64]:
        """The `wanted` nearest cells of each (query, owner), pair after pair, and how many each has."""
        whole = (wanted == sizes) | (wanted > _MAX_K)
        counts = np.where(whole, sizes, wanted)
        if whole.all():
            return np.concatenate([cells.ids for cells in owners]), counts
        n = len(owners)
        most = int(counts[~whole].max())
        rows = queries if np.array_equal(work.queries, np.arange(len(queries))) else queries[work.queries]
        table = SegmentTable(np.arange(n), work.lists)
        if (counts == most).all():
            nearest: I64 = self._coarse.scan(rows, table, most, unordered=True)[3]
            return nearest.ravel(), counts
        nearest = self._coarse.scan(rows, table, most, refine=_COARSE_REFINE)[3]
        picked = [
            owners[i].ids if every else nearest[i, :count]
            for i, (every, count) in enumerate(zip(whole.tolist(), counts.tolist(), strict=True))
        ]
        return np.concatenate(picked), counts


def _present(cells: I64, row_ids: I64) -> list[tuple[int, int]]:
    """(cell, row id) where there is a cell."""
    known = cells >= 0
    return list(zip(cells[known].tolist(), row_ids[known].tolist(), strict=True))
