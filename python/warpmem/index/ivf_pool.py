"""A RowPool whose large owners stand in cells: a search probes the nearest cells and ranks their rows by
codes.

Owners without cells lie in a plain native pool and are searched exactly. Cells do not overlap and hold every
row of their owner, so probing all of them and rescoring all rows is exact too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Segment, SegmentTable
from . import ivf_file
from .arguments import check_array, check_finite, integer, members_of
from .ivf_cells import F32, I64, U32, CellStore, Rows, native
from .ivf_plan import Cells
from .ivf_segments import PairList, Pairs, PairTable, join

_MAX_K = 4096
_HALF_LIMIT = 65520.0


class IvfPool:
    """RowPool over owners. Writers take turns on a lock; scans never wait.

    A change or a scan that touches owners of both kinds, with and without cells, is one of each: another
    thread may see the one before the other. Within a kind, and so within an owner, each happens whole. What a
    scan returns of an owner with cells are true similarities of rows that may not be the nearest.
    """

    def __init__(
        self,
        dim: int,
        n_columns: int,
        *,
        storage: str,
        metric: str,
        codebooks: F32,
        threads: int = 1,
        isa: str = "auto",
    ) -> None:
        self._cells = CellStore(
            dim, n_columns, storage=storage, metric=metric, codebooks=codebooks, threads=threads, isa=isa
        )
        self._plain = native().Pool(
            dim,
            n_columns,
            storage=storage,
            metric=metric,
            codebooks=codebooks if storage == "pq" else None,
            threads=threads,
            isa=isa,
        )
        self._lock = threading.Lock()

    @classmethod
    def open(cls, pool: Any, sections: Mapping[str, Any]) -> IvfPool:
        """The pool that `save` wrote, from what `_cpu.open_pool` found. Raises IndexCorrupt, FormatError."""
        made = cls.__new__(cls)
        owners = ivf_file.read_owners(pool, sections)
        made._plain, _ = native().open_section(sections[ivf_file.PLAIN], isa=pool.isa, threads=pool.threads)
        made._cells = CellStore.of(pool, owners)
        made._lock = threading.Lock()
        return made

    def save(self, path: Any, sections: Mapping[str, Any]) -> None:
        """Write everything to one file, as `_cpu.Pool.save` does. Changes wait, searches do not."""
        with self._lock:
            ivf_file.save(path, sections, self._cells, self._plain)

    @property
    def dim(self) -> int:
        return int(self._plain.dim)

    @property
    def n_columns(self) -> int:
        return int(self._plain.n_columns)

    @property
    def isa(self) -> str:
        return str(self._plain.isa)

    @property
    def storage(self) -> str:
        return str(self._plain.storage)

    @property
    def metric(self) -> str:
        return str(self._plain.metric)

    @property
    def screen(self) -> str:
        return "pq"

    @property
    def threads(self) -> int:
        return int(self._plain.threads)

    @property
    def codebooks(self) -> F32:
        """(pq_dim, 16, dsub) float32."""
        books: F32 = self._cells.rows.codebooks
        return books

    @property
    def owners(self) -> Mapping[int, Cells]:
        """The owners with cells: how each is searched, and the recall that was measured."""
        return self._cells.owners

    def tier(self, wrap: Callable[[Any], Any]) -> None:
        """Search rows through wrap(pool), which is as the native pool; before anything is searched."""
        self._cells.rows = wrap(self._cells.rows)
        self._plain = wrap(self._plain)

    def parts(self, owners: I64) -> list[tuple[Any, I64]]:
        """The pools in which rows lie, and which lists of each are the owners': cells, or owners without."""
        known = self.owners
        large = _with_cells(known, owners)
        cells = [known[owner].ids for owner in owners[large].tolist()]
        return [
            (self._cells.rows, np.concatenate([np.zeros(0, np.int64), *cells])),
            (self._plain, owners[~large]),
        ]

    # ------------------------------------------------------------------------------------- cells

    def add_cells(self, owner: int, centroids: F32, *, spherical: bool, n_probes: int, refine: int) -> None:
        """Give an owner without rows its cells. ValueError when it has rows or cells."""
        with self._lock:
            if owner in self.owners or owner in self._plain.lists():
                raise ValueError(f"list {owner} has rows already; give it cells before them")
            self._cells.add(owner, centroids, spherical=spherical, n_probes=n_probes, refine=refine)

    def centroids(self, owner: int) -> F32:
        """(n_cells, dim) float32 of an owner with cells."""
        return self._cells.centroids(owner)

    def set_plan(self, owner: int, **changes: Any) -> None:
        """Replace n_probes, refine, recall or recall_rows of an owner with cells."""
        with self._lock:
            self._cells.replace(owner, self.owners[owner]._replace(**changes))

    def assign(self, owner: int, vectors: F32, threads: int) -> I64:
        """The cell of each row of an owner with cells, (n,) int64."""
        return self._cells.assign(owner, vectors, threads)

    def ranks(self, owner: int, queries: F32, row_ids: I64) -> I64:
        """(n, k): how many cells of the owner are nearer to query i than that of row_ids[i, j]; all when
        it has no such row."""
        with self._lock:
            return self._cells.ranks(owner, queries, row_ids)

    def fill(self, cells: I64, rows: Rows) -> None:
        """Add rows that are assigned already and that their owners do not hold yet."""
        with self._lock:
            self._cells.fill(cells, rows)

    def trim(self) -> None:
        """Give back memory that only changes need; they build it again."""
        with self._lock:
            self._cells.trim()
            self._plain.trim()

    # ----------------------------------------------------------------------------------- changes

    def apply(
        self,
        removes: Sequence[tuple[int, int]],
        list_ids: I64,
        row_ids: I64,
        ordinals: U32,
        columns: I64,
        vectors: F32,
    ) -> None:
        """As RowPool.apply: a row of an owner with cells goes to the nearest of them, or nearly so."""
        self._check(list_ids, row_ids, ordinals, columns, vectors)
        pairs = [members_of(pair, "removes", 2) for pair in removes]
        gone = [(integer(a, "list_id"), integer(b, "row_id")) for a, b in pairs]
        with self._lock:
            owners = self.owners
            large = _with_cells(owners, list_ids)
            rows = (row_ids, ordinals, columns, vectors)
            inner = [pair for pair in gone if pair[0] in owners]
            if inner or large.any():
                mine = (row_ids[large], ordinals[large], columns[large], vectors[large])
                self._cells.change(inner, list_ids[large], mine)
                gone = [pair for pair in gone if pair[0] not in owners]
                list_ids = list_ids[~large]
                rows = (row_ids[~large], ordinals[~large], columns[~large], vectors[~large])
            if gone or len(list_ids):
                self._plain.apply(gone, list_ids, *rows)

    def _check(self, list_ids: I64, row_ids: I64, ordinals: U32, columns: I64, vectors: F32) -> None:
        """All that a native pool refuses, before any of them is changed."""
        check_array(list_ids, "list_ids", np.int64, (None,))
        n = len(list_ids)
        check_array(row_ids, "row_ids", np.int64, (n,))
        check_array(ordinals, "ordinals", np.uint32, (n,))
        check_array(columns, "columns", np.int64, (n, self.n_columns))
        check_array(vectors, "vectors", np.float32, (n, self.dim))
        check_finite(vectors, "vectors")
        if self.storage == "f16":
            big = np.flatnonzero((np.abs(vectors) >= _HALF_LIMIT).any(axis=1))
            if big.size:
                raise ValueError(f"vectors: row {big[0]} exceeds 65504, the largest float16")

    def drop(self, list_ids: Sequence[int]) -> None:
        """Owners lose their cells with their rows."""
        wanted = [integer(list_id, "list_id") for list_id in list_ids]
        with self._lock:
            self._plain.drop(wanted)
            self._cells.drop(sorted({owner for owner in wanted if owner in self.owners}))

    def compact(self, list_id: int) -> None:
        """Rewrite a list without its dead rows."""
        if integer(list_id, "list_id") in self.owners:
            for cell in self._cells.live(list_id):
                self._cells.rows.compact(cell)
        else:
            self._plain.compact(list_id)

    # ----------------------------------------------------------------------------------- searches

    def scan(
        self,
        queries: F32,
        segments: Sequence[Segment] | SegmentTable,
        k: int,
        *,
        n_probes: int | None = None,
        most_probes: int | None = None,
        refine: int | None = None,
        explain: bool = False,
        **ranking: Any,
    ) -> Any:
        """As RowPool.scan. n_probes: cells that each (query, owner) reads, most_probes at most; refine:
        refine * k rows of a query are rescored; None for what was found at building. A filtered query that
        finds fewer than k rows in the cells it probes reads all of them, unless min_similarity is given.
        With `explain` a sixth member,
        a dict: plan, cells, n_probes, refine, and what the native pool counts.
        """
        check_array(queries, "queries", np.float32, (None, self.dim))
        k = integer(k, "k", 1, _MAX_K)
        if n_probes is not None:
            n_probes = integer(n_probes, "n_probes", 1)
        if refine is not None:
            refine = integer(refine, "refine", 1, _MAX_K)
        known = self.owners  # beside a change an owner may lose his cells meanwhile
        one = self._one(segments, len(queries))
        cells = known.get(one[0]) if one is not None else None
        if one is not None and cells is not None:
            probes = min(cells.n_probes if n_probes is None else n_probes, most_probes or cells.n_cells)
            if probes < cells.n_cells and probes <= _MAX_K:
                options = dict(ranking, refine=refine or cells.refine)
                if len(queries) == 1:
                    options.update(n_probes=probes, explain=explain)
                    return self._cells.scan_one(queries, cells, one[0], one[1], k, **options)
                found = None if explain else self._cells.scan_all(queries, cells, one[0], probes, k, options)
                if found is not None:
                    return found
        work, plain, joined = self._split(segments, len(queries), known)
        if not len(work.queries):
            return self._plain.scan(queries, plain, k, explain=explain, **ranking)
        result = self._cells.scan(
            queries, work, k, known=known, n_probes=n_probes, most_probes=most_probes, refine=refine,
            explain=explain, ranks=joined, ranking=ranking,
        )  # fmt: skip
        if joined:
            exact = self._plain.scan(queries, plain, k, ranks=True, **ranking)
            result = join(result, exact, k)
        return result if explain else result[:5]

    @staticmethod
    def _one(segments: Sequence[Segment] | SegmentTable, n_queries: int) -> tuple[int, int] | None:
        """(owner, group) of segments that are one of each query in turn, without a filter and over one owner:
        the usual search, which need not be taken apart with arrays. None for all others."""
        if isinstance(segments, SegmentTable):
            queries, lists = segments.queries, segments.lists
            if len(lists) != n_queries or len(queries) != n_queries or n_queries == 0 or len(segments.terms):
                return None
            if n_queries == 1:
                return None if queries[0] else (int(lists[0]), 0)
            for array in (queries, lists):
                if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.ndim != 1:
                    return None
            if (lists != lists[0]).any() or (queries != np.arange(n_queries)).any():
                return None
            return int(lists[0]), 0
        if n_queries != 1 or len(segments) != 1 or len(segments[0]) != 6:
            return None
        query, owner, group, terms, values, bitmap = segments[0]
        if (
            query != 0
            or len(terms)
            or len(values)
            or bitmap is not None
            or type(group) is not int
            or group < 0
        ):
            return None
        return (owner, group) if type(owner) is int else None

    def _split(
        self, segments: Sequence[Segment] | SegmentTable, n_queries: int, owners: Mapping[int, Cells]
    ) -> tuple[Pairs, Any, bool]:
        """Segments over owners with cells, the others, and whether there are others."""
        if isinstance(segments, SegmentTable):
            check_array(segments.queries, "segment queries", np.int64, (None,))
            check_array(segments.lists, "segment lists", np.int64, (len(segments.queries),))
            large = _with_cells(owners, segments.lists)
            work = PairTable(segments.queries[large], segments.lists[large], segments)
            if len(work.queries) and not 0 <= work.queries.min() <= work.queries.max() < n_queries:
                raise ValueError(f"segment queries must be within 0 and {n_queries - 1}")
            rest = segments._replace(queries=segments.queries[~large], lists=segments.lists[~large])
            return work, rest, len(rest.queries) > 0
        parts = [members_of(segment, "segments", 6) for segment in segments]
        found = [part for part in parts if integer(part[1], "segment list_id") in owners]
        for part in found:
            integer(part[0], "segment query", 0, n_queries - 1)
        others = [part for part in parts if part[1] not in owners]
        return PairList(found), others, len(others) > 0

    # ------------------------------------------------------------------------------------- reading

    def vectors(self, list_id: int, row_ids: I64) -> F32:
        owner = integer(list_id, "list_id")
        if owner not in self.owners:
            plain: F32 = self._plain.vectors(owner, row_ids)
            return plain
        check_array(row_ids, "row_ids", np.int64, (None,))
        out = np.empty((len(row_ids), self.dim), np.float32)
        with self._lock:  # a row must not change its cell between the two reads
            cells = self._cells.cell_of(owner).get(row_ids, -1)
            missing = np.flatnonzero(cells < 0)
            if missing.size:
                raise KeyError(f"row {row_ids[missing[0]]} is not in list {owner}")
            order = np.argsort(cells, kind="stable")
            for part in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
                if len(part):
                    out[part] = self._cells.rows.vectors(int(cells[part[0]]), row_ids[part])
        return out

    def lists(self) -> I64:
        plain, live = self._plain.lists(), self._cells.holding()
        return np.union1d(plain, live) if len(plain) else live

    def rows(self, list_id: int) -> tuple[I64, U32, I64]:
        owner = integer(list_id, "list_id")
        with self._lock:
            live = self._cells.live(owner) if owner in self.owners else []
            parts = [self._cells.rows.rows(cell) for cell in live] or [self._plain.rows(owner)]
        row_ids, ordinals, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
        return row_ids, ordinals, columns

    def stats(self) -> dict[str, int]:
        """lists, rows, dead, pages, bytes; cells, and cell_rows in them."""
        plain, cells = self._plain.stats(), self._cells.rows.stats()
        out = {name: plain[name] + cells[name] for name in ("rows", "dead", "pages", "bytes")}
        out["bytes"] += self._cells.bytes()
        out["lists"] = len(self.lists())
        out["cells"] = sum(owner.n_cells for owner in self.owners.values())
        out["cell_rows"] = cells["rows"]
        return out


def _with_cells(owners: Mapping[int, Cells], list_ids: I64) -> NDArray[np.bool_]:
    return np.isin(list_ids, np.fromiter(owners, np.int64, len(owners)))
