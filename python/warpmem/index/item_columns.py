"""Declared metadata keys as int64 columns of the scan, and filters over them as terms.

A cell is the code of the key's value, MISSING where an item has no such key, or OTHER where it has one of
another type than was declared. Numbers become the order-preserving image of their float64, strings a number
given out by their owner's partition, booleans 0 and 1. Terms decide a condition exactly as policy/filters.py
does, or `decides` says that they cannot: then the caller evaluates the filter on items.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..ops.filter_grammar import AllOf, Condition, Node, Not
from ..records import AND, MEMBERSHIP, NEVER, NOT, OR, RANGE, Term
from .partition import Partition

MISSING = -(1 << 63)
OTHER = MISSING + 1
PREFIX = "metadata."
_MAX_DEPTH = 16  # deeper filters would need a deep stack in the scan
_ABSENT = object()
_NOTHING: Term = (0, RANGE, 1, 0)
_INT64 = struct.Struct("<q")
_FLOAT64 = struct.Struct("<d")
_PYTHON = {"number": (int, float), "string": (str,), "boolean": (bool,)}
_OPERATORS = {
    "number": frozenset(("eq", "ne", "in", "nin", "exists", "gt", "gte", "lt", "lte")),
    "string": frozenset(("eq", "ne", "in", "nin", "exists")),
    "boolean": frozenset(("eq", "ne", "in", "nin", "exists")),
}


@lru_cache(maxsize=4096)
def float_key(value: float) -> int:
    """The order-preserving int64 image of a float64 (csrc/core/keys.hpp); both zeros have one."""
    bits: int = _INT64.unpack(_FLOAT64.pack(value + 0.0))[0]
    return bits if bits >= 0 else bits ^ NEVER


_LEAST, _MOST = float_key(float("-inf")), float_key(float("inf"))


class ItemColumns:
    """The declared keys of a store. first: number of their first column in the pool."""

    def __init__(self, declared: Mapping[str, str], first: int) -> None:
        self.declared = dict(declared)
        self._first = first
        self._kinds = {PREFIX + name: kind for name, kind in declared.items()}
        self._at = {PREFIX + name: first + i for i, name in enumerate(declared)}
        self._paths = [(tuple(name.split(".")), kind) for name, kind in declared.items()]

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
        try:
            exact = float(value)
        except OverflowError:
            exact = float("inf")
        if exact != value:
            partition.inexact.add(i)
            return OTHER
        return float_key(exact)

    # -------------------------------------------------------------------------------------- filters

    def decides(self, node: Node, partition: Partition, depth: int = 0) -> bool:
        """Whether terms select exactly the rows of this partition whose items pass the filter."""
        if depth > _MAX_DEPTH:
            return False
        if isinstance(node, Condition):
            kind = self._kinds.get(node.field)
            if kind is None or self._at[node.field] - self._first in partition.inexact:
                return False
            return all(_fits(name, operand, kind) for name, operand in node.tests)
        parts = (node.part,) if isinstance(node, Not) else node.parts
        return all(self.decides(part, partition, depth + 1) for part in parts)

    def terms(self, node: Node, codes: Mapping[str, int], values: list[int]) -> list[Term]:
        """A filter that `decides` accepts, as terms whose last stack entries all must hold. Appends to the
        values of MEMBERSHIP."""
        if isinstance(node, AllOf) and len(node.parts) <= _MAX_DEPTH:
            return [term for part in node.parts for term in self.terms(part, codes, values)]
        if isinstance(node, Condition):
            return [term for test in self._tests(node, codes, values) for term in test]
        return self._joined(node, codes, values)

    def _joined(self, node: Node, codes: Mapping[str, int], values: list[int]) -> list[Term]:
        """As `terms`, leaving a single entry on the stack."""
        if isinstance(node, Not):
            return [*self._joined(node.part, codes, values), (0, NOT, 0, 0)]
        if isinstance(node, Condition):
            return _join(self._tests(node, codes, values), AND)
        parts = [self._joined(part, codes, values) for part in node.parts]
        return _join(parts, AND if isinstance(node, AllOf) else OR)

    def _tests(self, node: Condition, codes: Mapping[str, int], values: list[int]) -> list[list[Term]]:
        """One program for each operator of a condition."""
        column = self._at[node.field]
        present: list[Term] = [(column, RANGE, MISSING, MISSING), (0, NOT, 0, 0)]

        def code(operand: Any) -> int | None:
            if isinstance(operand, bool):
                return int(operand)
            if isinstance(operand, str):
                return codes.get(f"{column - self._first}:{operand}")
            exact, side = _float_of(operand)
            return float_key(exact) if side == 0 else None

        found: list[list[Term]] = []
        for name, operand in node.tests:
            if name == "exists":
                found.append(present if operand else present[:1])
            elif name in ("eq", "ne", "in", "nin"):
                operands = operand if name in ("in", "nin") else [operand]
                known = sorted({number for value in operands if (number := code(value)) is not None})
                if not known:
                    test: Term = (column, *_NOTHING[1:])
                elif len(known) == 1:
                    test = (column, RANGE, known[0], known[0])
                else:
                    test = (column, MEMBERSHIP, len(values), len(values) + len(known))
                    values.extend(known)
                found.append(
                    [test] if name in ("eq", "in") else [test, (0, NOT, 0, 0), *present, (0, AND, 0, 0)]
                )
            else:
                found.append([(column, RANGE, *_bounds(name, operand))])
        return found


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


def _float_of(number: int | float) -> tuple[float, int]:
    """A float64 beside a number, and on which side of it the number lies: -1 below, 0 equal, 1 above."""
    try:
        exact = float(number)
    except OverflowError:
        exact = float("inf") if number > 0 else float("-inf")
    return exact, (number > exact) - (number < exact)


def _bounds(name: str, number: int | float) -> tuple[int, int]:
    exact, side = _float_of(number)
    key = float_key(exact)
    if name in ("gt", "gte"):
        return (key + 1 if side > 0 or (side == 0 and name == "gt") else key), _MOST
    return _LEAST, (key - 1 if side < 0 or (side == 0 and name == "lt") else key)


def _join(programs: Sequence[list[Term]], operator: int) -> list[Term]:
    """One entry from several; none of them is "always" for AND and "never" for OR."""
    if not programs:
        never: list[Term] = [_NOTHING]
        return never if operator == OR else [*never, (0, NOT, 0, 0)]
    out = list(programs[0])
    for program in programs[1:]:
        out += [*program, (0, operator, 0, 0)]
    return out
