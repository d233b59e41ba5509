"""Images and audio as callers pass them: bytes, the path of a file, or a URI."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

from ..errors import InputError
from ..types import Media, NewItem

MAX_MEDIA_BYTES: Final = 32 << 20
MAX_CALL_BYTES: Final = 256 << 20
_WHAT: Final = "bytes, the path of a file or a URI"


def media_reference(value: Any, name: str) -> str:
    """What names it where nothing else does: the path or URI as given, or "sha256:" and the digest of its
    bytes in hex. Raises InputError."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"sha256:{hashlib.sha256(_checked(bytes(value), name)).hexdigest()}"
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise InputError(f"{name} must be {_WHAT}, not {type(value).__name__}")


def one_of_a_modality(content: Any, *, blob: str | None, **named: Any) -> NewItem | None:
    """The item that an `add` with image=, audio=, code= or log= asks for; None without any of them. Raises
    InputError for several, or for a content that has no place beside it."""
    given = {name: value for name, value in named.items() if value is not None}
    if not given:
        if blob is not None:
            raise InputError("blob refers to an image or audio: give it with image= or audio=")
        return None
    if len(given) > 1:
        raise InputError(f"give one of {', '.join(named)}, not {' and '.join(given)}")
    ((key, value),) = given.items()
    name: Any = key
    if name in ("image", "audio"):
        if not isinstance(content, str | None):
            raise InputError(f"the caption of {name} must be a string, not {type(content).__name__}")
        return NewItem(text=content or "", modality=name, media=value, blob=blob)
    if content is not None or blob is not None:
        raise InputError(f"{name} is the text of the item: give neither content nor blob beside it")
    return NewItem(text=value, modality=name)


def to_media(value: Any, name: str) -> Media:
    """What a model is given: the bytes, those of a file included, or the URI, for a string with "://".
    Raises InputError when a file cannot be read or holds more than 32 MiB."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Media(data=_checked(bytes(value), name))
    if isinstance(value, str) and "://" in value:
        return Media(uri=value)
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be {_WHAT}, not {type(value).__name__}")
    try:
        with open(value, "rb") as file:
            data = file.read(MAX_MEDIA_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise InputError(f"the file of {name} cannot be read: {why}") from error
    return Media(data=_checked(data, name))


def _checked(data: bytes, name: str) -> bytes:
    if not data:
        raise InputError(f"{name} is empty")
    if len(data) > MAX_MEDIA_BYTES:
        raise InputError(f"{name} has more than {MAX_MEDIA_BYTES} bytes")
    return data
