"""Declared metadata keys as int64 columns of the scan, and filters over them as terms.

A cell is the code of the key's value, MISSING where an item has no such key, or OTHER where it has one of
another type than was declared. Numbers become the order-preserving image of their float64, strings a number
given out by their owner's partition, booleans 0 and 1. Terms decide a condition exactly as policy/filters.py
does, or `decides` says that they cannot: then the caller evaluates the filter on items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ops.filter_grammar import AllOf, Condition, Node, Not
from ..records import AND, OR, Term
from ..types.paths import keys_of, path_of
from .columns import MISSING, float_image
from .partition import Partition
from .term_trees import Range, Tree, emit, exact_image, float_bound, invert, join, members

OTHER = MISSING + 1
PREFIX = "metadata."
_ABSENT = object()
_PYTHON = {"number": (int, float), "string": (str,), "boolean": (bool,)}
_OPERATORS = {
    "number": frozenset(("eq", "ne", "in", "nin", "exists", "gt", "gte", "lt", "lte")),
    "string": frozenset(("eq", "ne", "in", "nin", "exists")),
    "boolean": frozenset(("eq", "ne", "in", "nin", "exists")),
}


_LEAST, _MOST = float_image(float("-inf")), float_image(float("inf"))


class ItemColumns:
    """The declared keys of a store. first: number of their first column in the pool."""

    def __init__(self, declared: Mapping[str, str], first: int) -> None:
        self.declared = dict(declared)
        self._first = first
        self._paths = [(keys_of(name) or (), kind) for name, kind in declared.items()]
        fields = [PREFIX + path_of(path) for path, _ in self._paths]  # as filters spell them
        self._kinds = dict(zip(fields, declared.values(), strict=True))
        self._at = {field: first + i for i, field in enumerate(fields)}

    def __len__(self) -> int:
        return len(self.declared)

    # ---------------------------------------------------------------------------------------- cells

    def encode(self, metadata: Any, partition: Partition) -> tuple[int, ...]:
        """An item's cells. New strings get a code of the partition; a number without an exact float64 is
        noted in its `inexact`."""
        return tuple(
            self._cell(i, _walk(metadata, path), kind, partition)
            for i, (path, kind) in enumerate(self._paths)
        )

    def _cell(self, i: int, value: Any, kind: str, partition: Partition) -> int:
        if value is _ABSENT:
            return MISSING
        if type(value) not in _PYTHON[kind]:
            return OTHER
        if kind == "boolean":
            return int(value)
        if kind == "string":
            code: int = partition.codes.setdefault(f"{i}:{value}", len(partition.codes))
            return code
        image = exact_image(value)
        if image is None:
            partition.inexact.add(i)
            return OTHER
        return image

    # -------------------------------------------------------------------------------------- filters

    def decides(self, node: Node, partition: Partition) -> bool:
        """Whether terms select exactly the rows of this partition whose items pass the filter."""
        if isinstance(node, Condition):
            kind = self._kinds.get(node.field)
            if kind is None or self._at[node.field] - self._first in partition.inexact:
                return False
            return all(_fits(name, operand, kind) for name, operand in node.tests)
        parts = (node.part,) if isinstance(node, Not) else node.parts
        return all(self.decides(part, partition) for part in parts)

    def terms(
        self, node: Node, codes: Mapping[str, int], values: list[int], bound: int | None = None
    ) -> list[Term] | None:
        """A filter that `decides` accepts, as terms of a scan; None when no row passes. Appends to the values
        of MEMBERSHIP. bound: leave out rows with a string whose code is not below it."""
        tree = self._tree(node, codes)
        if bound is not None:
            strings = [self._at[field] for field, kind in self._kinds.items() if kind == "string"]
            tree = join(AND, [tree, *(Range(column, MISSING, bound - 1) for column in strings)])
        if isinstance(tree, bool):
            return [] if tree else None
        return emit(tree, values)

    def _tree(self, node: Node, codes: Mapping[str, int]) -> Tree:
        if isinstance(node, Not):
            return invert(self._tree(node.part, codes))
        if isinstance(node, Condition):
            return join(AND, [self._test(node.field, *test, codes) for test in node.tests])
        parts = [self._tree(part, codes) for part in node.parts]
        return join(AND if isinstance(node, AllOf) else OR, parts)

    def _test(self, field: str, name: str, operand: Any, codes: Mapping[str, int]) -> Tree:
        column = self._at[field]
        missing = Range(column, MISSING, MISSING)
        if name == "exists":
            return invert(missing) if operand else missing
        if name in ("gt", "gte"):
            return Range(column, float_bound(operand, up=True, strict=name == "gt"), _MOST)
        if name in ("lt", "lte"):
            return Range(column, _LEAST, float_bound(operand, up=False, strict=name == "lt"))
        images = set()
        for value in operand if name in ("in", "nin") else [operand]:
            image: int | None
            if isinstance(value, str):
                image = codes.get(f"{column - self._first}:{value}")
            else:
                image = int(value) if isinstance(value, bool) else exact_image(value)
            if image is not None:
                images.add(image)
        if name in ("eq", "in"):
            return members(column, images)
        return join(AND, [invert(missing), invert(members(column, images))])


def _walk(metadata: Any, path: Sequence[str]) -> Any:
    """The value at a path, or _ABSENT."""
    value = metadata
    for key in path:
        if type(value) is not dict:
            return _ABSENT
        value = value.get(key, _ABSENT)
    return value


def _fits(name: str, operand: Any, kind: str) -> bool:
    """Whether an operator over a declared type says all about rows of that type and nothing about others."""
    if name not in _OPERATORS[kind]:
        return False
    if name == "exists":
        return True
    operands = operand if name in ("in", "nin") else [operand]
    return all(type(value) in _PYTHON[kind] for value in operands)
