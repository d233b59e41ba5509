"""The search kernels on their own: top-k selection, k-means, product quantisation, diverse selection.

    from warpmem.index import kernels
    centroids, owner, objective = kernels.kmeans(rows, 256, seed=1)

Every backend returns the same bits: assignments are decided by canonical float64 values, sums have a fixed
order, ties go to the smaller index, and nothing depends on the number of threads or the instruction set.

Common arguments. Matrices are float16, float32 or float64 arrays (n, dim), converted to float32; they must be
finite. backend: "cpu" (C++), "numpy" (reference, slow), or "auto" for the first that can run here; k-means,
pq_train, pq_encode and pq_scan also take "numba" and "cupy", and k-means and pq_train "cuda", with the number
of a `device` in whose memory there must be room for the rows (pq_train: for those of one subspace). isa: an
instruction set of the "cpu" backend to force, "auto" for the best. threads: how many to use at most; the GIL
is free meanwhile. Errors: InvalidVector for wrong dtypes, shapes, NaN and infinities; InputError for the
rest; BackendUnavailable. All functions are safe to call from several threads.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InvalidVector
from . import cpu, kernels_ref
from . import kernel_arguments as check
from .kernel_arguments import MAX_CENTROIDS, MAX_COLUMNS, MAX_K, MAX_MMR, MAX_PQ_DIM

Backend = Literal["auto", "cpu", "numpy"]
AnyBackend = Literal["auto", "cpu", "numpy", "numba", "cupy"]
ClusterBackend = Literal["auto", "cpu", "numpy", "numba", "cupy", "cuda"]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


def isas() -> list[str]:
    """Instruction sets of this machine that the "cpu" backend can use, best first; empty without it."""
    module, _ = cpu._load()
    return list(module.Kernels.isas()) if module is not None else []


def select_k(
    scores: Any,
    k: int,
    *,
    ordinals: Any = None,
    threads: int = 1,
    backend: Backend = "auto",
    isa: str = "auto",
) -> tuple[F32, I64]:
    """The k largest of each row, best first: (values float32 (n, k), indexes int64 (n, k)).

    scores: (n, columns), infinities allowed, NaN refused; -0 counts as +0. Equal scores stand in the order of
    `ordinals` (uint32 (columns,)) if given, then of their columns. Behind the columns, values are -inf and
    indexes -1. k <= 4,096.
    """
    native = check.native(backend, isa)
    table = check.floats(scores, "scores", 2)
    columns = table.shape[1]
    if columns > MAX_COLUMNS:
        raise InputError(f"scores: at most {MAX_COLUMNS} columns, not {columns}")
    k, threads = check.integer(k, "k", 1, MAX_K), check.threads(threads)
    order: NDArray[np.uint32] | None = None
    if ordinals is not None:
        order = np.asarray(ordinals)
        if order.dtype != np.uint32:
            raise InputError(f"ordinals must be uint32, not {order.dtype}")
        if order.shape != (columns,):
            raise InputError(f"ordinals: expected shape {(columns,)}, not {order.shape}")
        order = np.require(order, np.uint32, ["C", "A"])
    if native is not None:
        found: tuple[F32, I64] = check.call(native.select_k, table, k, ordinals=order, threads=threads)
        return found
    bad = np.flatnonzero(np.isnan(table).any(axis=1))
    if bad.size:
        raise InvalidVector(f"scores: row {bad[0]} holds a NaN")
    return kernels_ref.select_k(table, k, order)


def kmeans(
    x: Any,
    k: int,
    *,
    iterations: int = 20,
    seed: int = 0,
    init: Literal["k-means++", "random"] = "k-means++",
    sample: int | None = None,
    spherical: bool = False,
    threads: int = 1,
    backend: ClusterBackend = "auto",
    isa: str = "auto",
    device: int = 0,
) -> tuple[F32, I32, float]:
    """Lloyd's algorithm: (centroids float32 (k, dim), assignments int32 (n,), objective).

    The objective is the sum of the squared distances of all rows to their centroids; with `spherical`,
    centroids have unit length, rows go to the largest dot product, and the objective is the sum of those. An
    empty cluster takes the row farthest from its centroid. Stops early when assignments no longer change.
    `sample` trains on that many rows drawn by `seed` and assigns all. The result is determined by the
    arguments except `threads`.

    InputError when there are fewer rows than k, or sample < k.
    """
    native, operations = check.clustering(backend, isa, device)
    rows = check.matrix(x, "x", native)
    k = check.integer(k, "k", 1, MAX_CENTROIDS)
    iterations = check.integer(iterations, "iterations", 0, 100_000)
    if init not in ("k-means++", "random"):
        raise InputError(f"init must be 'k-means++' or 'random', not {init!r}")
    check.require_training_rows(len(rows), k)
    if sample is not None:
        sample = check.integer(sample, "sample", 1, (1 << 63) - 1)
        if sample < k:
            raise InputError(f"sample must be at least k, {k}, not {sample}")
    options: dict[str, Any] = {
        "iterations": iterations,
        "seed": check.seed(seed),
        "init": init,
        "sample": sample,
        "spherical": bool(spherical),
    }
    threads = check.threads(threads)
    if native is not None:
        found: tuple[F32, I32, float] = check.call(native.kmeans, rows, k, threads=threads, **options)
    else:
        found = operations.kmeans(rows, k, **options)
    return found


def kmeans_assign(
    x: Any,
    centroids: Any,
    *,
    spherical: bool = False,
    threads: int = 1,
    backend: ClusterBackend = "auto",
    isa: str = "auto",
    device: int = 0,
) -> tuple[I32, F64]:
    """The nearest of `centroids` (k, dim) to each row: (assignments int32 (n,), values float64 (n,)).

    A value is the canonical squared distance; with `spherical` the canonical dot product, of which the
    largest wins.
    """
    native, operations = check.clustering(backend, isa, device)
    centers = check.matrix(centroids, "centroids", native)
    check.integer(len(centers), "the number of centroids", 1, MAX_CENTROIDS)
    rows, threads = check.matrix(x, "x", native, centers.shape[1]), check.threads(threads)
    if native is not None:
        found: tuple[I32, F64] = check.call(
            native.kmeans_assign, rows, centers, spherical=bool(spherical), threads=threads
        )
    else:
        found = operations.kmeans_assign(rows, centers, bool(spherical))
    return found


def pq_train(
    x: Any,
    pq_dim: int,
    pq_bits: int = 8,
    *,
    iterations: int = 25,
    seed: int = 0,
    threads: int = 1,
    backend: ClusterBackend = "auto",
    isa: str = "auto",
    device: int = 0,
) -> F32:
    """Codebooks float32 (pq_dim, 2^pq_bits, dim / pq_dim): rows are cut into pq_dim pieces, k-means of each.

    InputError when pq_dim does not divide the dimension, or there are fewer rows than 2^pq_bits.
    """
    native, operations = check.clustering(backend, isa, device)
    rows = check.matrix(x, "x", native)
    pq_dim, pq_bits = check.integer(pq_dim, "pq_dim", 1, MAX_PQ_DIM), check.bits_of(pq_bits)
    if rows.shape[1] % pq_dim:
        raise InputError(f"pq_dim must divide the dimension: {rows.shape[1]} dimensions, pq_dim {pq_dim}")
    check.require_training_rows(len(rows), 1 << pq_bits)
    iterations = check.integer(iterations, "iterations", 0, 100_000)
    seed, threads = check.seed(seed), check.threads(threads)
    if native is not None:
        books: F32 = check.call(
            native.pq_train, rows, pq_dim, pq_bits, iterations=iterations, seed=seed, threads=threads
        )
    else:
        books = operations.pq_train(rows, pq_dim, pq_bits, iterations=iterations, seed=seed)
    return books


def pq_encode(
    x: Any, codebooks: Any, *, threads: int = 1, backend: AnyBackend = "auto", isa: str = "auto"
) -> U8:
    """Packed codes uint8: (n, pq_dim) for 8 bits; (n, ceil(pq_dim / 2)) for 4, even subspaces low."""
    native, operations = check.chosen(backend, isa)
    books = check.codebooks(codebooks, native)
    rows, threads = check.matrix(x, "x", native, books.shape[0] * books.shape[2]), check.threads(threads)
    if native is not None:
        codes: U8 = check.call(native.pq_encode, rows, books, threads=threads)
    else:
        codes = operations.pq_encode(rows, books)
    return codes


def pq_decode(
    codes: Any, codebooks: Any, *, threads: int = 1, backend: Backend = "auto", isa: str = "auto"
) -> F32:
    """Rows float32 (n, dim) of packed codes."""
    native = check.native(backend, isa)
    books, threads = check.codebooks(codebooks, native), check.threads(threads)
    packed = check.codes(codes, len(books), 4 if books.shape[1] == 16 else 8)
    if native is not None:
        rows: F32 = check.call(native.pq_decode, packed, books, threads=threads)
        return rows
    return kernels_ref.pq_decode(packed, books)


def pq_interleave(
    codes: Any, pq_dim: int, pq_bits: int, *, threads: int = 1, backend: Backend = "auto", isa: str = "auto"
) -> U8:
    """Packed codes as blocks of 32 rows, which scans read fastest: uint8 (ceil(n / 32), pq_dim, 32 or 16)."""
    native = check.native(backend, isa)
    pq_dim, pq_bits, threads = (
        check.integer(pq_dim, "pq_dim", 1, MAX_PQ_DIM),
        check.bits_of(pq_bits),
        check.threads(threads),
    )
    packed = check.codes(codes, pq_dim, pq_bits)
    if native is not None:
        blocks: U8 = check.call(native.pq_interleave, packed, pq_dim, pq_bits, threads=threads)
        return blocks
    return kernels_ref.pq_interleave(packed, pq_dim, pq_bits)


def pq_deinterleave(
    blocks: Any, rows: int, *, threads: int = 1, backend: Backend = "auto", isa: str = "auto"
) -> U8:
    """The packed codes of `rows` rows in blocks; the inverse of pq_interleave."""
    native = check.native(backend, isa)
    groups, threads = check.bytes_of(blocks, "blocks", 3), check.threads(threads)
    if groups.shape[2] not in (16, 32):
        raise InputError(f"blocks: expected groups of 16 or 32 bytes, not {groups.shape[2]}")
    rows = check.integer(rows, "rows", 0, MAX_COLUMNS)
    check.require_blocks(rows, len(groups))
    if native is not None:
        codes: U8 = check.call(native.pq_deinterleave, groups, rows, threads=threads)
        return codes
    return kernels_ref.pq_deinterleave(groups, rows)


def pq_lut(
    queries: Any,
    codebooks: Any,
    *,
    metric: Literal["ip", "l2"] = "ip",
    threads: int = 1,
    backend: Backend = "auto",
    isa: str = "auto",
) -> F32:
    """Lookup tables float32 (n, pq_dim, entries): dot products, or negated squared distances."""
    native = check.native(backend, isa)
    if metric not in ("ip", "l2"):
        raise InputError(f"metric must be 'ip' or 'l2', not {metric!r}")
    books = check.codebooks(codebooks, native)
    rows, threads = (
        check.matrix(queries, "queries", native, books.shape[0] * books.shape[2]),
        check.threads(threads),
    )
    if native is not None:
        luts: F32 = check.call(native.pq_lut, rows, books, metric=metric, threads=threads)
        return luts
    return kernels_ref.pq_lut(rows, books, metric)


def pq_quantize_lut(luts: Any, *, backend: Backend = "auto", isa: str = "auto") -> tuple[U8, F64, F64]:
    """4-bit tables (n, pq_dim, 16) as bytes: (uint8 (n, pq_dim, 16), scale float64 (n,), bias float64 (n,)).

    A score is bias + scale * (sum of bytes); csrc/core/pq_code.hpp gives the formula.
    """
    native = check.native(backend, isa)
    tables = check.luts(luts, native)
    if tables.shape[2] != 16:
        raise InvalidVector(f"luts: expected 16 entries a subspace, not {tables.shape[2]}")
    if native is not None:
        quantized: tuple[U8, F64, F64] = check.call(native.pq_quantize_lut, tables)
        return quantized
    return kernels_ref.pq_quantize_lut(tables)


def pq_scan(
    codes: Any,
    luts: Any,
    k: int,
    *,
    rows: int | None = None,
    threads: int = 1,
    backend: AnyBackend = "auto",
    isa: str = "auto",
) -> tuple[F32, I64]:
    """The k rows of largest approximate score for each table: (values float32 (n, k), indexes int64 (n, k)).

    codes: packed (rows, code size), or blocks of pq_interleave with `rows` (default: all of the blocks'
    rows), which are far faster. luts: of pq_lut. With 8 bits a score is the float32 sum of the table entries
    in the order of the subspaces; with 4 bits, rows are ranked by the exact integer sum over the table of
    pq_quantize_lut. Ties: smaller row first. Behind the rows, values are -inf and indexes -1. k <= 4,096.
    """
    native, operations = check.chosen(backend, isa)
    tables = check.luts(luts, native)
    pq_dim, pq_bits = tables.shape[1], 4 if tables.shape[2] == 16 else 8
    k, threads = check.integer(k, "k", 1, MAX_K), check.threads(threads)
    array = np.asarray(codes)
    if array.ndim == 3:
        packed = check.bytes_of(array, "codes", 3)
        group = (pq_dim, 16 if pq_bits == 4 else 32)
        if packed.shape[1:] != group:
            raise InputError(f"codes: expected blocks of {group}, not {packed.shape[1:]}")
        if rows is None:
            rows = len(packed) * kernels_ref.BLOCK_ROWS
        rows = check.integer(rows, "rows", 0, MAX_COLUMNS)
        check.require_blocks(rows, len(packed))
    else:
        packed = check.codes(array, pq_dim, pq_bits)
        if rows is not None and check.integer(rows, "rows", 0, MAX_COLUMNS) != len(packed):
            raise InputError(f"codes: expected {rows} rows, not {len(packed)}")
        rows = len(packed)
    if native is not None:
        found: tuple[F32, I64] = check.call(native.pq_scan, packed, tables, k, rows=rows, threads=threads)
    else:
        if array.ndim == 3:
            packed = kernels_ref.pq_deinterleave(packed, rows)
        found = operations.pq_scan(kernels_ref.unpack_codes(packed, pq_dim, pq_bits), tables, k)
    return found


def mmr(
    vectors: Any,
    relevance: Any,
    k: int,
    *,
    weight: float = 0.5,
    threads: int = 1,
    backend: Backend = "auto",
    isa: str = "auto",
) -> tuple[F64, I64]:
    """k relevant and different candidates of each problem, in the order of choice: (values float64 (problems,
    k), indexes int64 (problems, k)).

    Maximal marginal relevance (Carbonell and Goldstein, 1998). vectors: (problems, n, dim), n <= 1,024;
    relevance: (problems, n), finite, or -inf where there is no candidate, as results of a search are padded.
    First comes the most relevant candidate; then again and again the one with the largest value weight *
    relevance - (1 - weight) * its largest canonical dot product with those before. weight: 0 to 1; 1 is the
    order of relevance. Ties: smaller index first. Behind the candidates, values are -inf and indexes -1.
    """
    native = check.native(backend, isa)
    rows, scores = check.candidates(vectors, relevance, native)
    k, weight, threads = check.integer(k, "k", 1, MAX_MMR), check.weight(weight), check.threads(threads)
    if native is not None:
        found: tuple[F64, I64] = check.call(native.mmr, rows, scores, k, weight=weight, threads=threads)
        return found
    return kernels_ref.mmr(rows, scores, k, weight)
