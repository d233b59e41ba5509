"""Streams of what a store knows, for training: chosen, without repetitions, with provenance and consent.

A pass goes through the owners in the order of their first items, and through the items of each in the order
in which they were recorded. A text, or a pair of texts, belongs to the shard that the digest of its normal
form names; so equal texts meet in one shard, which gives the first of them alone.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from ..errors import InputError, NotFound
from ..ingest.normalize import normalize_text
from ..ops.digest import DIGEST_BYTES, digest16
from ..ops.ids import parse_id
from ..ops.texts import check_text
from ..policy.filters import compile_filter
from ..types import MemoryItem, Scope
from ..types.paths import keys_of
from ..types.scalars import int_of
from . import arguments
from .exporting import all_owners, items_of

if TYPE_CHECKING:
    from .facade import Memory

_MAX_SHARDS: Final = 1 << 20
_ASKED: Final = "user"
_ANSWERED: Final = "assistant"


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One text, or with `response` a pair. ids: the items it comes from; sources: what those came from.
    consent: what stands in their metadata under the stream's `consent`, None where nothing does or none was
    asked for. at: when it was said or became true."""

    text: str
    response: str | None = None
    ids: tuple[str, ...]
    kind: str
    at: datetime
    sources: tuple[str, ...] = ()
    trust: float = 1.0
    consent: bool | None = None


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Behind which item of which scope a pass goes on, and of which stream it is."""

    settings: bytes
    scope: int
    item: str

    @property
    def position(self) -> tuple[int, bytes]:
        """Comes before that of every later item: keys begin with the owner's number, and ascend."""
        return self.scope, parse_id(self.item)


class TrainingStream(Iterator[TrainingRecord]):
    """An iterator over records. `cursor` is behind the last one it gave. Not thread-safe."""

    def __init__(
        self,
        memory: Memory,
        scopes: Sequence[Scope] | None,
        keep: Callable[[MemoryItem], bool],
        consent: str | None,
        pairs: bool,
        shard: tuple[int, int],
        settings: bytes,
        after: _Cursor | None,
    ) -> None:
        self._memory = memory
        self._scopes = scopes
        self._keep = keep
        self._consent = consent
        self._pairs = pairs
        self._shard = shard
        self._settings = settings
        self._after = after
        self._last = after
        self._records = self._walk()

    @property
    def cursor(self) -> str | None:
        """Where another stream with the same arguments goes on; None before the first record."""
        if self._last is None:
            return None
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self._last)).decode("ascii")

    def __iter__(self) -> TrainingStream:
        return self

    def __next__(self) -> TrainingRecord:
        self._last, record = next(self._records)
        return record

    def write(self, file: str | os.PathLike[str] | IO[bytes], limit: int | None = None) -> int:
        """Append records, `limit` at most, to a file as JSON lines; returns how many. Raises InputError."""
        if limit is not None:
            limit = arguments.check_count(limit, "limit", (1 << 63) - 1)
        if isinstance(file, (str, os.PathLike)):
            try:
                with open(file, "ab") as opened:
                    return self._write(opened, limit)
            except OSError as error:
                raise InputError(f"cannot write {os.fspath(file)!r}: {error.strerror}") from error
        return self._write(file, limit)

    def _write(self, file: IO[bytes], limit: int | None) -> int:
        count = 0
        while limit is None or count < limit:
            record = next(self, None)
            if record is None:
                break
            file.write(msgspec.json.encode(record) + b"\n")
            count += 1
        file.flush()
        return count

    def _walk(self) -> Iterator[tuple[_Cursor, TrainingRecord]]:
        seen: set[bytes] = set()
        number, count = self._shard
        after = None if self._after is None else self._after.position
        for scope, record in self._all():
            digest = _digest(record)
            if int.from_bytes(digest[:8], "big") % count == number and digest not in seen:
                seen.add(digest)
                cursor = _Cursor(self._settings, scope, record.ids[-1])
                if after is None or cursor.position > after:
                    yield cursor, record

    def _all(self) -> Iterator[tuple[int, TrainingRecord]]:
        if self._scopes is None:
            for owner in all_owners(self._memory):
                for record in self._of(owner):
                    yield 0, record
            return
        for number, scope in enumerate(self._scopes):
            for record in self._of(scope):
                yield number, record

    def _of(self, whose: Scope) -> Iterator[TrainingRecord]:
        asked: dict[Scope, MemoryItem] = {}
        for item in items_of(self._memory, whose, include_past=False):
            if not self._pairs:
                if self._keep(item):
                    yield self._record((item,))
                continue
            role = item.metadata.get("role")
            before = asked.pop(item.scope, None)
            if role == _ASKED:
                asked[item.scope] = item
            elif role == _ANSWERED and before is not None and self._keep(before) and self._keep(item):
                yield self._record((before, item))

    def _record(self, items: tuple[MemoryItem, ...]) -> TrainingRecord:
        said = [consent_of(item, self._consent) for item in items]
        return TrainingRecord(
            text=items[0].text,
            response=items[1].text if len(items) > 1 else None,
            ids=tuple(item.id for item in items),
            kind=items[-1].kind,
            at=items[-1].valid_from,
            sources=tuple(dict.fromkeys(source for item in items for source in item.sources)),
            trust=min(item.trust for item in items),
            consent=None if None in said else all(said),
        )


def consent_of(item: MemoryItem, path: str | None) -> bool | None:
    """True or False as an item's metadata has it under a path of keys, else None."""
    value: Any = item.metadata if path is not None else None
    for key in () if path is None else keys_of(path) or ():
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, bool) else None


def make_stream(
    memory: Memory,
    salt: bytes,
    scopes: Sequence[Scope] | None,
    kinds: Sequence[str] | None,
    filters: Mapping[str, Any] | None,
    min_trust: float,
    consent: str | None,
    pairs: bool,
    shard: tuple[int, int],
    cursor: str | None,
) -> TrainingStream:
    """See Memory.training_stream."""
    whose = None if scopes is None else arguments.search_scopes(scopes, None)
    wanted = None if kinds is None else frozenset(arguments.check_kinds(kinds))
    compiled = None if filters is None else compile_filter(filters)
    least = arguments.check_share(min_trust, "min_trust")
    if consent is not None and (not isinstance(consent, str) or keys_of(consent) is None):
        raise InputError("consent must be a path of metadata keys, like 'consent.training', or None")
    if consent is not None:
        consent = check_text(consent, "consent")
    arguments.check_flag(pairs, "pairs")
    number, parts = _check_shard(shard)
    settings = msgspec.msgpack.encode(
        (
            [msgspec.structs.astuple(scope) for scope in whose or ()], sorted(wanted or ()),
            compiled.canonical if compiled else b"", least, consent, pairs, [number, parts],
        )
    )  # fmt: skip
    name = digest16(salt, b"training", settings)[:8]

    def keep(item: MemoryItem) -> bool:
        return (
            (wanted is None or item.kind in wanted)
            and item.trust >= least
            and bool(item.text)
            and (consent is None or consent_of(item, consent) is True)
            and (compiled is None or compiled.matches(item))
        )

    after = None if cursor is None else _read_cursor(cursor, name)
    return TrainingStream(memory, whose, keep, consent, pairs, (number, parts), name, after)


def _check_shard(shard: Any) -> tuple[int, int]:
    if isinstance(shard, (tuple, list)) and len(shard) == 2:
        number, parts = map(int_of, shard)
        if number is not None and parts is not None and 0 <= number < parts <= _MAX_SHARDS:
            return number, parts
    raise InputError(f"shard must be (number, how many): numbers from 0, at most {_MAX_SHARDS} of them")


def _digest(record: TrainingRecord) -> bytes:
    texts = (record.text,) if record.response is None else (record.text, record.response)
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for text in texts:
        normal = normalize_text(text).encode("utf-8")
        state.update(len(normal).to_bytes(8, "big") + normal)
    return state.digest()


def _read_cursor(cursor: Any, settings: bytes) -> _Cursor:
    if not isinstance(cursor, str):
        raise InputError(f"cursor must be a string, not {type(cursor).__name__}")
    try:
        found = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor.encode("ascii")), type=_Cursor)
        parse_id(found.item)
    except (ValueError, NotFound) as error:
        raise InputError("this is not a cursor of a training stream") from error
    if found.settings != settings:
        raise InputError("this cursor belongs to a stream with other arguments, or of another store")
    return found
