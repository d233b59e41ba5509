"""Exporting: items as JSON lines.

An exported line holds every public field of an item, its scope as flat ids, times as ISO 8601; with vectors,
also "vector", the base64 of its float32; and a check, which with the last line shows damage (line_check.py).
Lines are in the order of each owner's first item, then of first recording. Superseded and expired items are
exported. Deleted items, earlier versions, the change feed and remembered idempotent calls are not: a backup
has them.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..ops.blank import is_blank
from ..ops.ids import parse_id
from ..protocols import Log
from ..types import MemoryItem, Scope
from .item_line import write_line
from .line_check import with_check

if TYPE_CHECKING:
    from .facade import Memory

_PAGE = 1000
_SCOPE_IDS = ("user_id", "agent_id", "run_id", "corpus_id")


def item_fields(item: MemoryItem) -> dict[str, Any]:
    """Every public field of an item, its scope as flat ids; ids and fields that are None are left out."""
    fields: dict[str, Any] = {"id": item.id}
    for name in _SCOPE_IDS:
        fields[name] = getattr(item.scope, name)
    for name in item.__struct_fields__:
        if name not in ("id", "scope"):
            fields[name] = getattr(item, name)
    return {name: value for name, value in fields.items() if value is not None}


_STANDARD = ("/dev/stdout", "/dev/stderr")


def export(
    memory: Memory, log: Log, file: str | os.PathLike[str] | IO[bytes], scope: Scope | None, *, vectors: bool
) -> int:
    """See Memory.export."""
    if not isinstance(file, (str, os.PathLike)):
        return _write(memory, log, scope, file, vectors)
    path = Path(os.path.realpath(file))  # a link goes on leading to what it led to
    try:
        # What /dev/stdout leads to has no name that can be opened where it is a pipe.
        with open(file, "ab") if _is_stream(file) else _replacing(path) as part:
            return _write(memory, log, scope, part, vectors)
    except OSError as error:
        raise InputError(f"cannot write {os.fspath(file)!r}: {error.strerror}") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its place at the end, so that `path` is never half an export."""
    with tempfile.NamedTemporaryFile(
        dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
    ) as part:
        try:
            yield part
            part.flush()
            os.fsync(part.fileno())
            os.chmod(part.name, 0o666 & ~_umask())
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise


def _is_stream(file: str | os.PathLike[str]) -> bool:
    """Whether it is there and written to as it is: a device, a pipe, or an open file by its descriptor, such
    as /dev/stdout. No file may replace it."""
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return True
    path = os.path.abspath(os.fsdecode(file))
    folder = os.path.realpath(os.path.dirname(path))
    return path in _STANDARD or (folder.startswith("/proc/") and folder.endswith("/fd"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(memory: Memory, log: Log, scope: Scope | None, stream: IO[bytes], vectors: bool) -> int:
    count = 0
    for whose in all_owners(memory) if scope is None else (scope,):
        for item in items_of(memory, whose):
            fields = item_fields(item)
            if vectors:
                fields |= _vector_fields(log, item)
            write_line(stream, with_check(fields))
            count += 1
    write_line(stream, with_check({"end": count}))
    getattr(stream, "flush", bool)()
    return count


def _vector_fields(log: Log, item: MemoryItem) -> dict[str, str]:
    """The item's vector, if it has one, and the model that made it."""
    key, identity = parse_id(item.id), log.identity  # both of one moment: a change of models may fall between
    in_texts = log.space_of(key, item.version) == 0
    vector = log.vector(key, item.version, identity)
    if vector is None or is_blank(vector):
        return {}
    fields = {"vector": base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()}
    return {**fields, "model_id": identity.model_id} if in_texts else fields


def all_owners(memory: Memory) -> Iterator[Scope]:
    """A scope for every owner that ever had an item, in the order of their first items."""
    after: Scope | None = None
    while page := memory.owners(after=after, limit=_PAGE):
        yield from page
        after = page[-1]


def items_of(memory: Memory, scope: Scope, *, include_past: bool = True) -> Iterator[MemoryItem]:
    """A scope's items in the order in which they were first recorded, those in quarantine among them."""
    cursor: str | None = None
    while True:
        page = memory.list(scope, include_past=include_past, quarantined=True, limit=_PAGE, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
