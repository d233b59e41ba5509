"""One line of a file that is imported: how it is read from a stream, and what it may say of an item."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any, Final

import msgspec

from ..errors import InputError, InvalidTime
from ..ops.clock import to_micros
from ..types import Modality

MAX_LINE_BYTES: Final = 8 << 20
TEXT_STREAM: Final = "file must be a binary stream, and this one is of text: open it in binary mode"


class ItemLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line that is an item."""

    text: str
    id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    corpus_id: str | None = None
    kind: str | None = None
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    entities: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    trust: float = 1.0
    version: int | None = None
    model_id: str | None = None
    created_at: datetime | None = None
    touched_at: datetime | None = None
    expires_at: datetime | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    recorded_at: datetime | None = None
    retired_at: datetime | None = None
    vector: str | None = None
    check: str | None = None


def read_lines(stream: IO[Any], number: int = 0) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a stream, counted on from `number`. A line over the limit comes cut, one byte longer
    than the limit. Raises InputError for a stream of text, and one that cannot be read."""
    while line := _read_line(stream):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = _read_line(stream)
        yield number, line


def _read_line(stream: IO[Any]) -> bytes:
    try:
        line = stream.readline(MAX_LINE_BYTES + 1)
    except io.UnsupportedOperation as error:
        raise InputError("file is a stream that cannot be read: open it in mode 'rb'") from error
    except UnicodeDecodeError as error:  # what decodes is a stream of text
        raise InputError(TEXT_STREAM) from error
    except ValueError as error:
        raise InputError("file is a stream that is closed, or cannot be read") from error
    if isinstance(line, str):
        raise InputError(TEXT_STREAM)
    return line  # type: ignore[no-any-return]


def write_line(stream: IO[Any], line: bytes) -> None:
    """Write a line to a stream. Raises InputError where it is one of text, which wrappers of it show by
    nothing else, and where it cannot be written to."""
    try:
        stream.write(line)
    except io.UnsupportedOperation as error:
        raise InputError("file is a stream that cannot be written to: open it in mode 'wb'") from error
    except TypeError as error:
        raise InputError(TEXT_STREAM) from error
    except ValueError as error:
        raise InputError("file is a stream that is closed, or cannot be written to") from error


def check_times(line: ItemLine) -> None:
    """Raises InvalidTime on a time without offset or out of range, and on an end before the beginning."""
    begins = "created_at" if line.valid_from is None else "valid_from"
    for name in (begins, "valid_to", "expires_at"):
        when = getattr(line, name)
        if when is not None:
            to_micros(when, name)
    first = getattr(line, begins)
    if first is not None and line.valid_to is not None and line.valid_to < first:
        raise InvalidTime(f"valid_to lies before {begins}")
