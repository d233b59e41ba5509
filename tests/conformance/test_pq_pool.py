"""Native pools with product-quantisation codes: what they refuse, and exact rescoring on every ISA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from warpmem import _cpu
from warpmem.errors import FormatError, IndexCorrupt
from warpmem.index import kernels
from warpmem.index.numpy_ref import NumpyPool
from warpmem.records import SegmentTable

DIM = 40
PADDED = 64
N = 1_500


def codebooks(rows: NDArray[np.float32], pq_dim: int) -> NDArray[np.float32]:
    wide = np.zeros((len(rows), PADDED), np.float32)
    wide[:, :DIM] = rows
    return kernels.pq_train(wide, pq_dim, 4, iterations=4)


def rows_of(seed: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((N, DIM), np.float32)
    lists = rng.integers(-2, 2, N)
    columns = np.stack([rng.integers(0, 100, N), rng.integers(0, 10**6, N)], axis=1)
    return [], lists, rng.permutation(N), np.zeros(N, np.uint32), columns, vectors


def filled(rows: tuple[Any, ...], **options: Any) -> Any:
    pool = _cpu.Pool(DIM, 2, **options)
    pool.apply(*rows)
    pool.apply([(int(a), int(b)) for a, b in zip(rows[1][::5], rows[2][::5], strict=True)], *empty())
    return pool


def empty() -> tuple[Any, ...]:
    nothing = np.zeros(0, np.int64)
    return (
        nothing,
        nothing,
        np.zeros(0, np.uint32),
        np.zeros((0, 2), np.int64),
        np.zeros((0, DIM), np.float32),
    )


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("ranked", {"w_similarity": 0.5, "w_recency": 2.0, "half_life": 1e5, "recency_column": 1, "now": 10**6}),
    ("turned round", {"w_similarity": -1.0}),
    ("near only", {"min_similarity": 2.0}),
]


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("storage", ["f32", "f16", "int8", "pq"])
@pytest.mark.parametrize("isa", _cpu.isas())
def test_rescoring_everything_gives_the_bits_of_the_reference(isa: str, storage: str, metric: str) -> None:
    rows = rows_of(1)
    queries = np.random.default_rng(2).standard_normal((5, DIM), np.float32)
    pool = filled(
        rows, isa=isa, storage=storage, metric=metric, screen="pq", codebooks=codebooks(rows[5], 16)
    )
    assert pool.isa == isa and pool.screen == "pq" and pool.storage == storage
    stored = NumpyPool(DIM, 2, storage="f32" if storage == "pq" else storage, metric=metric)
    if storage == "pq":  # what the codes stand for
        vectors = np.zeros_like(rows[5])
        for list_id in pool.lists():
            ids, ordinals, columns = pool.rows(int(list_id))
            vectors = pool.vectors(int(list_id), ids)
            where = np.full(len(ids), list_id)
            stored.apply([], where, ids, ordinals, columns, vectors)
    else:
        stored.apply(*rows)
        gone = [(int(a), int(b)) for a, b in zip(rows[1][::5], rows[2][::5], strict=True)]
        stored.apply(gone, *empty())
    bitmap = np.full(N // 64 + 1, 0x5555_5555_5555_5555, np.uint64)
    segments: list[Any] = [(q, i, q % 2, (), (), None) for q in range(3) for i in range(-2, 3)]
    segments += [
        (3, i, 0, [(0, 0, 20, 70), (0, 1, 0, 2), (0, 4, 0, 0)], [30, 40], None) for i in range(-2, 2)
    ]
    segments += [(4, 0, 0, (), (), bitmap)]
    for name, ranking in CALLS:
        found = pool.scan(queries, segments, 7, refine=1 if storage == "pq" else 300, **ranking)
        expected = stored.scan(queries, segments, 7, **ranking)
        for part, known in zip(found, expected, strict=True):
            assert part.tobytes() == known.tobytes(), name


def test_refine_is_how_many_rows_are_rescored() -> None:
    rows = rows_of(3)
    pool = filled(rows, screen="pq", codebooks=codebooks(rows[5], 16))
    queries = rows[5][:20].copy()
    table = SegmentTable(np.repeat(np.arange(20), 4), np.tile(np.arange(-2, 2), 20))
    exact = pool.scan(queries, table, 5, refine=300, explain=True)
    assert exact[5]["rows_rescored"] == exact[5]["rows_seen"] == 20 * 1200
    share = []
    for refine in (1, 4, 20):
        found = pool.scan(queries, table, 5, refine=refine, explain=True)
        assert found[5]["rows_rescored"] == 20 * 5 * refine
        assert found[5]["variant"].endswith("/pq")
        share.append((found[3][:, :, None] == exact[3][:, None, :]).any(axis=1).mean())
    assert share == sorted(share) and share[0] < 0.6 and 0.9 < share[2] < 1.0


@pytest.mark.parametrize("isa", _cpu.isas())
def test_a_shortlist_is_the_best_by_codes(isa: str) -> None:
    """However scores crowd, and of equal ones those that come first."""
    rng = np.random.default_rng(8)
    few = rng.standard_normal((7, DIM), np.float32)
    spread = rng.standard_normal((900, DIM), np.float32) * np.float32(1e-3)
    far = rng.standard_normal((3, DIM), np.float32) * np.float32(30)
    vectors = np.concatenate([few[rng.integers(0, 7, 900)], spread, far])[rng.permutation(1803)]
    books = codebooks(rng.standard_normal((500, DIM), np.float32), 16)
    pool = _cpu.Pool(DIM, 0, isa=isa, screen="pq", codebooks=books)
    codes = _cpu.Pool(DIM, 0, isa=isa, storage="pq", codebooks=books)
    n = len(vectors)
    for target in (pool, codes):
        nothing = np.zeros((n, 0), np.int64)
        target.apply([], np.zeros(n, np.int64), np.arange(n), np.arange(n, dtype=np.uint32), nothing, vectors)
    wide = np.zeros((1, PADDED), np.float32)
    for query in rng.standard_normal((6, DIM), np.float32):
        wide[0, :DIM] = query
        lut = np.einsum("sd,scd->sc", wide.reshape(16, -1), books, dtype=np.float64).astype(np.float32)
        quantized = kernels.pq_quantize_lut(lut[None])[0][0].astype(np.int64)
        decoded = np.zeros((n, PADDED), np.float32)
        decoded[:, :DIM] = codes.vectors(0, np.arange(n))
        pieces = decoded.reshape(n, 16, -1)
        known = np.zeros_like(books)
        known[:] = books
        known.reshape(PADDED // books.shape[2], 16, -1)[DIM // books.shape[2] :] = 0
        code = (pieces[:, :, None, :] == known[None]).all(axis=3).argmax(axis=2)
        sums = quantized[np.arange(16), code].sum(axis=1)
        order = np.lexsort((np.arange(n), -sums))
        for keep in (1, 5, 60, 400, 700):
            found = pool.scan(query[None], [(0, 0, 0, (), (), None)], keep, refine=1, min_similarity=-1e9)
            assert set(found[3][0].tolist()) == set(order[:keep].tolist())


def test_ranks_join_two_pools() -> None:
    rows = rows_of(4)
    pool = filled(rows, screen="pq", codebooks=codebooks(rows[5], 16))
    plan = pool.scan(rows[5][:2].copy(), [(0, 0, 7, (), (), None)], 3, ranks=True)[5]
    assert plan["groups"].tolist() == [[7, 7, 7], [0, 0, 0]]
    assert plan["ordinals"].dtype == np.uint32 and plan["ordinals"].shape == (2, 3)
    assert "groups" not in pool.scan(rows[5][:2].copy(), [(0, 0, 7, (), (), None)], 3, explain=True)[5]


def test_trimmed_pools_change_as_before() -> None:
    rows = rows_of(5)
    pool = filled(rows, storage="pq", codebooks=codebooks(rows[5], 16))
    other = filled(rows, storage="pq", codebooks=codebooks(rows[5], 16))
    full = pool.stats()["bytes"]
    pool.trim()
    assert pool.stats()["bytes"] < full
    for target in (pool, other):
        target.apply([(int(rows[1][1]), int(rows[2][1]))], *(part[:50].copy() for part in rows[1:]))
    assert pool.stats()["rows"] == other.stats()["rows"]
    assert (
        pool.vectors(int(rows[1][2]), rows[2][2:3].copy()).tobytes()
        == other.vectors(int(rows[1][2]), rows[2][2:3].copy()).tobytes()
    )


def test_codebooks_come_back() -> None:
    books = codebooks(rows_of(6)[5], 8)
    pool = _cpu.Pool(DIM, 0, screen="pq", codebooks=books)
    found = pool.codebooks
    assert found is not None
    flat, given = (part.transpose(0, 2, 1).reshape(PADDED, 16) for part in (found, books))
    assert (flat[:DIM] == given[:DIM]).all() and (flat[DIM:] == 0).all()
    assert _cpu.Pool(DIM, 0).codebooks is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"screen": "pq"}, "need codebooks"),
        ({"storage": "pq"}, "need codebooks"),
        ({"codebooks": np.zeros((16, 16, 4), np.float32)}, "go with screen='pq'"),
        ({"screen": "pq", "codebooks": np.zeros((16, 16, 3), np.float32)}, "64 dimensions in all.*not 48"),
        ({"screen": "pq", "codebooks": np.zeros((16, 8, 4), np.float32)}, "expected 16 entries, not 8"),
        ({"screen": "pq", "codebooks": np.full((16, 16, 4), np.nan, np.float32)}, "NaN"),
        ({"screen": "pq", "codebooks": np.zeros((0, 16, 4), np.float32)}, "subspaces"),
        ({"screen": "none", "storage": "pq"}, "need codebooks"),
    ],
)
def test_pools_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cpu.Pool(DIM, 0, **options)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="must be float32, not float64"):
        _cpu.Pool(DIM, 0, screen="pq", codebooks=np.zeros((16, 16, 4)))  # type: ignore[arg-type]
    pool = _cpu.Pool(DIM, 0, screen="pq", codebooks=np.zeros((16, 16, 4), np.float32))
    for refine in (0, 5000):
        with pytest.raises(ValueError, match="refine must be within 1 and 4096"):
            pool.scan(np.zeros((1, DIM), np.float32), [], 1, refine=refine)


def test_files_refuse_what_was_not_written(tmp_path: Path) -> None:
    rows = rows_of(7)
    path = tmp_path / "index"
    filled(rows, storage="pq", codebooks=codebooks(rows[5], 16)).save(path, {"note": b"1"})
    pool, sections = _cpu.open_pool(path)
    assert pool.storage == "pq" and pool.screen == "pq" and list(sections) == ["note"]
    data = path.read_bytes()
    queries = rows[5][:3].copy()
    segments: list[Any] = [(q, i, 0, (), (), None) for q in range(3) for i in range(-2, 2)]
    right = pool.scan(queries, segments, 5)
    rng = np.random.default_rng(8)
    for at in [8, 32, 40, 132, *rng.integers(0, len(data), 300).tolist()]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            damaged, _ = _cpu.open_pool(path)
            found = damaged.scan(queries, segments, 5)
        except (IndexCorrupt, FormatError):
            continue
        for part, known in zip(found, right, strict=True):
            assert part.tobytes() == known.tobytes()
