"""Calls between the processes of one store, in bytes: values, errors, and frames around them.

A frame is its length in four bytes, big-endian, and so many bytes of MessagePack. None, booleans, integers of
64 bits, floats, strings, bytes, lists and maps with strings as keys are as MessagePack has them; all else
is one of its extensions, by the codes below. Nothing that is read can name a class outside of the
tables here, or call anything but the constructors in them.
"""

from __future__ import annotations

import builtins
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET
from msgspec.msgpack import Ext

from .. import errors, types
from ..errors import InputError, InvalidText, WarpmemError
from ..records import ErasureReceipt
from .arrays import host_array

MAX_FRAME: Final = 1 << 29

_TUPLE, _TIME, _SPAN, _DAY, _PATH, _ARRAY, _STRUCT, _UNSET, _ERROR, _BIG, _PAIRS = range(1, 12)
_LENGTH: Final = struct.Struct(">I")

STRUCTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    cls.__name__: cls
    for cls in (*vars(types).values(), ErasureReceipt)
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct)
}
_ERRORS: Final[Mapping[str, type[Exception]]] = {
    cls.__name__: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, WarpmemError)
} | {name: getattr(builtins, name) for name in ("TypeError", "ValueError", "MemoryError", "RuntimeError")}


class Malformed(Exception):
    """Bytes that are no value as this writes them."""


def encoded(value: Any) -> bytes:
    """Raises InputError for what has no place in a call between processes."""
    try:
        data = _ENCODER.encode(_plain(value))
    except UnicodeEncodeError:
        raise InvalidText("a text holds half of a surrogate pair, which UTF-8 has no bytes for") from None
    except RecursionError:
        raise InputError("a value is nested too deeply") from None
    if len(data) > MAX_FRAME:
        raise InputError(f"{len(data)} bytes are too much for one call: give it fewer things at a time")
    return data


def decoded(data: bytes) -> Any:
    """Raises Malformed."""
    try:
        return _DECODER.decode(data)
    except Exception as error:
        raise Malformed(type(error).__name__) from error


def error_of(error: Exception) -> Exception:
    """The error as it is told to another process: one that has no place there by its kind alone, since its
    message may hold anything."""
    if _ERRORS.get(type(error).__name__) is type(error):
        return error
    return RuntimeError(f"the process that writes met {type(error).__name__}")


# ------------------------------------------------------------------------------------------ frames


def send(connection: socket.socket, data: bytes) -> None:
    """One frame. Raises OSError."""
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> bytes | None:
    """One frame; None where the other side ended between two. Raises OSError, Malformed."""
    head = _read(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise Malformed("too long")
    data = _read(connection, length)
    if data is None:
        raise ConnectionResetError("the other side ended within a frame")
    return data


def _read(connection: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(min(length - len(data), 1 << 20))
        if not part:
            if data:
                raise ConnectionResetError("the other side ended within a frame")
            return None
        data += part
    return bytes(data)


# ------------------------------------------------------------------------------------------ values


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in _AS_THEY_ARE:
        return value
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 64 else _ext(_BIG, str(value))
    if kind is list:
        return [_plain(entry) for entry in value]
    if kind is dict:
        if all(type(key) is str for key in value):
            return {key: _plain(entry) for key, entry in value.items()}
        return _ext(_PAIRS, [[_plain(key), _plain(entry)] for key, entry in value.items()])
    return _extended(value)


def _extended(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _struct(value)
    if value is UNSET:
        return _ext(_UNSET, None)
    if isinstance(value, tuple):
        return _ext(_TUPLE, [_plain(entry) for entry in value])
    if isinstance(value, datetime):
        return _ext(_TIME, value.isoformat())
    if isinstance(value, date):
        return _ext(_DAY, value.isoformat())
    if isinstance(value, timedelta):
        return _ext(_SPAN, [value.days, value.seconds, value.microseconds])
    if isinstance(value, os.PathLike):
        return _ext(_PATH, os.fspath(value))
    if isinstance(value, Exception):
        fields = {name: _plain(field) for name, field in vars(value).items() if not name.startswith("__")}
        return _ext(_ERROR, [type(value).__name__, [_plain(entry) for entry in value.args], fields])
    if isinstance(value, np.generic):
        return _plain(value.item())
    for base, plain in _BASES:
        if isinstance(value, base):
            return _plain(plain(value))
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return _plain(dict(value))
    if any(hasattr(value, name) for name in ("__dlpack__", "__array__", "__cuda_array_interface__")):
        return _array(host_array(value, "an array"))
    raise InputError(f"{type(value).__name__} cannot be passed on to the process that writes")


def _struct(value: msgspec.Struct) -> Ext:
    name = type(value).__name__
    if STRUCTS.get(name) is not type(value):
        raise InputError(f"{name} cannot be passed on to the process that writes")
    return _ext(_STRUCT, [name, {field: _plain(getattr(value, field)) for field in value.__struct_fields__}])


def _array(value: np.ndarray[Any, Any]) -> Ext:
    if value.dtype.hasobject or value.dtype.names:
        raise InputError(f"an array of {value.dtype} cannot be passed on to the process that writes")
    return _ext(_ARRAY, [value.dtype.str, list(value.shape), value.tobytes()])


def _ext(code: int, content: Any) -> Ext:
    return Ext(code, _ENCODER.encode(content))


def _read_ext(code: int, data: memoryview) -> Any:
    content = _DECODER.decode(data)
    if code == _ARRAY:
        kind, shape, raw = content
        return np.frombuffer(raw, np.dtype(kind)).reshape(shape)
    if code == _STRUCT:
        name, fields = content
        return STRUCTS[name](**fields)
    if code == _ERROR:
        name, arguments, fields = content
        return _error(_ERRORS[name], arguments, fields)
    return _READERS[code](content)


def _error(kind: type[Exception], arguments: list[Any], fields: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *arguments)
    Exception.__init__(error, *arguments)
    error.__dict__.update(fields)
    return error


_AS_THEY_ARE: Final = frozenset((bool, float, str, bytes))
_BASES: Final[Sequence[tuple[type, Callable[[Any], Any]]]] = (
    (str, str.__str__), (bytes, bytes), (int, int), (float, float), (list, list),
)  # fmt: skip
"""What others are kinds of, as enumerations are."""
_READERS: Final[Mapping[int, Any]] = {
    _TUPLE: tuple,
    _TIME: datetime.fromisoformat,
    _DAY: date.fromisoformat,
    _SPAN: lambda parts: timedelta(*parts),
    _PATH: Path,
    _UNSET: lambda _: UNSET,
    _BIG: int,
    _PAIRS: dict,
}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(ext_hook=_read_ext)
