"""Checks of strings: on their way to a model, and names."""

from __future__ import annotations

from typing import Any, Final

from ..errors import InputError, InvalidText

_MAX_NAME_BYTES: Final = 512


def check_text(value: Any, where: str) -> str:
    """`value` as a plain str, if it is a string of valid Unicode. Raises InvalidText, which names `where`."""
    if not isinstance(value, str):
        raise InvalidText(f"{where} must be a string, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"{where} has a lone surrogate at character {error.start}, not valid Unicode"
            ) from None
    return str.__str__(value)


def check_sequence(texts: Any) -> list[Any]:
    """`texts` as a list. Raises InputError when it is one string, which is a sequence too."""
    if isinstance(texts, (str, bytes)):
        raise InputError(f"texts must be a sequence of strings, not one {type(texts).__name__}")
    return list(texts)


def check_not_empty(value: Any, name: str) -> str:
    """`value`, if it is a string that is not empty. Raises InputError, which names the option."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} must be a string that is not empty")
    return value


def check_name(value: Any, name: str) -> str:
    """A short text used as a name, as a plain str: 1 to 512 bytes of UTF-8. Raises InputError."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, not {type(value).__name__}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is not valid Unicode text") from error
    if not 1 <= size <= _MAX_NAME_BYTES:
        raise InputError(f"{name} must be 1 to {_MAX_NAME_BYTES} bytes of UTF-8, not {size}")
    return str.__str__(value)
