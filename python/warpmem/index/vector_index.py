"""VectorIndex: exact nearest-neighbour search over rows in memory, with owners, columns and filters."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, Self, get_args

import msgspec
import numpy as np

from ..errors import InputError, InvalidVector
from ..protocols import RowPool
from ..types import ColumnType, Metric, Neighbors, RankBy, Storage
from . import inputs, tiers, vector_file
from .approximate import approximate, measured
from .backends import choose
from .clustering import Training
from .columns import Columns
from .cuda_backend import CudaBackend
from .device_options import DeviceOptions
from .filter_terms import FilterCompiler
from .inputs import F32, I64
from .pool_copies import copy_rows
from .probing import Probing, seconds_of
from .row_input import RowInput, require_device, to_device
from .row_store import RowStore, Serving
from .searching import search


class VectorIndex:
    """Vectors by id, each in the list of one owner, searched exactly; lives in memory, and in a file on
    request.

    Every search returns the true k best of the rows it is asked about: owner, filter and ranking weights are
    part of the scan. Larger scores are nearer with every metric. Rows with equal scores come in the order in
    which they were added. A caller who accepts `recall` below 1 gets an approximate index from `optimise()`;
    the recall is that of searches without a filter.

    Thread-safe. Changes take turns; searches run beside them without waiting. Each sees whole changes only;
    of an approximate index, whole changes of each owner. A call that raises has changed nothing. Ids and
    owners are integers from 0 to 2^63 - 1."""

    def __init__(
        self,
        dim: int,
        *,
        metric: Metric = "cosine",
        storage: Storage = "f32",
        backend: str = "auto",
        recall: float = 1.0,
        columns: Mapping[str, ColumnType] | None = None,
        threads: int | None = None,
        device: int = 0,
        vram_bytes: int | None = None,
        pinned_bytes: int | None = None,
        rebuild_ms: int = 1000,
    ) -> None:
        """An empty index of vectors with `dim` dimensions, 1 to 65,536.

        metric: "cosine" (vectors and queries are brought to unit length), "ip" (inner product), or "l2",
        whose score is the negated squared distance. storage: how rows are kept, "f32", "f16", "int8" (a scale
        a row) or "pq" (codes only, after `train`); search is exact for the rows as they are kept, but for
        "pq" and `recall` below 1. backend: "auto", "cpu", "numpy", with a CUDA device "cuda", or where
        installed "numba" and "cupy"; all give the same answers. recall: the share of true neighbours that
        searches must find after `optimise()`. columns: name -> "int64", "float64", "bool", "str" or "time",
        at most 1,024, for filters and ranking. threads: of one search, 1 to 1,024; None is what the process
        may use, at most 16. device, vram_bytes: with "cuda", which device, and how many bytes of its memory
        the index may take; None is half of what is free now, for each index. Owners' rows are loaded as they
        are asked for; the CPU answers meanwhile. pinned_bytes: of host memory that it may take besides, once
        they do not all fit there: then codes of the others lie on the device, and their rows in that; None is
        half of what other indexes of the process leave of an eighth of what the host has available now, 0 is
        none. rebuild_ms: milliseconds after which a device that failed is tried again, at first; 0 leaves
        that to `rebuild_device()`.

        Raises InputError, BackendUnavailable.
        """
        self._dim = inputs.dimension(dim)
        inputs.one_of(metric, "metric", get_args(Metric))
        inputs.one_of(storage, "storage", get_args(Storage))
        self._metric, self._storage = metric, storage
        self._recall = inputs.wanted_recall(recall)
        self._columns = Columns(columns)
        self._filters = FilterCompiler(self._columns)
        self._choose(backend, threads, DeviceOptions(device, vram_bytes, pinned_bytes, rebuild_ms))
        self._trained = storage != "pq"
        self._store = self._new_store(Serving(self._new_pool(), False))

    def _choose(self, backend: Any, threads: Any, device: DeviceOptions) -> None:
        self._probing = Probing()
        self._threads = inputs.thread_count(threads)
        if not isinstance(backend, str):
            raise InputError(f"backend must be a name, not {type(backend).__name__}")
        self._backend, self._reason = choose(backend, device=device.checked())

    def _new_pool(self) -> RowPool:
        storage = "f32" if self._storage == "pq" else self._storage  # holds no rows before it is trained
        options: dict[str, Any] = {"threads": self._threads} if self._threads > 1 else {}
        return self._backend.pool(
            self._dim,
            len(self._columns),
            storage=storage,
            metric=vector_file.pool_metric(self._metric),
            **options,
        )

    def _adopt(self, mapped: RowPool) -> RowPool:
        """A native pool as one of this index's backend: itself, or with its rows."""
        if self._backend.name in ("cpu", "cuda"):
            return self._with_device(mapped)
        pool = self._new_pool()
        copy_rows(mapped, pool, self._dim, self._storage)
        return pool

    def _with_device(self, pool: RowPool) -> RowPool:
        """A pool that the native module made, with the device's cache before it where there is one."""
        return self._backend.adopt(pool) if isinstance(self._backend, CudaBackend) else pool

    def _new_store(self, serving: Serving) -> RowStore:
        self._input = RowInput(self._dim, self._metric, self._storage, self._backend.normalize)
        return RowStore(serving, self._columns, self._dim, self._storage)

    # ------------------------------------------------------------------------------------- changes

    def add(self, vectors: Any, ids: Any = None, owners: Any = None, attributes: Any = None) -> I64:
        """Add n vectors and return their ids, (n,) int64; the next search sees all of them.

        vectors: (n, dim), or (dim,) for one: NumPy, torch, CuPy, anything with DLPack or
        `__cuda_array_interface__`, or lists of numbers; C-contiguous float32 in host memory is read in place,
        what lies on a device is copied to the host, where an index lives.
        ids: n integers that the index does not hold; None gives the next free ones, above every id that was
        ever added. owners: n integers or one for all; None is owner 0. attributes: column -> n values, or one
        for all. None and NaN are missing values, as is every column not named. "time" takes aware datetimes
        or integer microseconds since 1970 UTC.

        Raises InvalidVector (shape, dtype, NaN, infinity, a zero vector where metric is "cosine"), InputError
        (ids that are negative, given twice or in the index; owners; attributes; an untrained "pq" index)."""
        rows = self._input.vectors(vectors, self._store.serving.pool)
        n = len(rows)
        lists = inputs.lists_of_rows(owners, n)
        given = None if ids is None else inputs.row_ids(ids, n)
        checked = {} if attributes is None else self._columns.check(attributes, n)
        if not self._trained:
            needed = approximate().training_rows(self._dim)
            raise InputError(
                f'storage="pq" has no codebooks yet; call train() with at least {needed} vectors'
            )
        return self._store.add(rows, lists, given, checked)

    def remove(self, ids: Any) -> int:
        """Remove rows by id, an integer or (n,) integers, and return how many there were; unknown ids are
        passed over. Raises InputError."""
        named = inputs.integers(ids, "ids")
        return self._store.remove(np.unique(named) if len(named) > 1 else named)

    def update(self, ids: Any, vectors: Any = None, attributes: Any = None) -> None:
        """Replace the vectors, the values of some columns, or both, of rows that are in the index.

        ids: n distinct integers. vectors: (n, dim) or None to keep them. attributes: as in `add`; columns not
        named keep their values. Owner and order of addition stay. A search sees a row as it was or as it will
        be.

        Raises NotFound for an id that is not in the index, InvalidVector, InputError.
        """
        named = inputs.row_ids(ids, None)
        rows = None if vectors is None else self._input.vectors(vectors, self._store.serving.pool)
        if rows is not None and len(rows) != len(named):
            raise InvalidVector(f"vectors: expected {len(named)} rows, one an id, not {len(rows)}")
        self._store.update(named, rows, self._columns.check(attributes, len(named)))

    def train(self, vectors: Any) -> None:
        """Set the codebooks of an index with storage="pq" from (n, dim) vectors like those it will hold.

        Raises InputError for another storage, an index that holds rows, or too few vectors; InvalidVector.
        """
        rows = self._input.vectors(vectors, self._store.serving.pool)
        if self._storage != "pq":
            raise InputError(f'train() is for storage="pq"; storage="{self._storage}" needs no training')
        needed = approximate().training_rows(self._dim)
        if len(rows) < needed:
            raise InputError(f"training needs at least {needed} vectors, not {len(rows)}")
        pool = approximate().train_pq(
            rows,
            n_columns=len(self._columns),
            metric=vector_file.pool_metric(self._metric),
            threads=self._threads,
            seed=0,
            training=Training(self._backend),
        )
        # Exact for the rows that codes stand for.
        self._store.restart(Serving(self._with_device(pool), False))
        self._trained = True

    # -------------------------------------------------------------------------------------- search

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        owners: Any = None,
        filter: Mapping[str, Any] | None = None,
        ranking: RankBy | None = None,
        n_probes: int | None = None,
        refine: int | None = None,
        within: float | timedelta | None = None,
        explain: bool = False,
        results: Literal["host", "device"] = "host",
    ) -> Neighbors:
        """The k nearest rows of each query: `ids, scores = index.search(...)`, both (n, k), best first.

        queries: (n, dim) or (dim,), as in `add`. k: 1 to 4,096; where there are fewer rows, ids are -1 and
        scores -inf. owners: whose rows: one for all queries, (n,) with one a query, or (n, m) with several a
        query, padded with -1; None is everyone's. An owner without rows has no neighbours. filter: a
        condition on the columns, such as {"price": {"gte": 1, "lt": 5}, "or": [{"lang": "de"}, {"lang":
        {"exists": False}}]}, with the operators eq, ne, gt, gte, lt, lte, in, nin, exists, and for strings
        contains and icontains. ranking: weights of similarity, recency and priority; None is similarity
        alone. n_probes, refine: how many cells an approximate index reads and how many candidates a result it
        scores exactly; None is what `optimise()` found to reach the wanted recall. within: seconds in
        which the answer is wanted: an approximate index then reads as many cells as there is time for, by
        what searches took before, and `.degraded` is ("probes",) where those are fewer. explain: say in
        `.plan` how it was done. With "cuda", (n, dim) float32 queries on its device are used there;
        results="device" leaves ids and scores there, as arrays with DLPack and `__cuda_array_interface__`.

        Raises InvalidVector, InvalidFilter, InputError; NotSupported for results="device" elsewhere,
        BackendUnavailable when that device fails. Never waits for changes.
        """
        serving = self._store.serving
        inputs.one_of(results, "results", ("host", "device"))
        device = require_device(serving.pool, self._plan(serving)) if results == "device" else None
        rows = self._input.queries(queries, serving.pool)
        k = inputs.count(k)
        options = self._tuning(serving, n_probes, refine)
        described = None
        if explain:
            described = {"plan": self._plan(serving), "backend": self._backend.name, "isa": serving.pool.isa}
            if self._backend.name in ("cpu", "cuda") or serving.approximate:
                options["explain"] = True
        seconds, most = seconds_of(within), None
        if serving.approximate and n_probes is None:
            most = self._probing.most(serving.pool, len(rows), seconds)
            options |= {} if most is None else {"most_probes": most}
        began = time.perf_counter()
        found = search(
            serving, self._filters, rows, k,
            owners=owners, filters=filter, ranking=ranking, options=options, explain=described,
        )  # fmt: skip
        if serving.approximate and n_probes is None:
            self._probing.took(serving.pool, len(rows), time.perf_counter() - began, most)
        if most is not None:
            found = msgspec.structs.replace(found, degraded=("probes",))
        return found if device is None else to_device(device, found)

    def vectors(self, ids: Any) -> F32:
        """(n, dim) float32, the rows of (n,) ids as they are kept: normalised where metric is "cosine", and
        as precise as the storage. Raises NotFound, InputError."""
        return self._store.vectors(inputs.integers(ids, "ids"))

    def __len__(self) -> int:
        """Rows in the index."""
        return self._store.count

    def __contains__(self, id: object) -> bool:
        """Whether a row has this id."""
        if isinstance(id, (bool, np.bool_)) or not isinstance(id, (int, np.integer)):
            return False
        return bool(0 <= id <= inputs.MAX_ID) and bool(self._store.holds(np.array([id], np.int64))[0])

    # --------------------------------------------------------------------------------------- upkeep

    def warm(self, owners: Any, *, wait: bool = False) -> int:
        """Load owners' rows to the device, however rarely they are asked for, as at the start of a session;
        owners: an integer or (n,). wait: until they are there, or there is no room. Returns how many lists
        are on their way, an owner's one, or in an approximate index its cells; none with other backends than
        "cuda"."""
        return tiers.warm(self._store.serving.pool, inputs.integers(owners, "owners"), wait=wait)

    def evict(self, owners: Any) -> None:
        """Forget the device's copy of owners' rows, and overwrite it with zeros. Rows stay in the index."""
        tiers.evict(self._store.serving.pool, inputs.integers(owners, "owners"))

    def rebuild_device(self) -> bool:
        """Have a device that failed answer again, from an empty cache; whether it does. True where it never
        failed, False with other backends than "cuda". Nothing else changes: the CPU answers until then. It is
        also tried by itself, after pauses that grow (`rebuild_ms`)."""
        return tiers.rebuild(self._store.serving.pool)

    def optimise(self) -> None:
        """Make searches faster, at the cost of time now; searches and changes go on meanwhile.

        With recall=1 this is `compact()`. With less it trains an approximate index on the rows, tunes it
        until searches of a sample reach that recall, and puts it in the place of the exact one; with too few
        rows to gain by it the index stays exact. `stats()` says what was reached. Changes made during the
        work are in the result; they wait only for the last few to be carried over. With "cuda" the device
        trains, in memory beside `vram_bytes` that it gives back; where others keep it busy, the CPU does.

        Raises NotSupported where this build has no approximate search.
        """
        if self._recall < 1.0 and self._store.replace_pool(self._approximate):
            return
        self._store.compact()

    def _approximate(self, pool: RowPool) -> RowPool | None:
        built = approximate().build_ivf(
            pool,
            recall=self._recall,
            storage=self._storage,
            metric=vector_file.pool_metric(self._metric),
            threads=self._threads,
            seed=0,
            training=Training(self._backend),
        )
        return None if built is None else self._with_device(built)

    def compact(self) -> None:
        """Give back the memory of removed rows. Results stay the same; searches go on, changes take turns
        with it.

        Also numbers the rows anew in their order of addition when most of the 2^32 places in it have been
        used."""
        self._store.compact()

    def stats(self) -> dict[str, Any]:
        """Counters and choices: rows, lists, dead (removed rows not yet compacted), pages, bytes, backend and
        the reason for it, isa, storage, metric, plan; for an approximate index also what its pool says of
        itself, the measured recall among it; with "cuda" also `tiers`, what the device holds and did."""
        serving = self._store.serving
        held = tiers.tiers(serving.pool)
        return {
            **serving.pool.stats(),
            **measured(serving.pool),
            "backend": self._backend.name,
            "backend_reason": self._reason,
            "isa": serving.pool.isa,
            "storage": self._storage,
            "metric": self._metric,
            "plan": self._plan(serving),
            "wanted_recall": self._recall,
            "threads": self._threads,
            **({"tiers": held} if held else {}),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, replacing what is there only when all of it is on disk. Searches go
        on, changes wait. The file has checksums and is described in FORMATS.md. An approximate index comes
        back as it is.

        Raises InputError, BackendUnavailable without the native module, DiskFull, StoreError.
        """
        store = self._store
        with store.still() as pool:
            described = vector_file.Description(
                dim=self._dim,
                metric=self._metric,
                storage=self._storage,
                recall=self._recall,
                columns=list(self._columns.types.items()),
                strings={name: known.names for name, known in self._columns.dictionaries.items()},
                next_id=store.next_id,
                next_ordinal=store.next_ordinal,
                approximate=store.serving.approximate,
                trained=self._trained,
            )
            vector_file.save(path, pool, described)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        threads: int | None = None,
        device: int = 0,
        vram_bytes: int | None = None,
        pinned_bytes: int | None = None,
        rebuild_ms: int = 1000,
    ) -> Self:
        """The index in a file written by `save`, on any backend. The file is mapped, so opening it costs
        little at any size with the backends "cpu" and "cuda"; its checksums are verified block by block when
        first read.

        Raises InputError, FormatError, IndexCorrupt, StoreError, BackendUnavailable.
        """
        index = cls.__new__(cls)
        index._choose(backend, threads, DeviceOptions(device, vram_bytes, pinned_bytes, rebuild_ms))
        pool, described = vector_file.load(path, index._threads)
        index._dim, index._metric, index._storage = described.dim, described.metric, described.storage
        index._recall, index._trained = described.recall, described.trained
        index._columns = Columns(dict(described.columns), described.strings)
        index._filters = FilterCompiler(index._columns)
        codes = described.approximate or described.storage == "pq"  # which the native module alone has
        pool = index._with_device(pool) if codes else index._adopt(pool)
        index._store = index._new_store(Serving(pool, described.approximate))
        index._store.next_id, index._store.next_ordinal = described.next_id, described.next_ordinal
        return index

    def __repr__(self) -> str:
        return f"VectorIndex({self._dim}, {self._plan(self._store.serving)}, {len(self)} rows)"

    # --------------------------------------------------------------------------------------- inside

    def _plan(self, serving: Serving) -> str:
        how = f"approximate scan, recall {self._recall:g}" if serving.approximate else "exact scan"
        return f"{how}, {self._backend.name}/{serving.pool.isa}, {self._storage} rows, {self._metric}"

    def _tuning(self, serving: Serving, n_probes: Any, refine: Any) -> dict[str, Any]:
        """Arguments of an approximate pool's scan. An index that is still exact needs none."""
        given: dict[str, Any] = {}
        for name, value in (("n_probes", n_probes), ("refine", refine)):
            if value is not None:
                given[name] = inputs.integer(value, name, 1, 4096 if name == "refine" else 1 << 24)
        if given and self._recall == 1.0 and not serving.approximate:
            raise InputError(f"{' and '.join(given)} tune an approximate index; this one has recall=1")
        return given if serving.approximate else {}
