"""Filters over declared columns, compiled to the terms that a pool's scan tests.

A condition on one column becomes the set of images that satisfy it: a range, a sorted list of members, or a
range without some members. A missing value (INT64_MIN) lies in no range but that of {"exists": false}. What
strings satisfy is decided over the column's dictionary, so a comparison becomes a list of codes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidFilter
from ..ops.clock import to_micros
from ..ops.filter_grammar import MAX_DEPTH, AllOf, Condition, Node, Not, Vocabulary, parse_filter
from ..ops.predicates import Family, Predicate, check_operand, contains, icontains, ordered, type_name
from ..records import AND, OR, Term
from ..types import ColumnType
from .columns import MISSING, Columns, Dictionary
from .term_trees import Range, Tree, emit, exact_image, excluding, float_bound, invert, join, members

_LEAST = MISSING + 1
_MOST = (1 << 63) - 1
_FAMILIES: dict[ColumnType, Family] = {
    "int64": "number",
    "float64": "number",
    "bool": "boolean",
    "str": "string",
    "time": "time",
}
_KEPT_PROGRAMS = 256
_PLAIN = frozenset((str, int, float, bool, type(None), datetime))
_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


class Program(NamedTuple):
    """Terms and the values they slice, as a segment has them. never: no row can pass. dictionaries: those
    that were read, and how long they were."""

    terms: tuple[Term, ...] = ()
    values: tuple[int, ...] = ()
    never: bool = False
    dictionaries: tuple[tuple[Dictionary, int], ...] = ()

    def outgrown(self) -> bool:
        """Whether rows may be there by now that carry strings this program knows nothing of."""
        return any(len(dictionary.names) != size for dictionary, size in self.dictionaries)


ALL_ROWS = Program()


def compile_filter(filters: Mapping[str, Any] | None, columns: Columns, *, bounded: bool = False) -> Program:
    """Check and compile a filter; None matches everything. Raises InvalidFilter naming the path.

    bounded: also leave out the rows whose strings are newer than this call, so that the answer is right even
    while dictionaries grow.
    """
    if filters is None:
        return ALL_ROWS
    vocabulary = Vocabulary(lambda name, path: _family(columns, name, path), _operand)
    sizes = {name: len(dictionary.names) for name, dictionary in columns.dictionaries.items()}
    parsed = parse_filter(filters, vocabulary)
    tree = _tree(parsed.node, columns)
    read = [name for name in sorted(parsed.fields) if name in sizes]
    if bounded:
        known: list[Tree] = [Range(columns.places[name], MISSING, sizes[name] - 1) for name in read]
        tree = join(AND, [tree, *known])
    dictionaries = tuple((columns.dictionaries[name], sizes[name]) for name in read)
    if isinstance(tree, bool):
        return Program(never=not tree, dictionaries=dictionaries)
    values: list[int] = []
    terms = emit(tree, values)
    return Program(tuple(terms), tuple(values), dictionaries=dictionaries)


class FilterCompiler:
    """Compiles the filters of one index, and keeps the programs of some. Thread-safe."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._programs: dict[Any, Program] = {}

    def compile(self, filters: Mapping[str, Any] | None) -> Program:
        """As `compile_filter`."""
        try:
            key = _key(filters, MAX_DEPTH)
        except (TypeError, ValueError):
            return compile_filter(filters, self.columns)
        program = self._programs.get(key)
        if program is None or program.outgrown():
            program = compile_filter(filters, self.columns)
            if len(self._programs) >= _KEPT_PROGRAMS:
                self._programs = {}
            self._programs[key] = program
        return program


def _key(node: Any, depth: int) -> Any:
    """Equal for filters that mean the same to the letter. ValueError for what may change under the hand that
    keeps it, and for what is too deep to be a filter; TypeError for what has no hash."""
    kind = type(node)
    if kind in _PLAIN:
        return kind, node
    if depth == 0:
        raise ValueError("too deep")
    if kind is dict:
        return tuple([(name, _key(value, depth - 1)) for name, value in node.items()])
    if kind is list:
        return list, tuple([_key(value, depth - 1) for value in node])
    raise ValueError("not a plain value")


def _family(columns: Columns, name: str, path: str) -> Family:
    kind = columns.types.get(name)
    if kind is None:
        raise InvalidFilter(path, f"there is no such column; {columns.described()}")
    return _FAMILIES[kind]


def _operand(family: Family, value: Any, path: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        raise InvalidFilter(path, 'a column is never null; write {"exists": false}')
    if family == "boolean":
        if not isinstance(value, bool):
            raise InvalidFilter(path, f"expected a boolean, not {type_name(value)}")
        return value
    if family != "time" and isinstance(value, datetime):
        raise InvalidFilter(path, f"expected a {family}, not datetime")
    return check_operand(family, value, path)


# ----------------------------------------------------------------------------------- conditions


def _tree(node: Node, columns: Columns) -> Tree:
    if isinstance(node, Condition):
        if node.family == "string":
            return _strings(node, columns)
        return _numbers(node, columns)
    if isinstance(node, Not):
        return invert(_tree(node.part, columns))
    return join(AND if isinstance(node, AllOf) else OR, [_tree(part, columns) for part in node.parts])


def _exists(node: Condition, column: int) -> Tree | None:
    """The answer where "exists": false decides it."""
    if not any(name == "exists" and not operand for name, operand in node.tests):
        return None
    # No other operator holds on a missing value.
    return Range(column, MISSING, MISSING) if len(node.tests) == 1 else False


def _numbers(node: Condition, columns: Columns) -> Tree:
    column = columns.places[node.field]
    kind = columns.types[node.field]
    decided = _exists(node, column)
    if decided is not None:
        return decided
    lo, hi = _LEAST, _MOST
    among: set[int] | None = None
    without: set[int] = set()
    for name, operand in node.tests:
        if name == "exists":
            continue
        if name in _COMPARE:
            if name in ("gt", "gte"):
                lo = max(lo, _bound(kind, operand, up=True, strict=name == "gt"))
            else:
                hi = min(hi, _bound(kind, operand, up=False, strict=name == "lt"))
            continue
        given = operand if name in ("in", "nin") else [operand]
        images = {image for image in (_image(kind, value) for value in given) if image is not None}
        if name in ("eq", "in"):
            among = images if among is None else among & images
        else:
            without |= images
    if among is not None:
        return members(column, {image for image in among - without if lo <= image <= hi})
    if lo > hi:
        return False
    return excluding(Range(column, lo, hi), column, {image for image in without if lo <= image <= hi})


def _strings(node: Condition, columns: Columns) -> Tree:
    column = columns.places[node.field]
    dictionary = columns.dictionaries[node.field]
    decided = _exists(node, column)
    if decided is not None:
        return decided
    among: set[int] | None = None
    without: set[int] = set()
    for name, operand in node.tests:
        if name == "exists":
            continue
        if name in ("eq", "ne", "in", "nin"):
            given = operand if name in ("in", "nin") else [operand]
            codes = {code for code in map(dictionary.code, given) if code is not None}
        else:
            codes = set(dictionary.matching((name, operand), _predicate(name, operand)))
        if name in ("ne", "nin"):
            without |= codes
        else:
            among = codes if among is None else among & codes
    if among is not None:
        return members(column, among - without)
    return excluding(Range(column, _LEAST, _MOST), column, without)


def _predicate(name: str, operand: str) -> Predicate:
    if name == "contains":
        return contains(operand)
    if name == "icontains":
        return icontains(operand)
    return ordered(_COMPARE[name], operand)


def _image(kind: ColumnType, value: Any) -> int | None:
    """The image of exactly this value, or None where the column cannot hold it."""
    if kind == "bool":
        return int(value)
    if kind == "time":
        return to_micros(value, "the filter's time")
    if kind == "int64":
        whole = int(value)
        return whole if whole == value and _LEAST <= whole <= _MOST else None
    return exact_image(value)


def _bound(kind: ColumnType, value: Any, *, up: bool, strict: bool) -> int:
    """The first image at or beyond `value`, going up or down; beyond it when `strict`."""
    if kind == "time":
        return to_micros(value, "the filter's time") + strict * (1 if up else -1)
    if kind == "int64":
        least: int = math.ceil(value)  # of a finite number
        most: int = math.floor(value)
        if up:
            return most + 1 if strict else least
        return least - 1 if strict else most
    return float_bound(value, up=up, strict=strict)
