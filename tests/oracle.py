"""A slow, independent statement of what a search must return. Shares no code with warpmem.

Rows live in a dict. Sums are exact (math.fsum of float64 products, which are exact for float32 factors),
filters are plain Python. Scores are float64 numbers; `ulp32` says how far apart float32 neighbours are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

INF = math.inf


@dataclass(frozen=True)
class OracleRow:
    ordinal: int
    columns: tuple[int, ...]
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Weights:
    similarity: float = 1.0
    recency: float = 0.0
    priority: float = 0.0
    half_life: float = 1.0
    recency_column: int = 0
    priority_column: int = 0
    now: int = 0
    min_similarity: float = -INF


@dataclass
class Oracle:
    lists: dict[int, dict[int, OracleRow]] = field(default_factory=dict)

    def add(
        self, list_id: int, row_id: int, ordinal: int, columns: Iterable[int], vector: Iterable[float]
    ) -> None:
        row = OracleRow(int(ordinal), tuple(int(c) for c in columns), tuple(float(x) for x in vector))
        self.lists.setdefault(int(list_id), {})[int(row_id)] = row

    def remove(self, list_id: int, row_id: int) -> None:
        rows = self.lists.get(list_id, {})
        rows.pop(row_id, None)
        if not rows:
            self.lists.pop(list_id, None)

    def passing(
        self, segment: tuple[Any, ...], query: Sequence[float], weights: Weights
    ) -> list[tuple[float, int, int, int, int]]:
        """(score, group, ordinal, row id, list id) of every row of the segment that passes its filters."""
        _, list_id, group, terms, values, bitmap = segment
        found = []
        for row_id, row in self.lists.get(list_id, {}).items():
            if not all(_holds(term, values, row.columns) for term in terms):
                continue
            if bitmap is not None and not _bit(bitmap, row_id):
                continue
            similarity = round_float32(exact_dot(query, row.vector))
            if similarity < weights.min_similarity:
                continue
            found.append((score_of(similarity, row.columns, weights), group, row.ordinal, row_id, list_id))
        return found

    def scan(
        self, query: Sequence[float], segments: Sequence[tuple[Any, ...]], k: int, weights: Weights
    ) -> list[tuple[float, int, int, int, int]]:
        """The k best rows, best first; equal float32 scores go by group, ordinal, row id, list id."""
        rows = [row for segment in segments for row in self.passing(segment, query, weights)]
        rows.sort(key=lambda row: (-round_float32(row[0]), *row[1:]))
        return rows[:k]


def exact_dot(a: Sequence[float], b: Sequence[float]) -> float:
    """The correctly rounded sum of products."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def magnitude(a: Sequence[float], b: Sequence[float]) -> float:
    """Sum of |products|: what rounding errors of a sum are measured against."""
    return math.fsum(abs(x * y) for x, y in zip(a, b, strict=True))


def score_of(similarity: float, columns: tuple[int, ...], weights: Weights) -> float:
    score = weights.similarity * similarity
    if weights.recency:
        age = max(0, weights.now - columns[weights.recency_column])
        score += weights.recency * 2.0 ** -(age / weights.half_life)
    if weights.priority:
        score += weights.priority * priority_of(columns[weights.priority_column])
    return score


def priority_of(image: int) -> float:
    """float64 from the order-preserving int64 image: negative numbers have their magnitude bits inverted. A
    missing value counts as 0."""
    number: float
    if image == -(1 << 63):
        return 0.0
    if image >= 0:
        (number,) = struct.unpack("<d", struct.pack("<q", image))
    else:
        (number,) = struct.unpack(
            "<d", struct.pack("<Q", ((~image) & 0x7FFFFFFFFFFFFFFF) | 0x8000000000000000)
        )
    return number


def image_of(number: float) -> int:
    """The order-preserving int64 image of a float64."""
    (bits,) = struct.unpack("<q", struct.pack("<d", number))
    return int(bits) if bits >= 0 else -((bits & 0x7FFFFFFFFFFFFFFF) + 1)


def round_float32(x: float) -> float:
    """The nearest float32; beyond its range, an infinity."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    except OverflowError:
        return math.copysign(INF, x)
    return float(rounded)


def ulp32(x: float) -> float:
    """Distance between float32 numbers near x."""
    if not math.isfinite(x):
        return INF
    return float(2.0 ** (max(math.frexp(x)[1], -125) - 24))


def _holds(term: tuple[int, int, int, int], values: Sequence[int], columns: tuple[int, ...]) -> bool:
    column, op, lo, hi = term
    return lo <= columns[column] <= hi if op == 0 else columns[column] in values[lo:hi]


def _bit(words: Sequence[int], row_id: int) -> bool:
    if row_id < 0 or row_id >= 64 * len(words):
        return False
    return bool(int(words[row_id // 64]) >> (row_id % 64) & 1)
