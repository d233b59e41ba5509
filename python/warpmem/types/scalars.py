"""Numbers that callers pass in, Python's own or those of NumPy and of other libraries, as Python's own.

Every public argument that is a number goes through here at the edge, so that nothing behind it meets another
type: not the log, not a message, not a limit.
"""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError


def int_of(value: Any) -> int | None:
    """The integer that `value` is, by `__index__`; None where it is none. Booleans are none."""
    if type(value) is int:
        return value
    if isinstance(value, int):
        return None if isinstance(value, bool) else int.__index__(value)
    if "bool" in str(getattr(value, "dtype", "")):  # of a tensor, which would be 0 or 1
        return None
    try:
        return int.__index__(operator.index(value))
    except (TypeError, ValueError, RuntimeError):  # the latter two: of tensors that are not one number
        return None


def float_of(value: Any) -> float | None:
    """The float that a real number is, NaN and infinities too; None where it is none. Booleans are none, and
    so are decimals. What is too large for a float is infinite."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number: Any = value
    try:
        return float.__pos__(float(number))
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def integer(value: Any, what: str, least: int, most: int) -> int:
    """An integer from `least` to `most`. Raises InputError."""
    number = int_of(value)
    if number is None or not least <= number <= most:
        shown: Any = type(value).__name__ if number is None else number
        if number is not None and number.bit_length() > 64:  # Python does not write the longest at all
            shown = f"one of {number.bit_length()} bits"
        raise InputError(f"{what} must be an integer from {least} to {most}, not {shown}")
    return number


def plain(value: Any) -> Any:
    """What a scalar of NumPy stands for in JSON: a bool, an int or a float; anything else as it is."""
    if isinstance(value, np.generic):
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, np.floating):
            return float(value)
    return value


def plain_fields(struct: msgspec.Struct) -> None:
    """Have `plain` in each field of a struct that is just being made, frozen or not."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        known = plain(value)
        if known is not value:
            msgspec.structs.force_setattr(struct, name, known)
