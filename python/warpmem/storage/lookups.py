"""Where items are found without their ids: by what they say, as values of keys, and by the calls that made
them. A change reads this through its own writes (FORMATS.md, family lookup)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

from ..ops.clock import to_micros
from ..ops.ids import owner_prefix
from ..protocols import Engine
from ..records import Record
from . import codec
from .values import RememberedValue, decode, encode
from .work import WorkTransaction

_UUID: Final = 16
_FORGET_AT_ONCE: Final = 4


def read_slots(engine: Engine, owner: int, digest: bytes) -> list[bytes]:
    """The entries of a key's values as they are stored, in order."""
    start, stop = codec.prefix_range(codec.lookup_key(owner, codec.SLOT, digest))
    found = []
    for key, value in engine.scan("lookup", start, stop):
        codec.unseal("lookup", key, value)
        found.append(bytes(key))
    return found


class LookupTransaction(WorkTransaction):
    """The part of a change that knows duplicates, values of keys and remembered calls."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._slots: dict[bytes, dict[bytes, bool]] = {}
        self._forgotten: dict[int, bytes] = {}
        self._asked: dict[bytes, bytes] = {}
        """What the engine said of duplicates: it is looked for before an addition and at its end."""

    # ----------------------------------------------------------------------------------- duplicates

    def find_duplicates(self, owner: int, digest: bytes) -> list[bytes]:
        name = codec.lookup_key(owner, codec.DUPLICATE, digest)
        stored = self._asked.get(name)
        if stored is None or ("lookup", name) in self._overlay:
            stored = self._asked[name] = bytes(self._read("lookup", name) or b"")
        return [owner_prefix(owner) + stored[at : at + _UUID] for at in range(0, len(stored), _UUID)]

    def _forget_duplicate(self, owner: int, digest: bytes, key: bytes) -> None:
        left = [other for other in self.find_duplicates(owner, digest) if other != key]
        self._put_duplicates(owner, digest, left)

    def _remember_duplicate(self, owner: int, digest: bytes, key: bytes) -> None:
        known = self.find_duplicates(owner, digest)
        if key not in known:
            self._put_duplicates(owner, digest, [*known, key])

    def _put_duplicates(self, owner: int, digest: bytes, keys: Sequence[bytes]) -> None:
        value = b"".join(key[-_UUID:] for key in keys)
        self._write("lookup", codec.lookup_key(owner, codec.DUPLICATE, digest), value or None)

    # --------------------------------------------------------------------------------- values of keys

    def key_chain(self, owner: int, digest: bytes) -> list[tuple[int, bytes]]:
        prefix = codec.lookup_key(owner, codec.SLOT, digest)
        found = set(read_slots(self._engine, owner, digest))
        for key, live in self._slots.get(prefix, {}).items():
            (found.add if live else found.discard)(key)
        return [codec.read_slot_suffix(key) for key in sorted(found)]

    def _set_slot(self, owner: int, digest: bytes, record: Record, *, live: bool) -> None:
        prefix = codec.lookup_key(owner, codec.SLOT, digest)
        key = prefix + codec.slot_suffix(to_micros(record.item.valid_from, "valid_from"), record.key[4:])
        self._write("lookup", key, b"" if live else None)
        self._slots.setdefault(prefix, {})[key] = live

    # ------------------------------------------------------------------------------ remembered calls

    def idempotent(self, owner: int, digest: bytes) -> tuple[int, bytes, Any] | None:
        stored = self._read("lookup", codec.lookup_key(owner, codec.IDEMPOTENCY, digest))
        if stored is None:
            return None
        value = decode(stored, RememberedValue)
        return value.at, value.payload, value.result

    def remember(self, owner: int, digest: bytes, payload: bytes, result: Any, window: int) -> None:
        self._forget_remembered(owner, self._now - window)
        earlier = self.idempotent(owner, digest)
        if earlier is not None:
            self._write("lookup", codec.remembered_key(owner, earlier[0], digest), None)
        key = codec.lookup_key(owner, codec.IDEMPOTENCY, digest)
        self._write("lookup", key, encode(RememberedValue(self._now, payload, result)))
        self._write("lookup", codec.remembered_key(owner, self._now, digest), b"")

    def _forget_remembered(self, owner: int, before: int) -> None:
        """Drop a few outcomes from before a time: more than one call adds, so that they cannot pile up."""
        start = self._forgotten.get(owner, codec.remembered_key(owner, -(1 << 63), b""))
        stop = codec.remembered_key(owner, before, b"")
        for key, _ in itertools.islice(self._engine.scan("lookup", start, stop), _FORGET_AT_ONCE):
            digest = codec.read_remembered_key(key)[1]
            self._write("lookup", codec.lookup_key(owner, codec.IDEMPOTENCY, digest), None)
            self._write("lookup", key, None)
            self._forgotten[owner] = key + b"\0"  # where the next call of this change goes on
