"""What is compared: each a way to build an index of rows, to keep it in a folder, and to search it.

A system knows the settings that its recall hangs on; tuning.py chooses among them. Rows and queries have unit
length, so inner product and cosine put rows in the same order. The native modules of peers have no types.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

DIMENSION, K = 384, 10
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Setting = tuple[int, ...]


class System(Protocol):
    """name is unique, family is the package, and knobs say what the numbers of a setting are."""

    name: str
    family: str
    knobs: tuple[str, ...]

    def build(self, rows: F32, threads: int) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path, rows: F32) -> None:
        """What `save` wrote. rows: those it was built of, for systems that do not keep them."""
        ...

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        """Settings, in each list from the fastest to the most thorough."""
        ...

    def choose(self, setting: Setting) -> None: ...
    def search(self, queries: F32) -> I64:
        """(n, K) row numbers, -1 where there is none; by one thread."""
        ...


def package(name: str) -> Any:
    """The module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def size_of(folder: Path) -> int:
    """Bytes of what a system wrote."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def pairs(first: tuple[int, ...], second: tuple[int, ...]) -> Iterator[list[Setting]]:
    for a in first:
        yield [(a, b) for b in second]


PROBES = (6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160)
REFINES = (4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 30, 40, 60)
EXPANSIONS = (
    *range(10, 100, 5),
    *range(100, 200, 10),
    *range(200, 400, 20),
    *range(400, 1_001, 50),
)


class Warpmem:
    """VectorIndex with recall below 1, searched with n_probes and refine of our choice; with none, the
    setting that optimise() found. It is searched as it was built: a loaded index lies in a mapped file, and
    peers' lie in memory of their own."""

    _known: ClassVar[dict[tuple[float, str], Any]] = {}  # two systems here search one index

    family = "warpmem"
    knobs = ("n_probes", "refine")

    def __init__(self, recall: float, storage: Any = "f32", *, by_itself: bool = False) -> None:
        self._recall, self._storage, self._by_itself = recall, storage, by_itself
        kind = "warpmem" if storage == "f32" else f"warpmem {storage}"
        self.name = f"{kind} {recall:g}, by itself" if by_itself else kind
        self._setting: dict[str, int] = {}
        self.index: Any = None

    def build(self, rows: F32, threads: int) -> None:
        import warpmem

        kept: Any = {"recall": self._recall, "storage": self._storage}
        self.index = warpmem.VectorIndex(DIMENSION, threads=threads, **kept)
        for first in range(0, len(rows), 50_000):
            self.index.add(rows[first : first + 50_000])
        self.index.optimise()

    def save(self, folder: Path) -> None:
        self.index.save(folder / "index")

    def load(self, folder: Path, rows: F32) -> None:
        kind = self._recall, self._storage
        if kind not in self._known:
            self.build(rows, 1)
            self._known[kind] = self.index
        self.index = self._known[kind]

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        if self._by_itself:
            tuned = self.index.stats()["tuned"][0]
            yield [(tuned["n_probes"], tuned["refine"])]
        else:
            yield from pairs(PROBES, REFINES)

    def choose(self, setting: Setting) -> None:
        self._setting = {} if self._by_itself else dict(zip(self.knobs, setting, strict=True))

    def search(self, queries: F32) -> I64:
        found: I64 = self.index.search(queries, K, **self._setting).ids
        return found


class Hnswlib:
    """hnswlib's graph of float32 rows; m links a node, twice as many on the lowest level."""

    family = "hnswlib"
    knobs = ("ef",)

    def __init__(self, m: int, construction: int = 200) -> None:
        self._m, self._construction = m, construction
        self.name = f"hnswlib M {m}"
        self.index: Any = None

    def build(self, rows: F32, threads: int) -> None:
        self.index = package("hnswlib").Index(space="ip", dim=DIMENSION)
        self.index.init_index(len(rows), M=self._m, ef_construction=self._construction)
        self.index.add_items(rows, num_threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))

    def load(self, folder: Path, rows: F32) -> None:
        self.index = package("hnswlib").Index(space="ip", dim=DIMENSION)
        room = len(rows) + 20_000
        self.index.load_index(str(folder / "index"), max_elements=room, allow_replace_deleted=True)

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        yield [(n,) for n in EXPANSIONS]

    def choose(self, setting: Setting) -> None:
        self.index.set_ef(setting[0])

    def search(self, queries: F32) -> I64:
        found: NDArray[np.uint64] = self.index.knn_query(queries, K, num_threads=1)[0]
        return found.astype(np.int64)


class USearch:
    """usearch's graph, of rows kept as f32, f16 or i8."""

    family = "usearch"
    knobs = ("expansion_search",)

    def __init__(self, dtype: str, connectivity: int, expansion_add: int = 128) -> None:
        self._dtype, self._connectivity, self._expansion = dtype, connectivity, expansion_add
        self.name = f"usearch {dtype}, connectivity {connectivity}"
        self.index: Any = None

    def _empty(self) -> Any:
        return package("usearch.index").Index(
            ndim=DIMENSION,
            metric="cos" if self._dtype == "i8" else "ip",
            dtype=self._dtype,
            connectivity=self._connectivity,
            expansion_add=self._expansion,
        )

    def build(self, rows: F32, threads: int) -> None:
        self.index = self._empty()
        self.index.add(np.arange(len(rows)), rows, threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def load(self, folder: Path, rows: F32) -> None:
        self.index = self._empty()
        self.index.load(str(folder / "index"))

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        yield [(n,) for n in EXPANSIONS]

    def choose(self, setting: Setting) -> None:
        self.index.expansion_search = setting[0]

    def search(self, queries: F32) -> I64:
        if len(queries) == 1:
            return self.index.search(queries[0], K, threads=1).keys.astype(np.int64)[None]
        found: NDArray[np.uint64] = self.index.search(queries, K, threads=1).keys
        return found.astype(np.int64)


class Scann:
    """ScaNN: a tree of leaves, anisotropic codes of 4 bits for two dimensions each, exact reordering."""

    family = "scann"
    knobs = ("leaves_to_search", "reorder")

    def __init__(self, leaves_a_root: float, *, soar: bool = False) -> None:
        self._share, self._soar = leaves_a_root, soar
        self.name = f"scann {leaves_a_root:g} sqrt(n) leaves" + (", SOAR" if soar else "")
        self._setting: Setting = (1, 1)
        self.index: Any = None

    def build(self, rows: F32, threads: int) -> None:
        leaves = round(self._share * len(rows) ** 0.5)
        made = package("scann").scann_ops_pybind.builder(rows, K, "dot_product")
        tree: dict[str, Any] = {"soar_lambda": 1.5, "overretrieve_factor": 2.0} if self._soar else {}
        made.tree(
            num_leaves=leaves,
            num_leaves_to_search=16,
            training_sample_size=min(len(rows), 64 * leaves),
            spherical=True,
            quantize_centroids=True,
            **tree,
        )
        made.score_ah(2, anisotropic_quantization_threshold=0.2)
        self.index = made.reorder(100).set_n_training_threads(threads).build()

    def save(self, folder: Path) -> None:
        self.index.serialize(str(folder), relative_path=True)

    def load(self, folder: Path, rows: F32) -> None:
        self.index = package("scann").scann_ops_pybind.load_searcher(str(folder))

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        yield from pairs(PROBES, tuple(K * n for n in (2, 3, *REFINES)))

    def choose(self, setting: Setting) -> None:
        self._setting = setting

    def search(self, queries: F32) -> I64:
        leaves, reorder = self._setting
        if len(queries) == 1:
            found = self.index.search(queries[0], K, reorder, leaves)[0]
            return np.asarray(found, np.int64)[None]
        return np.asarray(self.index.search_batched(queries, K, reorder, leaves)[0], np.int64)


class FaissGraph:
    """IndexHNSWFlat."""

    family = "faiss"
    knobs = ("efSearch",)

    def __init__(self, m: int, construction: int = 200) -> None:
        self._m, self._construction = m, construction
        self.name = f"faiss HNSWFlat M {m}"
        self.index: Any = None

    def build(self, rows: F32, threads: int) -> None:
        faiss = package("faiss")
        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexHNSWFlat(DIMENSION, self._m, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = self._construction
        self.index.add(rows)

    def save(self, folder: Path) -> None:
        package("faiss").write_index(self.index, str(folder / "index"))

    def load(self, folder: Path, rows: F32) -> None:
        faiss = package("faiss")
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(folder / "index"))

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        yield [(n,) for n in EXPANSIONS]

    def choose(self, setting: Setting) -> None:
        self.index.hnsw.efSearch = setting[0]

    def search(self, queries: F32) -> I64:
        found: I64 = self.index.search(queries, K)[1]
        return found


class FaissLists:
    """Inverted files with cells of faiss's own: rows, or codes with exact refining."""

    family = "faiss"

    def __init__(self, codes: str) -> None:
        self._codes = codes
        self.name = f"faiss IVF{codes}"
        self.knobs = ("nprobe",) if codes == "Flat" else ("nprobe", "k_factor")
        self.index: Any = None
        self._refined: Any = None

    def build(self, rows: F32, threads: int) -> None:
        faiss = package("faiss")
        faiss.omp_set_num_threads(threads)
        cells = min(round(3 * len(rows) ** 0.5), len(rows) // 100)  # as many as warpmem has
        metric = faiss.METRIC_INNER_PRODUCT
        shape = (faiss.IndexFlatIP(DIMENSION), DIMENSION, cells)
        if self._codes == "Flat":
            self.index = faiss.IndexIVFFlat(*shape, metric)
        elif self._codes == "RaBitQFastScan":
            self.index = faiss.IndexIVFRaBitQFastScan(*shape, metric)
        else:
            subspaces = int(self._codes.removeprefix("PQFastScan "))
            self.index = faiss.IndexIVFPQFastScan(*shape, subspaces, 4, metric)
        rounds, each = (6, 32) if len(rows) > 90_000 else (10, 100)
        self.index.cp.niter, self.index.cp.spherical = rounds, True
        self.index.cp.max_points_per_centroid = each
        self.index.train(rows[:: max(1, len(rows) // (each * cells))])
        self.index.add(rows)

    def save(self, folder: Path) -> None:
        package("faiss").write_index(self.index, str(folder / "index"))

    def load(self, folder: Path, rows: F32) -> None:
        faiss = package("faiss")
        faiss.omp_set_num_threads(1)
        self.index = self._refined = faiss.read_index(str(folder / "index"))
        if self._codes != "Flat":
            flat = faiss.IndexFlat(DIMENSION, faiss.METRIC_INNER_PRODUCT)
            flat.add(rows)
            self._refined = faiss.IndexRefine(self.index, flat)
            self._keep = flat

    def ladders(self, rows: int) -> Iterator[list[Setting]]:
        if self._codes == "Flat":
            yield [(p,) for p in PROBES]
        else:
            yield from pairs(PROBES, (2, *REFINES))

    def choose(self, setting: Setting) -> None:
        self.index.nprobe = setting[0]
        if len(setting) > 1:
            self._refined.k_factor = setting[1]

    def search(self, queries: F32) -> I64:
        found: I64 = self._refined.search(queries, K)[1]
        return found


def systems() -> dict[str, System]:
    """All that can be built here, by the name of its folder."""
    known: dict[str, System] = {
        "warpmem": Warpmem(0.95),
        "warpmem95": Warpmem(0.95, by_itself=True),
        "warpmem99": Warpmem(0.99, by_itself=True),
        "warpmem-f16": Warpmem(0.95, "f16"),
        "hnswlib-16": Hnswlib(16),
        "usearch-f16-16": USearch("f16", 16),
        "usearch-i8-16": USearch("i8", 16),
        "scann-2": Scann(2),
        "faiss-pq96": FaissLists("PQFastScan 96"),
        "faiss-hnsw-32": FaissGraph(32),
        "hnswlib-32": Hnswlib(32),
        "usearch-f32-16": USearch("f32", 16),
        "usearch-f16-32": USearch("f16", 32, 200),
        "scann-2-soar": Scann(2, soar=True),
        "scann-3": Scann(3),
        "faiss-flat": FaissLists("Flat"),
        "faiss-rabitq": FaissLists("RaBitQFastScan"),
        "faiss-pq128": FaissLists("PQFastScan 128"),
    }
    wanted = os.environ.get("WARPMEM_BENCH_SYSTEMS")
    return {
        key: system
        for key, system in known.items()
        if (system.family == "warpmem" or package(system.family) is not None)
        and (wanted is None or key in wanted.split(","))
    }
