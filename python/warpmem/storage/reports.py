"""What verify, repair and backup tell: plain values that become JSON as they are."""

from __future__ import annotations

import msgspec

from ..ops.ids import KEY_BYTES, format_id
from .codec import VECTOR_FAMILIES

_BY_ITEM = ("items", "history", *VECTOR_FAMILIES)


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is not as it should be. family: of the store, or `file`, `index`. key: of the entry, in
    hex. id: of the item, where the key names one."""

    family: str
    what: str
    key: str | None = None
    id: str | None = None


class VerifyReport(msgspec.Struct, frozen=True):
    """What `verify` found.

    ok         there is no fault, and everything was looked at
    opened     the store opens; if not, its files were read one by one, and `files` says what each holds
    complete   every entry was read and compared with the others it goes with. Not so in a store that does
               not open, after an unreadable block, or while an erasure is unfinished
    entries    by family, those that are whole
    more       faults beyond those listed
    """

    path: str
    ok: bool
    opened: bool
    complete: bool
    format: int | None
    model_id: str | None
    dimension: int | None
    items: int
    owners: int
    sequence: int
    entries: dict[str, int]
    faults: tuple[Fault, ...]
    more: int
    files: dict[str, str]
    seconds: float


class Lost(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that `repair` could not bring over whole. id: of the item; version: which of its versions;
    sequence: which entry of the log, that became a stub."""

    what: str
    id: str | None = None
    version: int | None = None
    sequence: int | None = None


class RepairReport(msgspec.Struct, frozen=True):
    """What `repair` salvaged and what it lost. `ok`: nothing is lost. The newest changes may be gone without
    a trace; where damage leaves that open, `lost` says so last. `source_entries`: whole entries found in the
    damaged store, by family, older ones included. `embedded`: vectors made anew from whole texts."""

    path: str
    source: str
    ok: bool
    model_id: str
    dimension: int
    items: int
    versions: int
    deleted: int
    owners: int
    sequence: int
    embedded: int
    stubs: int
    source_entries: dict[str, int]
    lost: tuple[Lost, ...]
    files: dict[str, str]
    seconds: float


def item_id(key: bytes) -> str | None:
    """The id of the item that a key begins with; None when it is too short for one."""
    return format_id(key[:KEY_BYTES]) if len(key) >= KEY_BYTES else None


class Faults:
    """Collects faults, the first `limit` of them in full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.listed: list[Fault] = []
        self.more = 0

    def note(self, family: str, what: str, key: bytes | None = None, *, item: bytes | None = None) -> None:
        """item: the item's key, where `key` does not begin with it."""
        if len(self.listed) >= self._limit:
            self.more += 1
            return
        if item is None and key is not None and family in _BY_ITEM:
            item = key
        self.listed.append(
            Fault(family, what, None if key is None else key.hex(), None if item is None else item_id(item))
        )
