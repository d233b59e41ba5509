"""A change that removes records for good, unlike StoreTransaction.delete, which keeps history."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from typing import Any

import msgspec

from ..ops import costs, revoked
from ..ops.ids import format_id, owner_of, owner_prefix
from ..records import LogEntry, ReembedJob, RowChange, VersionName
from ..types import Owner
from . import codec
from .erasure_values import ErasureMark, notice, stub
from .transaction import StoreTransaction, owner_digest
from .values import HistoryValue, ItemValue, OwnerValue, RememberedValue, decode, encode
from .vector_build import JOB_KEY, standing_at

_UUID = 16
_OWNED = ("items", "listing", "history", *codec.VECTOR_FAMILIES, "lookup")
"""Families whose keys begin with an owner. Items first: what has no item is found by nobody."""
_VERSIONS = ("history", *codec.VECTOR_FAMILIES)
_WORK = [codec.work_prefix(kind) for kind in codec.WORK_KINDS]
_ERASED = "an item that was erased"
_COUNTED = {"items": "items", "history": "history", "listing": "listing", "lookup": "lookups", "jobs": "work"}


class ErasingTransaction(StoreTransaction):
    """Adds removals to StoreTransaction. `counts` says what was removed, by place."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.counts: Counter[str] = Counter()
        self._erased: dict[int, None] = {}
        self.told = None  # names that are gone are not to be remembered

    # -------------------------------------------------------------------------------------- marks

    def mark(self, key: bytes, mark: ErasureMark | None) -> None:
        """Put or remove one mark of an erasure under way."""
        self._write("meta", key, None if mark is None else encode(mark))

    # ------------------------------------------------------------------------------------- owners

    def hide_owner(self, number: int) -> None:
        """Forget an owner's name: its id leads nowhere from now on, or to a new number."""
        value = self._owner_value(number)
        if value.id:
            name_key = codec.owner_name_key(owner_digest(self._identity, Owner(value.type, value.id)))
            # By then the name may lead to another number: a repair gave this one its name back.
            if self._read("owners", name_key) == number.to_bytes(4, "big"):
                self._write("owners", name_key, None)
            self._put_owner(number, OwnerValue("user", "", value.next_ordinal, value.items))
            self._erased[number] = None

    def forget_costs(self, owners: Container[int]) -> None:
        """Remove the daily totals of owners."""
        for key, _ in self._engine.scan("meta", *codec.prefix_range(costs.PREFIX)):
            if costs.spender(key) in owners:
                self._write("meta", key, None)

    def erase_owner(self, number: int, limit: int) -> bool:
        """Remove up to `limit` values of an owner that was hidden; whether that was all."""
        left = self._remove_some(_OWNED, owner_prefix(number), limit)
        left = self._remove_work(owner_prefix(number), left)
        if left:
            self._put_owner(number, OwnerValue("user", "", 0, 0))
        self._erased[number] = None
        return left > 0

    # -------------------------------------------------------------------------------------- items

    def erase_item(self, key: bytes, slots: Iterable[bytes]) -> None:
        """Remove an item, its listing and its places in key slots (keys of `lookup`)."""
        stored = self._read("items", key)
        if stored is not None:
            value = decode(stored, ItemValue)
            self._remove("listing", codec.listing_key(owner_of(key), value.valid_from, key[-_UUID:]))
            self._remove("items", key)
            self._one_item_less(owner_of(key))
        for slot in slots:
            self._remove("lookup", slot)
        self._records[key] = None
        self._erased[owner_of(key)] = None

    def erase_versions(self, keys: Iterable[bytes], limit: int) -> bool:
        """Remove up to `limit` values of past versions and vectors of removed items; whether that was all."""
        left = limit
        for key in keys:
            left = self._remove_some(_VERSIONS, key, left)
            left = self._remove_work(key, left)
            self._erased[owner_of(key)] = None
            if not left:
                return False
        return True

    def erase_past(self, names: Iterable[VersionName]) -> None:
        """Remove past versions of items that stay, with their vectors and what waits for these."""
        for key, version in names:
            name = codec.history_key(key, version)
            self._remove_some(_VERSIONS, name, len(_VERSIONS))
            self._remove_some(("jobs",), codec.work_key("embed", key, version), 1)
            self._erased[owner_of(key)] = None

    def forget_lookup(self, key: bytes, gone: Collection[bytes]) -> None:
        """Take items (their keys) out of a value of family lookup; remove it when it is about them alone."""
        stored = self._read("lookup", key)
        if stored is None:
            return
        if key[4:5] == codec.DUPLICATE:
            found = bytes(stored)
            known = [found[at : at + _UUID] for at in range(0, len(found), _UUID)]
            left = [unique for unique in known if key[:4] + unique not in gone]
            if len(left) < len(known):
                self.counts["lookups"] += 1
                self._write("lookup", key, b"".join(left) or None)
        elif key[4:5] == codec.IDEMPOTENCY:
            value = decode(stored, RememberedValue)
            if names_any(value.result, {format_id(item) for item in gone}):
                self._remove("lookup", key)
                self._write("lookup", codec.remembered_key(owner_of(key), value.at, key[5:]), None)

    def forget_sources(self, family: str, key: bytes, gone: Any) -> int | None:
        """Take the ids that `gone` contains out of the sources of one version, in place. Its number, if it
        has none left."""
        stored = self._read(family, key)
        if stored is None:
            return None
        past = decode(stored, HistoryValue) if family == "history" else None
        item = past.item if past is not None else decode(stored, ItemValue)
        if item is None:
            return None
        item = msgspec.structs.replace(item, sources=tuple(s for s in item.sources if s not in gone))
        value: Any = item if past is None else msgspec.structs.replace(past, item=item)
        self._write(family, key, encode(value))
        self._touched(key[:20])
        self.counts["sources"] += 1
        return None if item.sources else item.version

    def forget_reason(self, key: bytes, gone: Any) -> None:
        """Take an id that `gone` contains out of what a deletion says of itself."""
        stored = self._read("history", key)
        if stored is not None:
            past = decode(stored, HistoryValue)
            reason = with_erased(past.reason, gone)
            self._write("history", key, encode(msgspec.structs.replace(past, reason=reason)))

    def forget_revoked(self, gone: Any) -> None:
        """Take the ids that `gone` contains out of the sources that are believed no more."""
        known = revoked.decode(self._read("meta", revoked.KEY))
        left = revoked.without(known, gone)
        if len(left) < len(known):
            self._write("meta", revoked.KEY, revoked.encode(left))

    def erase_entries(self, entries: Sequence[LogEntry]) -> None:
        """Put stubs in the place of log entries."""
        for entry in entries:
            self._write("log", codec.log_key(entry.sequence), encode(stub(entry)))
            self.counts["log_entries"] += 1

    def move_job(self) -> None:
        """Let a change of the model stand at a row that was not erased."""
        stored = self._read("jobs", JOB_KEY)
        if stored is not None:
            job = decode(stored, ReembedJob)
            position = standing_at(self._engine, self._identity.vectors, job.position)
            if position != job.position:
                self._write("jobs", JOB_KEY, encode(msgspec.structs.replace(job, position=position)))

    # ------------------------------------------------------------------------------------ outcome

    def notify(self) -> None:
        """Append the notices of this change to the log: once, at its end."""
        for owner in dict.fromkeys([*self._erased, *map(owner_of, self._changes)]):
            self.state.sequence += 1
            state = self.state
            entry = notice(state.sequence, self._now, owner, state.items, unsynced=state.unsynced)
            self._write("log", codec.log_key(entry.sequence), encode(entry))

    @property
    def effects(self) -> list[RowChange]:
        """As StoreTransaction.effects; owners of whom something was erased are to be read anew."""
        changed = [change for change in super().effects if change.owner not in self._erased]
        return [*changed, *(RowChange(owner, (), (), (), erased=True) for owner in self._erased)]

    # ----------------------------------------------------------------------------------- helpers

    def _remove_some(self, families: Iterable[str], prefix: bytes, left: int) -> int:
        """Remove up to `left` values whose keys begin with a prefix; how many more may go."""
        for family in families:
            found = self._engine.scan(family, *codec.prefix_range(prefix))
            for key, _ in itertools.islice(found, left):
                self._remove(family, key)
                left -= 1
                if family == "items":
                    self._one_item_less(owner_of(key))
            if not left:
                break
        return left

    def _remove_work(self, prefix: bytes, left: int) -> int:
        """The same for what waits to be done for an owner or an item."""
        for head in _WORK:
            left = self._remove_some(("jobs",), head + prefix, left)
        return left

    def _remove(self, family: str, key: bytes) -> None:
        self._write(family, key, None)
        self.counts[_COUNTED.get(family, "vectors")] += 1

    def _one_item_less(self, owner: int) -> None:
        self.state.items -= 1
        self._put_owner(
            owner, msgspec.structs.replace(self._owner_value(owner), items=self._owner_value(owner).items - 1)
        )


def with_erased(reason: str | None, gone: Container[object]) -> str | None:
    """Why the store deleted an item, without the id of one that `gone` contains: the last word of it."""
    before, space, name = (reason or "").rpartition(" ")
    return before + space + _ERASED if name in gone else reason


def names_any(value: Any, ids: Container[object]) -> bool:
    """Whether a remembered result, lists of plain values, holds one of these strings."""
    if isinstance(value, (list, tuple)):
        return any(names_any(entry, ids) for entry in value)
    return isinstance(value, str) and value in ids
