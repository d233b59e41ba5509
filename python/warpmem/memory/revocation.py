"""Sources that are believed no more, and what came from them.

The names stand in one value of the store (family meta, key `revoked`). What names one of them, or was derived
from nothing but such items, gets trust 0 as its next version, so it is in quarantine, and history says why.
What comes from a revoked source later is stored in two versions at once, as it was given and with trust 0, so
that it can be believed again as it was. So is what comes from nothing but items in quarantine, with the most
that these are trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from ..errors import NotFound
from ..ops.ids import format_id, parse_id
from ..ops.revoked import KEY, RevokedSource, decode, encode, without
from ..policy import reconcile
from ..protocols import Log, Transaction
from ..records import Record
from ..types import MemoryItem
from .digests import Digests

_TAKEN: Final = frozenset({reconcile.REVOKED, reconcile.UNTRUSTED})
_AGAIN: Final = "its source is believed again"
_STEP: Final = 256


class Revocations:
    """Revokes and reinstates. Thread-safe: all state is in the log."""

    def __init__(self, log: Log, digests: Digests) -> None:
        self._log = log
        self._digests = digests
        self._last: tuple[bytes | None, frozenset[str]] = (None, frozenset())

    def _revoked(self) -> frozenset[str]:
        """The names; decoded once for each state of the list."""
        payload = self._log.kept(KEY)
        if payload != self._last[0]:
            self._last = payload, frozenset(one.name for one in decode(payload))
        return self._last[1]

    def forget(self) -> None:
        """Drop what is known of the list."""
        self._last = (None, frozenset())

    def names(self) -> tuple[str, ...]:
        """The sources that are revoked, oldest first."""
        return tuple(one.name for one in self._read())

    def _read(self) -> list[RevokedSource]:
        return decode(self._log.kept(KEY))

    def checked(self, transaction: Transaction, prepared: reconcile.Prepared) -> reconcile.Prepared:
        """Inside a change: an item on its way into the store, with the trust that its sources leave it."""
        item = prepared.item
        trust, why = self.trust(transaction, item)
        if why is None:
            return prepared
        trusted = msgspec.structs.replace(item, trust=trust)
        if not trusted.quarantined:
            return msgspec.structs.replace(prepared, item=trusted)
        duplicate, slot = self._digests.both(trusted)
        return msgspec.structs.replace(
            prepared, item=trusted, duplicate=duplicate, slot=slot, near=(), given=item.trust, why=why
        )

    def trust(self, transaction: Transaction, item: MemoryItem) -> tuple[float, str | None]:
        """Inside a change: the trust that an item's sources leave it, and why that is less than its own: none
        where one is revoked; where all are items, no more than the most trusted one's."""
        if not item.sources or not item.trust:
            return item.trust, None
        if not self._revoked().isdisjoint(item.sources):
            return 0.0, reconcile.REVOKED
        best = 0.0
        for source in item.sources:
            try:
                record = transaction.get(parse_id(source))
            except NotFound:
                record = None
            if record is None or record.item.trust >= item.trust:
                return item.trust, None
            best = max(best, record.item.trust)
        return best, reconcile.UNTRUSTED

    def revoke(self, source: str) -> int:
        """Believe a source no more. How many items went into quarantine by this call."""
        self._keep(lambda known, now: [*without(known, {source}), RevokedSource(source, now)])
        names = set(self.names())
        return sum(
            self._correct(keys, lambda _, record: 0.0 if record.item.trust else None, reconcile.REVOKED)
            for keys in self._owned(names)
        )

    def reinstate(self, source: str) -> int:
        """Believe a source again. How many items this call gave the trust back that they had."""
        self._keep(lambda known, _: without(known, {source}))
        names = set(self.names())
        count = 0
        still = {key for keys in self._owned(names) for key in keys} if names else set()
        for keys in self._owned({source}):
            count += self._correct([key for key in keys if key not in still], self._again, _AGAIN)
        return count

    def _again(self, transaction: Transaction, record: Record) -> float | None:
        """The trust that an item gets back: what it had, as far as its sources leave it that."""
        before = trust_before(record, self._log)
        if before is None:
            return None
        trust, _ = self.trust(transaction, msgspec.structs.replace(record.item, trust=before))
        return trust or None

    def _keep(self, change: Callable[[list[RevokedSource], int], list[RevokedSource]]) -> None:
        def keep(transaction: Transaction) -> None:
            left = change(self._read(), transaction.now)
            transaction.keep(KEY, encode(left))

        self._log.transact(keep)

    def _owned(self, names: set[str]) -> Iterator[list[bytes]]:
        """Owner by owner: the items that came from these sources, or from nothing but such items."""
        for number, _ in self._log.owners(0):
            sources: dict[bytes, Sequence[str]] = {}
            found: dict[bytes, None] = {}
            for _, record in self._log.records(number, order="recorded", reverse=False, after=None):
                if names.intersection(record.item.sources):
                    found[record.key] = None
                elif record.item.sources:
                    sources[record.key] = record.item.sources
            if found:
                _spread(found, sources, names)
                yield list(found)

    def _correct(
        self,
        keys: Sequence[bytes],
        trust: Callable[[Transaction, Record], float | None],
        reason: str,
    ) -> int:
        """Give items another trust, some at a time."""
        count = 0
        for start in range(0, len(keys), _STEP):
            step = keys[start : start + _STEP]

            def change(transaction: Transaction, step: Sequence[bytes] = step) -> int:
                changed = 0
                for key in step:
                    record = transaction.get(key)
                    new = None if record is None else trust(transaction, record)
                    if record is None or new is None:
                        continue
                    item = msgspec.structs.replace(record.item, trust=new)
                    reconcile.update(
                        transaction,
                        record,
                        item,
                        None,
                        based_on=record.item.version,
                        digests=(self._digests.both(record.item), self._digests.both(item)),
                        earlier=self._log.get_version,
                        reason=reason,
                    )
                    changed += 1
                return changed

            count += self._log.transact(change)
        return count


def trust_before(record: Record, log: Log) -> float | None:
    """The trust that an item had before its sources took it away; None where that is not why it has none."""
    if record.item.trust:
        return None
    trusts: Mapping[int, float] = {}
    wanted = None
    for past in log.history(record.key):
        if past.record is None:
            continue
        version = past.record.item.version
        if past.reason in _TAKEN:
            wanted = trusts.get(version - 1)
        trusts = {version: past.record.item.trust}
    return wanted


def _spread(found: dict[bytes, None], sources: Mapping[bytes, Sequence[str]], names: set[str]) -> None:
    """Add to `found` what names nothing but items in it and `names`."""
    ids = {format_id(key) for key in found} | names
    waiting = dict(sources)
    grown = True
    while grown:
        grown = False
        for key, named in list(waiting.items()):
            if ids.issuperset(named):
                del waiting[key]
                found[key] = None
                ids.add(format_id(key))
                grown = True
