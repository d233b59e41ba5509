"""Tests of columns as trees, and trees as the terms of a scan.

What a filter means is decided by who builds its tree: filter_terms.py for the columns of a VectorIndex,
item_columns.py for the declared metadata keys of a store. True and False are trees too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..records import AND, MEMBERSHIP, NOT, RANGE, Term
from .columns import float_image

_WAITING = 16  # tests that may wait on the stack below an expression


class Range(NamedTuple):
    """Holds where lo <= column <= hi."""

    column: int
    lo: int
    hi: int


class Members(NamedTuple):
    """Holds where the column is one of the images, which ascend."""

    column: int
    images: tuple[int, ...]


class Joined(NamedTuple):
    """AND or OR of at least two parts."""

    op: int
    parts: tuple[Tree, ...]


class Inverse(NamedTuple):
    """Holds where the part does not."""

    part: Tree


Tree = bool | Range | Members | Joined | Inverse


def members(column: int, images: set[int]) -> Tree:
    """The column is one of the images."""
    if not images:
        return False
    lo, hi = min(images), max(images)
    if hi - lo == len(images) - 1:
        return Range(column, lo, hi)
    return Members(column, tuple(sorted(images)))


def excluding(inside: Range, column: int, without: set[int]) -> Tree:
    """The column lies in a range and is none of some images."""
    return join(AND, [inside, invert(members(column, without))])


def join(op: int, parts: list[Tree]) -> Tree:
    """AND or OR of the parts, without constants and without a join of the same kind inside."""
    neutral = op == AND
    flat: list[Tree] = []
    for part in parts:
        if part is neutral:
            continue
        if part is (not neutral):
            return not neutral
        if isinstance(part, Joined) and part.op == op:
            flat.extend(part.parts)
        else:
            flat.append(part)
    if not flat:
        return neutral
    return flat[0] if len(flat) == 1 else Joined(op, tuple(flat))


def invert(tree: Tree) -> Tree:
    """The opposite of a tree."""
    if isinstance(tree, bool):
        return not tree
    return tree.part if isinstance(tree, Inverse) else Inverse(tree)


def emit(tree: Tree, values: list[int]) -> list[Term]:
    """A tree that is not a constant as terms whose last stack entries all must hold. Members are appended to
    `values`, which the terms slice."""
    out = _Emitter(values)
    tests: Sequence[Tree] = tree.parts if isinstance(tree, Joined) and tree.op == AND else (tree,)
    plain = [test for test in tests if isinstance(test, (Range, Members))]
    if len(plain) == len(tests) <= _WAITING:
        for test in plain:  # a plain conjunction: what is left on the stack must hold anyway
            out.write(test)
    else:
        out.write(tree)
    return out.terms


class _Emitter:
    def __init__(self, values: list[int]) -> None:
        self.terms: list[Term] = []
        self.values = values

    def write(self, tree: Tree) -> None:
        """Terms that leave one test on the stack."""
        if isinstance(tree, Range):
            self.terms.append((tree.column, RANGE, tree.lo, tree.hi))
        elif isinstance(tree, Members):
            start = len(self.values)
            self.values.extend(tree.images)
            self.terms.append((tree.column, MEMBERSHIP, start, len(self.values)))
        elif isinstance(tree, Inverse):
            self.write(tree.part)
            self.terms.append((0, NOT, 0, 0))
        elif isinstance(tree, Joined):
            # The part that needs most of the stack comes first, so that 10,000 nodes need some 14 places.
            first, *others = sorted(tree.parts, key=_places, reverse=True)
            self.write(first)
            for part in others:
                self.write(part)
                self.terms.append((0, tree.op, 0, 0))


def _places(tree: Tree) -> int:
    """How many places of the stack a tree needs."""
    if isinstance(tree, Inverse):
        return _places(tree.part)
    if not isinstance(tree, Joined):
        return 1
    needs = sorted(map(_places, tree.parts), reverse=True)
    return max(needs[0], needs[1] + 1)


# ------------------------------------------------------------------------------------------- numbers


def _near(value: float) -> float:
    """A float64 next to `value` or equal to it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def float_bound(value: float, *, up: bool, strict: bool) -> int:
    """The image of the first float64 at or beyond `value`, going up or down; beyond it when `strict`."""
    near = _near(value)
    if (near == value and strict) or (near < value if up else near > value):
        near = math.nextafter(near, math.inf if up else -math.inf)
    return float_image(near)


def exact_image(value: float) -> int | None:
    """The image of a number that some float64 equals, else None."""
    near = _near(value)
    return float_image(near) if near == value and math.isfinite(near) else None
