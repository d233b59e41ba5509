"""Declared columns of a VectorIndex: values of five types as int64 images that keep their order.

    int64     the number itself
    float64   the order-preserving image of csrc/core/keys.hpp; -0 counts as +0
    bool      0 or 1
    time      microseconds since 1970-01-01 UTC
    str       a code of the column's dictionary, in order of first appearance (no useful order)
    missing   INT64_MIN, in every type

Dictionaries only grow. A string enters its dictionary before any row that carries it is published, so a
search that finds the dictionary as long as before has missed none."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, InvalidVector
from ..ops.arrays import host_array
from ..ops.clock import to_micros
from ..types import ColumnType

I64 = NDArray[np.int64]
Checked = I64 | list[str | None]

MISSING = -(1 << 63)
MAX_COLUMNS = 1024
_INT64_MAX = (1 << 63) - 1
_INT64 = struct.Struct("<q")
_FLOAT64 = struct.Struct("<d")
_KEPT_ANSWERS = 64
_RESERVED = ("and", "or", "not")
_NUMBERS = (int, float, np.integer, np.floating)


@lru_cache(maxsize=1024)
def float_image(value: float) -> int:
    """The order-preserving int64 image of a float64 other than NaN (csrc/core/keys.hpp); -0 counts as +0."""
    bits: int = _INT64.unpack(_FLOAT64.pack(value + 0.0))[0]
    return bits if bits >= 0 else bits ^ _INT64_MAX


class Dictionary:
    """The strings of one column. Grown by the writer alone, read by anyone."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = list(names)
        self._codes: dict[str, int] = {name: code for code, name in enumerate(self.names)}
        self._answers: dict[tuple[str, str], tuple[int, list[int]]] = {}

    def code(self, name: str) -> int | None:
        """The code of a string, or None where no row ever had it."""
        return self._codes.get(name)

    def grow(self, values: list[str | None]) -> I64:
        """(n,) the codes of `values`, missing for None; what is new is entered."""
        codes = self._codes
        found = list(map(cast("Callable[[str | None], int | None]", codes.get), values))
        if None in found:
            for name in dict.fromkeys(values):
                if name is not None and name not in codes:
                    # The name first: whoever finds a code finds its name.
                    self.names.append(name)
                    codes[name] = len(self.names) - 1
            found = [MISSING if name is None else codes[name] for name in values]
        return np.array(found, np.int64)

    def matching(self, key: tuple[str, str], predicate: Callable[[str], bool]) -> list[int]:
        """Codes of the strings for which `predicate` holds, ascending. key: names the predicate; the answers
        of some are kept, and only strings that came since are asked."""
        seen, codes = self._answers.get(key, (0, []))
        size = len(self.names)
        if seen < size:
            codes = codes + [code for code in range(seen, size) if predicate(self.names[code])]
            if len(self._answers) >= _KEPT_ANSWERS:
                self._answers = {}
            self._answers[key] = (size, codes)
        return codes


class Columns:
    """The columns of one index, in the order declared."""

    def __init__(
        self, declared: Mapping[str, str] | None, dictionaries: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        """declared: name -> type. dictionaries: known strings of "str" columns. Raises InputError."""
        if declared is not None and not isinstance(declared, Mapping):
            raise InputError(f"columns must be a dict of name to type, not {type(declared).__name__}")
        self.types: dict[str, ColumnType] = {}
        for name, kind in (declared or {}).items():
            _check_name(name)
            if not isinstance(kind, str) or kind not in get_args(ColumnType):
                known = ", ".join(get_args(ColumnType))
                raise InputError(f"column {name!r}: the type must be one of {known}, not {kind!r}")
            self.types[name] = cast(ColumnType, kind)
        if len(self.types) > MAX_COLUMNS:
            raise InputError(f"an index may have {MAX_COLUMNS} columns, not {len(self.types)}")
        self.places = {name: place for place, name in enumerate(self.types)}
        known_strings = dictionaries or {}
        self.dictionaries = {
            name: Dictionary(known_strings.get(name, ()))
            for name, kind in self.types.items()
            if kind == "str"
        }

    def __len__(self) -> int:
        return len(self.types)

    def sizes(self) -> tuple[int, ...]:
        """How long each dictionary is."""
        return tuple(len(dictionary.names) for dictionary in self.dictionaries.values())

    def place(self, name: str, kind: ColumnType, what: str) -> int:
        """The place of a column that must have this type. Raises InputError; `what` names the argument."""
        found = self.types.get(name)
        if found is None:
            raise InputError(f"{what}: there is no column {name!r}; {self.described()}")
        if found != kind:
            raise InputError(f"{what}: column {name!r} is {found}, not {kind}")
        return self.places[name]

    def described(self) -> str:
        """The columns, in words."""
        return f"the columns are {', '.join(self.types)}" if self.types else "the index has no columns"

    def check(self, attributes: Any, n: int) -> dict[str, Checked]:
        """By column, n values that fit it: images, or strings that have no code yet. Raises InputError."""
        if attributes is None:
            return {}
        if not isinstance(attributes, Mapping):
            found = type(attributes).__name__
            raise InputError(f"attributes must be a dict of column to values, not {found}")
        checked: dict[str, Checked] = {}
        for name, values in attributes.items():
            kind = self.types.get(name) if isinstance(name, str) else None
            if kind is None:
                raise InputError(f"attributes: there is no column {name!r}; {self.described()}")
            checked[name] = _values(values, kind, n, f"attributes[{name!r}]")
        return checked

    def images(self, checked: Mapping[str, Checked], n: int, base: I64 | None = None) -> I64:
        """(n, columns) int64: what `check` returned, over `base` or over missing values. Grows dictionaries,
        so only the writer may call it, when nothing can be refused any more."""
        if base is None:
            shape = (n, len(self.types))
            base = np.full(shape, MISSING, np.int64) if self.types else np.empty(shape, np.int64)
        for name, values in checked.items():
            column = self.dictionaries[name].grow(values) if isinstance(values, list) else values
            base[:, self.places[name]] = column
        return base


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise InputError("a column's name must be a string that is not empty")
    if name in _RESERVED:
        raise InputError(f"a column cannot be called {name!r}, which filters use")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("a column's name must be valid Unicode text") from error


def _values(values: Any, kind: ColumnType, n: int, what: str) -> Checked:
    if values is None or isinstance(values, (str, bool, np.bool_, datetime, *_NUMBERS)):
        values = [values] * n  # one value for all
    if isinstance(values, (list, tuple)):
        items: list[Any] | None = list(values)
        array: NDArray[Any] | None = None
        size = len(values)
    else:
        try:
            array = host_array(values, what)
        except InvalidVector as error:
            raise InputError(f"{what} must be a sequence of {kind} values") from error
        if array.ndim != 1:
            raise InputError(f"{what}: expected 1 axis, not {array.ndim}")
        items = array.tolist() if array.dtype.kind in "OU" else None
        size = len(array)
    if size != n:
        raise InputError(f"{what}: expected {n} values, not {size}")
    if items is not None:
        return _FROM_ITEMS[kind](items, what)
    assert array is not None
    return _from_array(array, kind, what)


# ------------------------------------------------------------------------------------- arrays


def _from_array(array: NDArray[Any], kind: ColumnType, what: str) -> I64:
    found = array.dtype.kind
    if kind == "bool" and found == "b":
        return array.astype(np.int64)
    if kind == "float64" and found in "fiu":
        return _float_images(array.astype(np.float64), what)
    if kind in ("int64", "time") and found in "iu":
        return _whole(array, what)
    if kind == "int64" and found == "f":
        return _whole_floats(array.astype(np.float64), what)
    hint = "; give microseconds since 1970 UTC as int64" if kind == "time" and found == "M" else ""
    raise InputError(f"{what} must hold {kind} values, not {array.dtype.name}{hint}")


def _float_images(numbers: NDArray[np.float64], what: str) -> I64:
    missing = np.isnan(numbers)
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        raise InputError(f"{what}: value {row} is infinite; columns hold finite numbers")
    bits = (numbers + 0.0).view(np.int64)
    images = np.where(bits >= 0, bits, bits ^ np.int64(_INT64_MAX))
    images[missing] = MISSING
    return images


def _whole(array: NDArray[Any], what: str) -> I64:
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low <= MISSING or high > _INT64_MAX:
            wrong = low if low <= MISSING else high
            raise InputError(f"{what} must lie within {MISSING + 1} and {_INT64_MAX}, not be {wrong}")
    return array.astype(np.int64)


def _whole_floats(numbers: NDArray[np.float64], what: str) -> I64:
    """Integers that came as floats, as a column with NaN for missing does."""
    missing = np.isnan(numbers)
    filled = np.where(missing, 0.0, numbers)
    bad = (filled != np.trunc(filled)) | (np.abs(filled) > 2.0**53)
    if bad.any():
        raise InputError(f"{what}: value {int(np.argmax(bad))} is no integer that float64 holds exactly")
    whole = filled.astype(np.int64)
    whole[missing] = MISSING
    return whole


# -------------------------------------------------------------------------------------- lists


def _require(items: list[Any], allowed: tuple[type, ...], what: str, kind: str) -> bool:
    """Refuse a value of another type, or a bool among numbers; True when some are None or NaN."""
    missing = False
    for found in set(map(type, items)):
        if found is type(None):
            missing = True
        elif not issubclass(found, allowed) or (issubclass(found, (bool, np.bool_)) and kind != "bool"):
            row = next(i for i, item in enumerate(items) if type(item) is found)
            if issubclass(found, (float, np.floating)) and all(
                item != item for item in items if type(item) is found
            ):
                missing = True
                continue
            raise InputError(f"{what}: value {row} must be {kind}, not {found.__name__}")
    return missing


def _float_items(items: list[Any], what: str) -> I64:
    if _require(items, _NUMBERS, what, "a number"):
        items = [np.nan if item is None else item for item in items]
    try:
        return _float_images(np.array(items, np.float64), what)
    except OverflowError as error:
        raise InputError(f"{what}: an integer is too large for float64") from error


def _int_items(items: list[Any], what: str) -> I64:
    missing = _require(items, _NUMBERS, what, "an integer")
    kinds = set(map(type, items))
    if any(issubclass(kind, (float, np.floating)) for kind in kinds):
        for item in items:
            if item is not None and isinstance(item, (int, np.integer)) and abs(int(item)) > 1 << 53:
                raise InputError(f"{what} mixes floats with integers beyond 2^53; give int64 and None")
        floats = [np.nan if item is None else item for item in items]
        return _whole_floats(np.array(floats, np.float64), what)
    images = _int_array([0 if item is None else item for item in items] if missing else items, what)
    if missing:
        images[[item is None for item in items]] = MISSING
    return images


def _int_array(items: list[Any], what: str) -> I64:
    try:
        return _whole(np.array(items, np.int64), what)
    except OverflowError as error:
        raise InputError(f"{what} must lie within {MISSING + 1} and {_INT64_MAX}") from error


def _time_items(items: list[Any], what: str) -> I64:
    missing = _require(items, (datetime, int, np.integer), what, "an aware datetime or microseconds")
    micros = [to_micros(item, what) if isinstance(item, datetime) else item for item in items]
    if not missing:
        return _int_array(micros, what)
    gone = [item is None or item != item for item in micros]
    images = _int_array([0 if none else item for none, item in zip(gone, micros, strict=True)], what)
    images[gone] = MISSING
    return images


def _bool_items(items: list[Any], what: str) -> I64:
    _require(items, (bool, np.bool_), what, "bool")
    return np.array([int(item) if item in (True, False) else MISSING for item in items], np.int64)


def _str_items(items: list[Any], what: str) -> list[str | None]:
    missing = _require(items, (str,), what, "a string")
    if missing:
        items = [item if isinstance(item, str) else None for item in items]
    try:
        for name in set(items):
            if name is not None:
                name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what} must hold valid Unicode text") from error
    return [None if item is None else str.__str__(item) for item in items]


_FROM_ITEMS: dict[ColumnType, Callable[[list[Any], str], Checked]] = {
    "bool": _bool_items,
    "float64": _float_items,
    "int64": _int_items,
    "str": _str_items,
    "time": _time_items,
}
