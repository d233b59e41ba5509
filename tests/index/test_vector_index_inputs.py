"""What VectorIndex takes and refuses. A refusal is a typed error and changes nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pytest

from vector_indexes import BACKENDS, COLUMNS, T0, state_of
from warpmem import RankBy, VectorIndex
from warpmem.errors import (
    BackendUnavailable,
    InputError,
    InvalidFilter,
    InvalidTime,
    InvalidVector,
    NotFound,
)

DIM = 3
ROWS = np.array([[1, 2, 3], [4, 5, 6], [-1, 0, 2], [0, 1, 0]], np.float32)
NAN = np.array([[1, 2, 3], [1, np.nan, 3]], np.float32)
INF = np.array([[1, 2, np.inf]], np.float32)
BIG = np.array([[1e300, 1, 1]])
ZERO = np.array([[1, 2, 3], [0, 0, 0]], np.float32)


def make(**options: Any) -> VectorIndex:
    index = VectorIndex(DIM, **{"columns": COLUMNS, "threads": 1, **options})
    index.add(
        ROWS, ids=[3, 5, 8, 9], owners=[1, 1, 2, 2], attributes={"n": [1, 2, None, 4], "s": list("abca")}
    )
    return index


class Speaks:
    """Holds an array and offers only the given protocol."""

    def __init__(self, array: Any) -> None:
        self.array = array


class Dlpack(Speaks):
    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnDevice(Speaks):
    """Like an array in a CUDA device's memory."""

    __cuda_array_interface__: ClassVar[Any] = {
        "shape": (4, 3),
        "typestr": "<f4",
        "data": (0, False),
        "version": 3,
    }

    def __dlpack_device__(self) -> Any:
        return (2, 0)

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("on a device")


class CupyLike(OnDevice):
    def get(self) -> Any:
        return self.array


class TorchLike(OnDevice):
    def cpu(self) -> Any:
        return Dlpack(self.array)


class NumbaLike(Speaks):
    __cuda_array_interface__: ClassVar[Any] = OnDevice.__cuda_array_interface__

    def copy_to_host(self) -> Any:
        return self.array


class Arrayish(Speaks):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.array, dtype)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array: Any) -> Any:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(np.float32).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


ACCEPTED = {
    "float32": ROWS,
    "float16": ROWS.astype(np.float16),
    "float64": ROWS.astype(np.float64),
    "big endian": ROWS.astype(">f4"),
    "int64": ROWS.astype(np.int64),
    "int8": ROWS.astype(np.int8),
    "columns first": np.asfortranarray(ROWS),
    "strided": np.repeat(ROWS, 2, axis=0)[::2],
    "reversed": ROWS[::-1].copy()[::-1],
    "read-only": read_only(ROWS),
    "unaligned": unaligned(ROWS),
    "matrix": ROWS.view(np.matrix),
    "lists": ROWS.tolist(),
    "tuple of arrays": tuple(ROWS),
    "DLPack": Dlpack(ROWS),
    "CuPy": CupyLike(ROWS),
    "torch on a device": TorchLike(ROWS),
    "Numba": NumbaLike(ROWS),
    "__array__": Arrayish(ROWS),
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_accepted(name: str, metric: Any) -> None:
    expected = VectorIndex(DIM, metric=metric, threads=1)
    expected.add(ROWS)
    index = VectorIndex(DIM, metric=metric, threads=1)
    assert index.add(ACCEPTED[name]).tolist() == [0, 1, 2, 3]
    assert index.vectors(range(4)).tobytes() == expected.vectors(range(4)).tobytes()
    found, wanted = index.search(ACCEPTED[name], 2), expected.search(ROWS, 2)
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.scores.tobytes() == wanted.scores.tobytes()


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    index = VectorIndex(DIM, threads=1)
    index.add(torch.from_numpy(ROWS.copy()))
    index.update(0, torch.ones(3, dtype=torch.float64))
    assert index.search(torch.ones(3), 1).ids.tolist() == [[0]]
    with pytest.raises(InvalidVector, match="cannot be read"):
        index.add(torch.ones(3, requires_grad=True))


def test_float32_is_read_in_place() -> None:
    from warpmem.index.inputs import as_rows

    for array in (ROWS, read_only(ROWS), ROWS[1:3]):
        assert np.shares_memory(as_rows(array, DIM, "vectors"), array)
    assert np.shares_memory(as_rows(Dlpack(ROWS), DIM, "vectors"), ROWS)
    assert not np.shares_memory(as_rows(np.asfortranarray(ROWS), DIM, "vectors"), ROWS)


def test_what_is_kept_is_a_copy() -> None:
    index = VectorIndex(DIM, metric="ip", threads=1)
    rows, ids, owners = ROWS.copy(), np.array([7, 8, 9, 10]), np.array([1, 1, 1, 2])
    given = index.add(rows, ids=ids, owners=owners)
    rows[:], ids[:], owners[:], given[:] = 0, 0, 0, 0
    assert index.vectors([7, 8, 9, 10]).tolist() == ROWS.tolist()
    assert index.search(ROWS[3], 3, owners=2).ids.tolist() == [[10, -1, -1]]


def test_one_vector_and_none() -> None:
    index = VectorIndex(DIM, threads=1)
    assert index.add(ROWS[0]).tolist() == [0]
    for nothing in (np.zeros((0, DIM)), ROWS[:0]):
        ids = index.add(nothing, ids=[], owners=[], attributes=None)
        assert ids.dtype == np.int64 and ids.shape == (0,)
        found = index.search(nothing, 4, explain=True)
        assert found.ids.shape == found.scores.shape == (0, 4)
    index.update([], np.zeros((0, DIM)))
    assert index.remove([]) == 0
    assert index.vectors([]).shape == (0, DIM)
    assert index.search(ROWS[0], 1).ids.shape == (1, 1)
    assert len(index) == 1
    assert 0 in index and np.int64(0) in index
    assert not any(odd in index for odd in (1, -1, 2**63, 2**70, "0", 0.0, None, False))


BAD_ROWS: list[tuple[Any, Any, str]] = [
    (np.ones((2, 4)), InvalidVector, "expected 3 dimensions, not 4"),
    (np.ones(4), InvalidVector, "expected 3 dimensions, not 4"),
    ([], InvalidVector, "expected 3 dimensions, not 0"),
    (np.ones((2, 2, 3)), InvalidVector, "1 or 2 axes .*, not 3"),
    (np.float32(1), InvalidVector, "1 or 2 axes .*, not 0"),
    (NAN, InvalidVector, "1 of the 3 values in row 1 are NaN"),
    (INF, InvalidVector, "1 of the 3 values in row 0"),
    (BIG, InvalidVector, "too large for float32"),
    (np.ones((2, 3), complex), InvalidVector, "real numbers, not complex128"),
    (np.ones((2, 3), bool), InvalidVector, "real numbers, not bool"),
    ([["1", "2", "3"]], InvalidVector, "real numbers, not str"),
    ([[1, 2], [1, 2, 3]], InvalidVector, "cannot be read"),
    ("abc", InvalidVector, "not str"),
    (None, InvalidVector, "not NoneType"),
    (object(), InvalidVector, "real numbers, not object"),
    (np.ma.masked_array(ROWS, ROWS > 3), InvalidVector, "masked"),
    (OnDevice(ROWS), InvalidVector, "cannot be read"),
]
TWO = ROWS[:2]
BAD_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], Any, str]] = [
    *(("add", (rows,), {}, error, words) for rows, error, words in BAD_ROWS),
    *(("search", (rows,), {}, error, words) for rows, error, words in BAD_ROWS),
    *(("update", ([3, 5], rows), {}, error, words) for rows, error, words in BAD_ROWS if rows is not None),
    ("add", (ZERO,), {}, InvalidVector, "row 1 of 2 is all zero"),
    ("search", (ZERO,), {}, InvalidVector, "row 1 of 2 is all zero"),
    ("update", ([3, 5], ZERO), {}, InvalidVector, "row 1 of 2 is all zero"),
    ("add", (TWO,), {"ids": [1]}, InputError, "expected 2 entries, one a vector, not 1"),
    ("add", (TWO,), {"ids": [1, 1]}, InputError, "1 is given more than once"),
    ("add", (TWO,), {"ids": [1, -1]}, InputError, "from 0 to 9223372036854775807, not -1"),
    ("add", (TWO,), {"ids": np.array([1, 2**63], np.uint64)}, InputError, "not 9223372036854775808"),
    ("add", (TWO,), {"ids": [1, 2**70]}, InputError, "must be integers, not object"),
    ("add", (TWO,), {"ids": [1, 3]}, InputError, "1 of the 2 ids are in the index, 3 among them"),
    ("add", (TWO,), {"ids": [0.5, 1]}, InputError, "must be integers, not float64"),
    ("add", (TWO,), {"ids": [True, False]}, InputError, "must be integers, not bool"),
    ("add", (TWO,), {"ids": "12"}, InputError, "must be integers, not str"),
    ("add", (TWO,), {"ids": [[1, 2]]}, InputError, "expected 1 axis, not 2"),
    ("add", (TWO[0],), {"ids": -1}, InputError, "not -1"),
    ("add", (TWO,), {"owners": [1]}, InputError, "owners: expected 2 entries, one a vector, not 1"),
    ("add", (TWO,), {"owners": [1, -1]}, InputError, "owners must be from 0"),
    ("add", (TWO,), {"owners": -1}, InputError, "owners must be from 0"),
    ("add", (TWO,), {"owners": 2**63}, InputError, "owners must be from 0"),
    ("add", (TWO,), {"owners": [1.0, 2.0]}, InputError, "integers, not float64"),
    ("add", (TWO,), {"owners": True}, InputError, "integers, not bool"),
    ("add", (TWO,), {"owners": "me"}, InputError, "integers, not str"),
    ("add", (TWO,), {"attributes": {"gone": [1, 2]}}, InputError, "no column 'gone'"),
    ("add", (TWO,), {"attributes": {"s": ["new", 5]}}, InputError, "value 1 must be a string, not int"),
    ("add", (TWO,), {"attributes": {"s": ["new", "b"], "n": ["x", 1]}}, InputError, "must be an integer"),
    ("add", (TWO,), {"attributes": {"n": [1]}}, InputError, "expected 2 values, not 1"),
    ("add", (TWO,), {"attributes": [1, 2]}, InputError, "must be a dict"),
    ("add", (NAN,), {"attributes": {"s": ["new", "newer"]}}, InvalidVector, "NaN"),
    ("add", (TWO,), {"ids": [3, 4], "attributes": {"s": ["new", "newer"]}}, InputError, "in the index"),
    ("add", (TWO,), {"attributes": {"t": [T0, datetime(2026, 1, 1)]}}, InvalidTime, "naive"),
    ("update", ([3, 4], TWO), {}, NotFound, "1 of the 2 ids are not in the index"),
    ("update", ([3, 3], TWO), {}, InputError, "3 is given more than once"),
    ("update", ([3, 5, 8], TWO), {}, InvalidVector, "expected 3 rows, one an id, not 2"),
    ("update", ([3, 4],), {"attributes": {"s": ["new", "newer"]}}, NotFound, "not in the index"),
    ("update", ([3, 5],), {"attributes": {"s": ["new", 1]}}, InputError, "must be a string"),
    ("update", ([3, 5],), {"attributes": {"gone": 1}}, InputError, "no column 'gone'"),
    ("update", (-1, TWO), {}, InputError, "not -1"),
    ("update", (None, TWO), {}, InputError, "not NoneType"),
    ("remove", (-1,), {}, InputError, "not -1"),
    ("remove", ([3, -1],), {}, InputError, "not -1"),
    ("remove", (["3"],), {}, InputError, "integers, not str"),
    ("remove", (None,), {}, InputError, "not NoneType"),
    ("remove", (2.0,), {}, InputError, "integers, not float"),
    ("vectors", ([3, 4],), {}, NotFound, "1 of the 2 ids"),
    ("vectors", ("3",), {}, InputError, "integers, not str"),
    ("search", (TWO, 0), {}, InputError, "k must be an integer from 1 to 4096, not 0"),
    ("search", (TWO, 4097), {}, InputError, "from 1 to 4096, not 4097"),
    ("search", (TWO, 1.0), {}, InputError, "not float"),
    ("search", (TWO, True), {}, InputError, "not bool"),
    ("search", (TWO,), {"owners": [1]}, InputError, "expected 2 entries, one a query, not 1"),
    ("search", (TWO,), {"owners": [1, -1]}, InputError, "owners must be from 0"),
    ("search", (TWO,), {"owners": -1}, InputError, "owners must be from 0"),
    ("search", (TWO,), {"owners": [[1, -2], [1, 2]]}, InputError, "owners must be from 0"),
    ("search", (TWO,), {"owners": [[[1]], [[2]]]}, InputError, "1 or 2 axes, not 3"),
    ("search", (TWO,), {"owners": [0.5, 1]}, InputError, "integers, not float64"),
    ("search", (TWO,), {"owners": "me"}, InputError, "integers, not str"),
    ("search", (TWO,), {"filter": {"gone": 1}}, InvalidFilter, "no such column"),
    ("search", (TWO,), {"filter": [1]}, InvalidFilter, "expected an object"),
    ("search", (TWO,), {"filter": {"n": {"~": 1}}}, InvalidFilter, "unknown operator"),
    ("search", (TWO,), {"ranking": {"recency": 1}}, InputError, "must be a warpmem.RankBy, not dict"),
    ("search", (TWO,), {"ranking": RankBy(recency=1, recency_column="n")}, InputError, "is int64, not time"),
    ("search", (TWO,), {"ranking": RankBy(recency_column="gone")}, InputError, "no column 'gone'"),
    ("search", (TWO,), {"ranking": RankBy(priority=1, priority_column="t")}, InputError, "not float64"),
    (
        "search",
        (TWO,),
        {"ranking": RankBy(recency=1, recency_column="t", now=datetime(2026, 1, 1))},
        InvalidTime,
        "naive",
    ),
    ("search", (TWO,), {"n_probes": 4}, InputError, "n_probes tune an approximate index"),
    ("search", (TWO,), {"refine": 0}, InputError, "refine must be an integer from 1"),
    ("train", (TWO,), {}, InputError, 'train\\(\\) is for storage="pq"'),
    ("save", (None,), {}, InputError, "path must be a path"),
    ("save", ("a\0b",), {}, InputError, "NUL"),
    ("save", ("",), {}, InputError, "not empty"),
    ("save", (b"name",), {}, InputError, "must be a path"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", range(len(BAD_CALLS)))
def test_refused_and_nothing_changed(case: int, backend: str) -> None:
    method, args, options, error, words = BAD_CALLS[case]
    index = make(backend=backend)
    before = state_of(index)
    with pytest.raises(error, match=words):
        getattr(index, method)(*args, **options)
    assert state_of(index) == before
    assert index.add(ROWS[0]).tolist() == [10]


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_metrics_without_a_direction(metric: Any, backend: str) -> None:
    index = make(metric=metric, backend=backend)
    before = state_of(index)
    for rows in (NAN, INF, BIG):
        for call in (lambda rows: index.add(rows, attributes={"s": "new"}), index.search):
            with pytest.raises(InvalidVector):
                call(rows)
        with pytest.raises(InvalidVector):
            index.update(list(range(len(rows))), rows)
    assert state_of(index) == before
    huge = np.full((1, 3), 3e38, np.float32)  # finite, though its square is not
    (row_id,) = index.add(huge)
    assert index.vectors(row_id).tolist() == huge.tolist()
    zero = np.zeros((1, 3), np.float32)
    (row_id,) = index.add(zero)
    assert index.search(zero, 9).ids.tolist()[0].count(row_id) == 1


def test_half_precision_has_a_limit() -> None:
    index = make(metric="ip", storage="f16")
    before = state_of(index)
    for method in (
        lambda rows: index.add(rows, attributes={"s": "new"}),
        lambda rows: index.update([3, 5], rows),
    ):
        with pytest.raises(InvalidVector, match="row 1 exceeds 65504"):
            method(np.array([[1, 2, 3], [1, -65520, 3]], np.float32))
    assert state_of(index) == before
    assert index.search(np.array([1e5, 0, 0], np.float32), 1).ids.shape == (1, 1)
    (row_id,) = index.add(np.array([65519, 0, 0], np.float32))
    assert index.vectors(row_id).tolist() == [[65504, 0, 0]]


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ((0,), {}, "dim must be an integer from 1 to 65536, not 0"),
        ((65537,), {}, "not 65537"),
        (("3",), {}, "not str"),
        ((3.0,), {}, "not float"),
        ((True,), {}, "not bool"),
        ((3,), {"metric": "dot"}, "metric must be one of cosine, ip, l2, not 'dot'"),
        ((3,), {"metric": None}, "not NoneType"),
        ((3,), {"storage": "f64"}, "storage must be one of f32, f16, int8, pq, not 'f64'"),
        ((3,), {"recall": 0.0}, "recall must be"),
        ((3,), {"recall": 1.5}, "recall must be"),
        ((3,), {"recall": True}, "recall must be"),
        ((3,), {"recall": float("nan")}, "recall must be"),
        ((3,), {"threads": 0}, "threads must be an integer from 1 to 1024, not 0"),
        ((3,), {"threads": 1025}, "not 1025"),
        ((3,), {"backend": None}, "backend must be a name, not NoneType"),
        ((3,), {"columns": {"a": "text"}}, "the type must be one of"),
    ],
)
def test_constructor_refuses(args: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        VectorIndex(*args, **options)


def test_unknown_backends() -> None:
    for name in ("gpu", "cuda", ""):
        with pytest.raises(BackendUnavailable):
            VectorIndex(3, backend=name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"similarity": -1.0}, "similarity must be a number from 0"),
        ({"recency": True, "recency_column": "t"}, "recency must be a number"),
        ({"recency": 1.0}, "needs recency_column"),
        ({"priority": 1.0}, "needs priority_column"),
        ({"priority_column": 5}, "must be a string, not int"),
        ({"half_life": timedelta(0)}, "half_life"),
        ({"half_life": timedelta(days=365_251)}, "1,000 years"),
        ({"half_life": 5}, "half_life"),
        ({"now": 5}, "must be a datetime, not int"),
    ],
)
def test_rank_by_refuses(options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RankBy(**options)
