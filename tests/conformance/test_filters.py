"""Terms as programs, and segment tables: every backend and instruction set against plain NumPy."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pools import BACKENDS, N_COLUMNS, make_pools, make_rows, native_isas, scan_all
from warpmem.index.cpu import CpuBackend
from warpmem.records import AND, MEMBERSHIP, NOT, OR, RANGE, SegmentTable, Term

DIM, ROWS, LISTS = 3, 500, 3
TOP = (1 << 63) - 1
VALUES = sorted({-TOP - 1, TOP, *range(-40, 41, 3)})
JOINS: list[Term] = [(0, AND, 0, 0), (0, OR, 0, 0), (0, NOT, 0, 0)]


def _pools() -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pools with rows removed again, and what is in them: lists, row ids, columns."""
    rng = np.random.default_rng(7)
    pools: dict[str, Any] = dict(make_pools(DIM))
    lists, ids = rng.integers(0, LISTS, ROWS), rng.permutation(ROWS)
    columns = rng.integers(-40, 41, (ROWS, N_COLUMNS))
    columns[rng.random(columns.shape) < 0.05] = TOP
    columns[rng.random(columns.shape) < 0.05] = -TOP - 1
    vectors = make_rows("random", ROWS, DIM, 1)
    gone = [(int(lists[i]), int(ids[i])) for i in range(0, ROWS, 7)]
    none = np.zeros(0, np.int64)
    for pool in pools.values():
        pool.apply([], lists, ids, ids.astype(np.uint32), columns, vectors)
        pool.apply(gone, none, none, none.astype(np.uint32), columns[:0], vectors[:0])
    here = np.arange(ROWS) % 7 != 0
    return pools, lists[here], ids[here], columns[here]


POOLS, LIST_IDS, ROW_IDS, COLUMNS = _pools()
QUERY = np.ones((1, DIM), np.float32)

cells = st.integers(-45, 45) | st.sampled_from([-TOP - 1, TOP])
columns = st.integers(0, N_COLUMNS - 1)
tests = st.tuples(columns, st.just(RANGE), cells, cells) | st.builds(
    lambda column, a, b: (column, MEMBERSHIP, min(a, b), max(a, b)),
    columns,
    st.integers(0, len(VALUES)),
    st.integers(0, len(VALUES)),
)


@st.composite
def programs(draw: st.DrawFn) -> list[Term]:
    """Any mixture of tests and operations that never meets a stack too short."""
    program: list[Term] = []
    depth = 0
    for wanted in draw(st.lists(st.integers(0, 5), max_size=40)):
        if wanted == NOT and depth >= 1:
            program.append(JOINS[2])
        elif wanted in (AND, OR) and depth >= 2:
            program.append(JOINS[wanted - AND])
            depth -= 1
        else:
            program.append(draw(tests))
            depth += 1
    return program


def evaluate(program: list[Term]) -> NDArray[np.bool_]:
    """Which of all rows a program holds for, read term by term."""
    stack: list[NDArray[np.bool_]] = []
    for column, op, lo, hi in program:
        cell = COLUMNS[:, column]
        if op == RANGE:
            stack.append(np.array([lo <= int(x) <= hi for x in cell], bool))
        elif op == MEMBERSHIP:
            stack.append(np.array([int(x) in VALUES[lo:hi] for x in cell], bool))
        elif op == NOT:
            stack[-1] = np.logical_not(stack[-1])
        else:
            join = np.logical_and if op == AND else np.logical_or
            stack[-2:] = [join(stack[-2], stack[-1])]
    return np.logical_and.reduce(stack, axis=0) if stack else np.ones(len(COLUMNS), bool)


@settings(max_examples=60, deadline=None)
@given(programs(), st.none() | st.binary(min_size=8, max_size=72))
def test_programs_hold_where_numpy_says(program: list[Term], bits: bytes | None) -> None:
    words = None if bits is None else np.frombuffer(bits[: len(bits) // 8 * 8], np.uint64)
    wanted = evaluate(program)
    if words is not None:
        bits_of = np.unpackbits(words.view(np.uint8), bitorder="little")
        wanted &= [i < len(bits_of) and bits_of[i] == 1 for i in ROW_IDS.tolist()]
    segments = [(0, i, 0, program, VALUES, words) for i in range(LISTS)]
    found = scan_all(POOLS, QUERY, segments, ROWS)
    rows = set(zip(found[2][0].tolist(), found[3][0].tolist(), strict=True)) - {(-1, -1)}
    assert rows == set(zip(LIST_IDS[wanted].tolist(), ROW_IDS[wanted].tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    programs(),
    st.lists(st.tuples(st.integers(0, 4), st.integers(-1, LISTS)), max_size=30),
    st.sampled_from([1, 5, 200]),
)
def test_a_table_is_the_list_of_its_segments(
    program: list[Term], pairs: list[tuple[int, int]], k: int
) -> None:
    queries = make_rows("random", 5, DIM, 3)
    table = SegmentTable(
        np.array([q for q, _ in pairs], np.int64), np.array([i for _, i in pairs], np.int64), program, VALUES
    )
    as_table = scan_all(POOLS, queries, table, k)
    as_list = scan_all(POOLS, queries, [(q, i, 0, program, VALUES, None) for q, i in pairs], k)
    assert [part.tobytes() for part in as_table] == [part.tobytes() for part in as_list]


def test_filters_that_share_nothing_are_kept_apart() -> None:
    """Many short-lived filters, whose objects could take each other's addresses."""
    program = [[(0, RANGE, i % 9 - 40, 40), (1, RANGE, -40, 40 - i % 5), JOINS[i % 2]] for i in range(200)]
    found = scan_all(
        POOLS, QUERY, [(0, 0, i, list(terms), [], None) for i, terms in enumerate(program)], 4096
    )
    wanted = sum(int((evaluate(terms) & (LIST_IDS == 0)).sum()) for terms in program)
    assert found[4][0] == min(wanted, 4096)
    narrow = [(0, 0, i, [(0, RANGE, i - 40, i - 40)], (), None) for i in range(81)]
    found = scan_all(POOLS, QUERY, narrow, 500)
    assert found[4][0] == ((LIST_IDS == 0) & evaluate([(0, RANGE, -40, 40)])).sum()


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("count", [1, 15, 16, 17, 31, 64, 1000])
def test_membership_of_every_size(name: str, count: int) -> None:
    """Few values are compared one by one, many are searched; doubled ones and the extremes among them."""
    rng = np.random.default_rng(count)
    values = np.sort(rng.integers(-60, 60, count))
    values[-1], values[0] = TOP, -TOP - 1
    found = POOLS[name].scan(
        QUERY, [(0, i, 0, [(2, MEMBERSHIP, 0, count)], values.tolist(), None) for i in range(3)], ROWS
    )
    assert found[4][0] == np.isin(COLUMNS[:, 2], values).sum()


DEEP: list[Term] = [(0, RANGE, -40, 40)] * 64
BAD: list[tuple[list[Any], str]] = [
    ([JOINS[2]], "term 0 meets 0 tests on the stack"),
    ([JOINS[0]], "term 0 meets 0"),
    ([DEEP[0], JOINS[1]], "term 1 meets 1 tests"),
    ([DEEP[0], DEEP[0], JOINS[0], JOINS[0]], "term 3 meets 1 tests"),
    ([*DEEP, DEEP[0]], "term 64 meets 64 tests .* room for 64"),
    ([DEEP[0], (1, NOT, 0, 0)], "column of AND, OR and NOT must be within 0 and 0, not 1"),
    ([DEEP[0], (0, NOT, 1, 0)], "lo of AND, OR and NOT"),
    ([DEEP[0], (0, NOT, 0, -1)], "hi of AND, OR and NOT"),
    ([(0, 5, 0, 0)], "op must be within 0 and 4, not 5"),
    ([(0, -1, 0, 0)], "op must be within 0 and 4, not -1"),
    ([(0, RANGE, 0)], "4 members, not 3"),
    ([(3, RANGE, 0, 0)], "column must be within 0 and 2, not 3"),
    ([(0, MEMBERSHIP, 0, 1 << 40)], "slice within 0 and 1"),
]


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(("program", "match"), BAD)
def test_refused_programs(name: str, program: list[Any], match: str) -> None:
    one = np.zeros(1, np.int64)
    for segments in ([(0, 0, 0, program, [5], None)], SegmentTable(one, one, program, [5])):
        with pytest.raises(ValueError, match=match):
            POOLS[name].scan(QUERY, segments, 3)


def test_the_deepest_program_is_taken() -> None:
    both = [*DEEP, *[JOINS[0]] * 63, *DEEP[1:], *[JOINS[1]] * 63]
    for program in (DEEP, both):
        found = scan_all(POOLS, QUERY, [(0, i, 0, program, [], None) for i in range(3)], ROWS)
        assert found[4][0] == evaluate(DEEP[:1]).sum()


ONE = np.zeros(1, np.int64)
BAD_TABLES: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    (([0], ONE), TypeError, "segment queries must be a NumPy array of int64, not list"),
    ((ONE.astype(np.int32), ONE), TypeError, "segment queries must be int64, not int32"),
    ((ONE, ONE.astype(float)), TypeError, "segment lists must be int64, not float64"),
    ((ONE, np.zeros(2, np.int64)), ValueError, "segment lists: expected 1 entries, not 2"),
    ((ONE[None], ONE), ValueError, "segment queries: expected 1 axes, not 2"),
    ((np.zeros(4, np.int64)[::2], np.zeros(2, np.int64)), ValueError, "must be C-contiguous"),
    ((np.array([0, 2]), np.zeros(2, np.int64)), ValueError, "segment 1 names query 2, but there are 1"),
    ((np.array([0, -1]), np.zeros(2, np.int64)), ValueError, "segment 1 names query -1"),
    ((ONE, ONE, 5), TypeError, "."),
    ((ONE, ONE, (), [1.5]), TypeError, "membership value must be an integer, not float"),
    ((ONE, ONE, [(0, MEMBERSHIP, 0, 2)], [2, 1]), ValueError, "ascending"),
]


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize(("parts", "error", "match"), BAD_TABLES)
def test_refused_tables(name: str, parts: tuple[Any, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        POOLS[name].scan(QUERY, SegmentTable(*parts), 3)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_edges_of_tables(name: str) -> None:
    pool = POOLS[name]
    empty = np.zeros(0, np.int64)
    assert pool.scan(QUERY, SegmentTable(empty, empty), 3)[4].tolist() == [0]
    assert pool.scan(np.ones((0, DIM), np.float32), SegmentTable(empty, empty), 3)[0].shape == (0, 3)
    assert pool.scan(QUERY, SegmentTable(ONE, ONE - 99), 3)[4].tolist() == [0]
    with pytest.raises(ValueError, match="segment 0 names query 0, but there are 0 queries"):
        pool.scan(np.ones((0, DIM), np.float32), SegmentTable(ONE, ONE), 3)


class Shrinking:
    """An integer that empties a list when it is read."""

    def __init__(self, victim: list[Any]) -> None:
        self.victim = victim

    def __index__(self) -> int:
        self.victim.clear()
        return 0


@pytest.mark.parametrize("name", list(BACKENDS))
def test_arguments_that_change_while_they_are_read(name: str) -> None:
    """Whatever comes of it, nothing is read where nothing is any more."""
    values: list[Any] = []
    values += [Shrinking(values), 1, 2]
    terms: list[Any] = []
    terms += [[Shrinking(terms), 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    segment: list[Any] = []
    segment += [Shrinking(segment), 0, 0, [], [], None]
    every: list[Any] = []
    every += [(0, 0, 0, [], [Shrinking(every)], None), (0, 0, 0, [], [], None)]
    empty = [(0, 0, 0, [], [], None)]
    for segments in ([(0, 0, 0, [], values, None)], [(0, 0, 0, terms, [], None)], [segment], every, empty):
        with contextlib.suppress(ValueError):
            assert len(POOLS[name].scan(QUERY, segments, 3)) == 5


def sorted_columns(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Times that grow with few exceptions, a kind that holds for long runs of rows, random priorities."""
    times = np.arange(n) * 1000 + rng.integers(0, 5000, n)
    times[rng.integers(0, n, 5)] = rng.choice([-TOP - 1, TOP], 5)
    kinds = np.repeat(rng.integers(0, 4, n // 100 + 1), 100)[:n]
    return np.stack([times, kinds, rng.uniform(-1, 1, n).view(np.int64)], axis=1)


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_screened_scans_filter_early_or_late(metric: str) -> None:
    """Filters that refuse few rows, most rows, whole pages, all of some chunks: the rows are the same."""
    n, dim = 9000, 64
    rng = np.random.default_rng(11)
    vectors = make_rows("random", n, dim, 5)
    columns, ids = sorted_columns(rng, n), rng.permutation(n)
    gone = [(0, int(i)) for i in ids[rng.random(n) < 0.2]]
    none = np.zeros(0, np.int64)
    pools: dict[str, Any] = {"numpy": BACKENDS["numpy"].pool(dim, 3, metric=metric)}
    for isa in native_isas():
        for threads in (1, 2):
            pools[f"{isa} {threads}"] = CpuBackend(isa).pool(
                dim, 3, metric=metric, screen="int8", threads=threads
            )
    for pool in pools.values():
        pool.apply([], ids * 0, ids, (ids % 100).astype(np.uint32), columns, vectors)
        pool.apply(gone, none, none, none.astype(np.uint32), columns[:0], vectors[:0])
    queries = make_rows("random", 9, dim, 6) + vectors[:9]
    late = [(0, RANGE, 0, 1000 * n // 2)]
    filters: list[tuple[list[Term], list[int]]] = [
        ([(0, RANGE, -TOP - 1, TOP)], []),
        (late, []),
        ([(0, RANGE, 1000 * (n - 700), TOP - 1)], []),
        ([(1, MEMBERSHIP, 0, 3)], [0, 1, 2]),
        ([(1, MEMBERSHIP, 1, 2)], [0, 3]),
        ([(1, MEMBERSHIP, 1, 1)], [0, 3]),
        ([*late, (1, RANGE, 1, 1), JOINS[2], JOINS[1]], []),
        ([(1, RANGE, 0, 0), *late, JOINS[0], JOINS[2]], []),
        ([(2, RANGE, 0, TOP), (1, RANGE, 0, 2)], []),
    ]
    bits = rng.integers(0, 1 << 63, n // 64 + 1, dtype=np.uint64)
    dense = bits | rng.integers(0, 1 << 63, len(bits), dtype=np.uint64) | np.uint64(1 << 63)
    ranking = {
        "w_similarity": 0.7, "w_recency": 0.4, "w_priority": -0.3, "half_life": 1e6, "priority_column": 2,
        "now": 1000 * n, "min_similarity": -50.0,
    }  # fmt: skip
    found = 0
    for words in (None, dense, np.full(n // 64 + 1, (1 << 64) - 1, np.uint64), bits & (bits >> np.uint64(1))):
        for options in ({}, {"w_similarity": 0.3}, ranking):
            for terms, values in filters:
                one = scan_all(pools, queries[:1], [(0, 0, 0, terms, values, words)], 10, **options)
                found += int(one[4][0])
            mixed = [(q, 0, 0, *filters[q % 4], words) for q in range(9)]
            scan_all(pools, queries, mixed, 30, **options)
    assert found > 600
    plan = pools[f"{native_isas()[0]} 1"].scan(queries[:1], [(0, 0, 0, *filters[2], None)], 10, explain=True)[
        5
    ]
    assert plan["rows_seen"] < 2000, "pages that lie outside a range are not looked at"
