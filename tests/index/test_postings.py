"""Postings against plain Python: random changes, ties, compaction, refused input, threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpmem._cpu import Postings
from word_model import WordModel

WORDS = ["a", "bb", "abcd", "abcde", "abcdf", "2024", "ab12cd34", "été", "étérnel", "東", "京都", "𝔘𝔫𝔦", "x"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
ROWS = st.integers(0, 30)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ROWS, st.integers(-2, 2), st.integers(0, 40), TEXTS),
        st.tuples(st.just("remove"), ROWS),
    ),
    max_size=60,
)


def ids(rows: Sequence[int]) -> Any:
    return np.array(rows, np.int64)


def put(postings: Postings, rows: Sequence[tuple[int, int, int, str]]) -> None:
    numbers, runs, ordinals, words = zip(*rows, strict=True) if rows else ((), (), (), ())
    postings.put(ids(numbers), ids(runs), np.array(ordinals, np.uint32), list(words))


class Pair:
    """Postings, the model, and the rows they should hold."""

    def __init__(self) -> None:
        self.postings = Postings()
        self.model = WordModel()
        self.rows: dict[int, tuple[int, int, int, str]] = {}

    def put(self, row: int, run: int, ordinal: int, words: str) -> None:
        put(self.postings, [(row, run, ordinal, words)])
        self.rows[row] = (row, run, ordinal, words)
        self.model.put(row, None if run < 0 else run, ordinal, words, counts=run != -2)

    def remove(self, row: int) -> None:
        assert self.postings.remove(ids([row])) == (self.rows.pop(row, None) is not None)
        self.model.docs.pop(row, None)

    def check(self, query: str, w_lexical: float, w_adjacent: float, most: int) -> None:
        also = range(-1, 33)
        answer = self.postings.score(query, w_lexical, w_adjacent, most, ids(also))
        n, whole, rows, totals, lexical, adjacent = answer
        known = self.model.totals(query, w_lexical, w_adjacent)
        best = sorted((row for row in known if known[row][0] > 0), key=lambda row: (-known[row][0], row))
        assert rows.tolist() == [*best[:most], *also]
        assert n == len(best[:most])
        assert whole == (len(best) <= most)
        zero = np.zeros(3, np.float32)
        expected = np.array([known.get(row, zero) for row in rows.tolist()], np.float32).reshape(-1, 3)
        assert np.array_equal(np.stack([totals, lexical, adjacent], 1), expected)
        sums = np.stack(self.postings.sums(query, w_lexical, w_adjacent), 1)
        assert np.array_equal(
            sums, np.array([known.get(row, zero) for row in range(len(sums))]).reshape(-1, 3)
        )
        assert len(sums) > max(self.rows, default=-1)
        exact = self.model.lexical(query)
        around = self.model.adjacent(exact)
        for row, mine, near in zip(rows.tolist(), lexical, adjacent, strict=True):
            assert mine == pytest.approx(exact.get(row, 0.0), rel=1e-6)
            assert 0.0 <= mine < 1.0
            if w_adjacent:
                assert near == pytest.approx(around.get(row, 0.0), rel=2e-6)
        fresh = Postings()
        put(fresh, [self.rows[row] for row in sorted(self.rows)])
        for mine, other in zip(
            answer, fresh.score(query, w_lexical, w_adjacent, most, ids(also)), strict=True
        ):
            assert np.array_equal(mine, other)
        stats, other = self.postings.stats(), fresh.stats()
        assert stats["rows"] == other["rows"] == len(self.rows)
        assert stats["terms"] >= other["terms"]
        numbers = [self.rows[row][2] if row in self.rows else 0 for row in also]
        assert self.postings.ordinals(ids(also)).tolist() == numbers


@settings(deadline=None, max_examples=300)
@given(CHANGES, TEXTS, st.sampled_from([(1.0, 0.0), (4.0, 1.6), (0.0, 1.0)]), st.sampled_from([0, 1, 3, 100]))
def test_random_changes(changes: list[Any], query: str, weights: tuple[float, float], most: int) -> None:
    pair = Pair()
    for name, *arguments in changes:
        getattr(pair, name)(*arguments)
    pair.check(query, *weights, most)


def test_a_removed_row_gets_nothing_however_often_it_held_a_word() -> None:
    pair = Pair()
    pair.put(0, 0, 0, "bb " * 9)
    pair.put(1, 0, 1, "bb x")
    pair.remove(0)
    pair.check("bb", 1.0, 1.0, 5)


def test_a_row_that_comes_back_has_only_its_new_words() -> None:
    pair = Pair()
    pair.put(0, -1, 0, "abcde bb bb")
    pair.put(1, -1, 1, "x")
    pair.put(0, -1, 0, "x")
    pair.check("abcde bb x", 1.0, 0.0, 5)
    pair.remove(0)
    pair.put(0, -1, 0, "bb")
    pair.check("abcde bb x", 1.0, 0.0, 5)


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_words_of_removed_rows_are_forgotten_in_the_end(replaced: bool) -> None:
    pair = Pair()
    rng = random.Random(5)
    for i in range(6_000):
        row = i % 30
        if not replaced:
            pair.remove(row)
        pair.put(row, row % 5 - 2, i, f"word{i} {rng.choice(WORDS)} {rng.choice(WORDS)}")
        if i % 700 == 0:
            pair.check("bb abcde", 4.0, 1.6, 5)
    pair.check(f"word5999 word1 {' '.join(WORDS)}", 4.0, 1.6, 5)
    stats = pair.postings.stats()
    assert stats["terms"] < 6_000
    assert stats["bytes"] < 1 << 20


def test_ties_go_by_row_and_thinning_out_loses_none() -> None:
    pair = Pair()
    for row in random.Random(1).sample(range(31), 31):
        pair.put(row, -1, 0, "bb" if row % 3 else "bb x")
    for most in (0, 1, 2, 5, 20, 31, 32):
        pair.check("bb", 1.0, 0.0, most)
        pair.check("x bb", 1.0, 0.0, most)


def test_empty_texts_are_counted_and_never_found() -> None:
    pair = Pair()
    pair.check("bb", 1.0, 1.0, 5)
    pair.put(3, 0, 0, "")
    pair.check("bb", 1.0, 1.0, 5)
    pair.put(4, 0, 1, " -- ! ")
    pair.put(5, 0, 2, "bb")
    for query in ("bb", "", "?", "unknown"):
        pair.check(query, 1.0, 1.0, 5)


def test_many_repetitions_and_long_texts() -> None:
    """Beyond the table of shares of short rows."""
    pair = Pair()
    for row, words in enumerate(["x " * 2, "x " * 3, "x " * 4, "x " * 300, "x bb " * 128, "bb " * 255]):
        pair.put(row, 0, row, words)
    pair.check("x bb", 4.0, 1.6, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.put(ids([0]), ids([0]), np.zeros(1, np.uint32), "a"),
        lambda p: p.put(ids([0]), ids([0]), np.zeros(1, np.uint32), [b"a"]),
        lambda p: p.put(ids([0]), ids([0]), np.zeros(1, np.uint32), None),
        lambda p: p.put([0], ids([0]), np.zeros(1, np.uint32), ["a"]),
        lambda p: p.put(np.zeros(1), ids([0]), np.zeros(1, np.uint32), ["a"]),
        lambda p: p.put(ids([0]), ids([0]), ids([0]), ["a"]),
        lambda p: p.remove([0]),
        lambda p: p.score(b"a", 1.0, 1.0, 1, ids([])),
        lambda p: p.score("a", "1", 1.0, 1, ids([])),
        lambda p: p.score("a", 1.0, None, 1, ids([])),
        lambda p: p.score("a", 1.0, 1.0, 1.0, ids([])),
        lambda p: p.score("a", 1.0, 1.0, 1, None),
        lambda p: p.ordinals([0.5]),
    ],
)
def test_wrong_types(call: Any) -> None:
    with pytest.raises(TypeError):
        call(Postings())


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.put(ids([-1]), ids([0]), np.zeros(1, np.uint32), ["a"]),
        lambda p: p.put(ids([1 << 31]), ids([0]), np.zeros(1, np.uint32), ["a"]),
        lambda p: p.put(ids([0]), ids([0]), np.zeros(1, np.uint32), ["a", "b"]),
        lambda p: p.put(ids([0]), ids([0, 1]), np.zeros(1, np.uint32), ["a"]),
        lambda p: p.put(ids([0, 1]), ids([0, 1]), np.zeros(1, np.uint32), ["a", "b"]),
        lambda p: p.put(ids([0]), ids([0]), np.zeros(1, np.uint32), ["\ud800"]),
        lambda p: p.remove(ids([0]).reshape(1, 1)),
        lambda p: p.score("\udfff", 1.0, 1.0, 1, ids([])),
        *(
            lambda p, weight=weight, at=at: p.score(
                "a", *((weight, 1.0) if at else (1.0, weight)), 1, ids([])
            )
            for weight in (-0.5, float("nan"), float("inf"), 1e39)
            for at in (0, 1)
        ),
        lambda p: p.score("a", 1.0, 1.0, -1, ids([])),
        lambda p: p.score("a", 1.0, 1.0, 1 << 31, ids([])),
    ],
)
def test_wrong_values(call: Any) -> None:
    with pytest.raises(ValueError, match=r"must|expected"):
        call(Postings())


def test_a_refused_put_changes_nothing() -> None:
    pair = Pair()
    pair.put(0, 0, 0, "bb")
    for rows, words in (([0, -1], ["x", "x"]), ([0, 1], ["x", "\ud800"])):
        with pytest.raises(ValueError, match=r"must|expected"):
            pair.postings.put(ids(rows), ids([0, 0]), np.zeros(2, np.uint32), words)
    pair.check("bb x", 1.0, 1.0, 5)


def test_searches_beside_a_writer() -> None:
    """Every answer is of one moment: all rows of a put or none."""
    postings = Postings()
    put(postings, [(row, 0, row, "x") for row in range(100, 110)])
    faults: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            n, whole, rows, *_ = postings.score("bb", 1.0, 1.0, 100, ids([]))
            if rows.tolist() not in ([], list(range(50))) or not whole or n != len(rows):
                faults.append(rows)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            put(postings, [(row, -1, row, "bb") for row in range(50)])
            postings.remove(ids(range(50)))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not faults
