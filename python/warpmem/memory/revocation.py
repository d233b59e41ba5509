"""Sources that are believed no more, and what came from them.

The names stand in one value of the store (family meta, key `revoked`). One rule says what trust an item's
sources leave it (`_left`): whether it came before a source was revoked, comes after that, or is looked at
again when the source is reinstated. What loses trust by it gets that as its next version, and history says
why; what comes with more than its sources leave it is stored in two versions at once, so that it can be
believed again as it was. `update(trust=)` moves one item, and nothing that comes from it.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from ..ops.derivation import Derived, reaching
from ..ops.ids import origins, parse_id
from ..ops.naming import Naming
from ..ops.revoked import KEY, RevokedSource, decode, encode, without
from ..policy import reconcile
from ..protocols import Log, Transaction
from ..records import Past, Record
from ..types import MemoryItem
from .digests import Digests

_TAKEN: Final = frozenset({reconcile.REVOKED, reconcile.UNTRUSTED})
_NEW: Final = b""
"""In the place of the key of an item on its way into the store."""
_AGAIN: Final = "its source is believed again"
_STEP: Final = 256


class Taken(NamedTuple):
    """The trust that an item had before its sources took it away, and why they did at last."""

    trust: float
    reason: str


class _Item(NamedTuple):
    """What the rule looks at. most: the trust that it may have, whatever its sources leave it."""

    version: int
    trust: float
    sources: Sequence[str]
    most: float


class _Change(NamedTuple):
    """An item's trust to be, and the version that it was found in."""

    key: bytes
    version: int
    trust: float
    reason: str


class Revocations:
    """Revokes and reinstates. Thread-safe: all state is in the log."""

    def __init__(self, log: Log, digests: Digests) -> None:
        self._log = log
        self._digests = digests
        self._lock = threading.Lock()
        self._last: tuple[bytes | None, frozenset[str]] = (None, frozenset())

    def _revoked(self) -> frozenset[str]:
        """The names; decoded once for each state of the list."""
        payload, last = self._log.kept(KEY), self._last
        if payload != last[0]:  # read once: an erasure's thread may forget it in between
            self._last = last = payload, frozenset(one.name for one in decode(payload))
        return last[1]

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
        duplicate, slot = self._digests.both(trusted)
        near = () if trusted.quarantined else prepared.near
        return msgspec.structs.replace(
            prepared, item=trusted, duplicate=duplicate, slot=slot, near=near, given=item.trust, why=why
        )

    def trust(self, transaction: Transaction, item: MemoryItem) -> tuple[float, str | None]:
        """Inside a change: the trust that an item's sources leave it, and why that is less than its own."""
        if not item.sources or not item.trust:
            return item.trust, None
        if not self._revoked().isdisjoint(item.sources):
            return 0.0, reconcile.REVOKED
        trust = self._left({_NEW: _derived(item, item.trust)}, transaction.get)[_NEW]
        return trust, reconcile.UNTRUSTED if trust < item.trust else None

    def alike(self, known: Record, item: MemoryItem) -> bool:
        """Whether an item that is stored and one with the trust that it came with have the same sources, and
        are both in quarantine or both out of it while these are believed."""
        taken = taken_of(self._log.history(known.key))
        given = known.item if taken is None else msgspec.structs.replace(known.item, trust=taken.trust)
        return given.sources == item.sources and given.quarantined == item.quarantined

    def _left(
        self, items: Mapping[bytes, _Item], get: Callable[[bytes], Record | None]
    ) -> dict[bytes, float]:
        """The one rule: the trust that sources leave these items, by key. get: what the others are now.

        None where one is revoked. Where all are items, no more than the most trusted one's; what the store
        never knew does not count, and what was deleted counts as it last was, as far as its own sources leave
        it that. Items that come from nothing but each other have none by that.
        """
        revoked = self._revoked()
        known = dict(items)
        nodes: dict[bytes, Derived] = {}
        waiting = list(items)
        while waiting:
            key = waiting.pop()
            item = known[key]
            if not revoked.isdisjoint(item.sources):
                nodes[key] = Derived(0.0, 0.0, ())
                continue
            if origins(item.sources):
                nodes[key] = Derived(item.most, item.most, ())
                continue
            held: list[float] = []
            among: list[bytes] = []
            for source in map(parse_id, item.sources):
                record = None if source in known else get(source)
                if record is not None:
                    held.append(record.item.trust)
                    if held[-1] >= item.most:
                        break
                    continue
                if source not in known and (last := self._last_of(source)) is not None:
                    known[source] = last
                    waiting.append(source)
                if source in known:
                    among.append(source)
            if held or among:
                nodes[key] = Derived(item.most, max(held, default=0.0), among)
            else:
                nodes[key] = Derived(item.trust, item.trust, ())
        return reaching(nodes)

    def _last_of(self, key: bytes) -> _Item | None:
        """What an item that was deleted last was; None where the store never knew it."""
        history = self._log.history(key)
        last = next((past.record.item for past in reversed(history) if past.record is not None), None)
        if last is None:
            return None
        taken = taken_of(history)
        return _derived(last, last.trust if taken is None else taken.trust)

    def revoke(self, source: str) -> int:
        """Believe a source no more. How many items lost trust by this call."""
        with self._lock:
            self._keep(lambda known, now: [*without(known, {source}), RevokedSource(source, now)])
            return self._until_done(lambda: self._lowered(source))

    def reinstate(self, source: str) -> int:
        """Believe a source again. How many items this call gave trust back that they had."""
        with self._lock:
            self._keep(lambda known, _: without(known, {source}))
            return self._until_done(lambda: self._raised(source))

    def _until_done(self, changes: Callable[[], list[_Change]]) -> int:
        """What was added or changed meanwhile is looked at again, until there is nothing to change."""
        count = 0
        while some := changes():
            for start in range(0, len(some), _STEP):
                count += self._correct(some[start : start + _STEP])
        return count

    def _lowered(self, source: str) -> list[_Change]:
        found = self._reached(source)
        items: dict[bytes, _Item] = {}
        for start in range(0, len(found), _STEP):
            for record in self._log.get_many(found[start : start + _STEP]):
                if record is not None:
                    items[record.key] = _derived(record.item, record.item.trust)
        trusts = self._left(items, self._now_of)
        return [
            _Change(
                key, item.version, trust, reconcile.REVOKED if source in item.sources else reconcile.UNTRUSTED
            )
            for key, item in items.items()
            if (trust := trusts[key]) < item.trust
        ]

    def _raised(self, source: str) -> list[_Change]:
        items: dict[bytes, _Item] = {}
        for record in self._all():
            if record.item.sources and record.item.trust < 1.0:
                taken = taken_of(self._log.history(record.key))
                if taken is not None and (
                    taken.reason == reconcile.UNTRUSTED
                    or source in record.item.sources
                    or not origins(record.item.sources)
                ):
                    items[record.key] = _derived(record.item, taken.trust)
        trusts = self._left(items, self._now_of)
        return [
            _Change(key, item.version, trust, _AGAIN if trust == item.most else reconcile.UNTRUSTED)
            for key, item in items.items()
            if (trust := trusts[key]) > item.trust
        ]

    def _reached(self, source: str) -> list[bytes]:
        """Items, deleted ones too, that name a source, and those that name items alone, one of which came
        from it. Most are newer than what they come from, so one walk finds them and keeps their keys alone;
        what comes from newer ones is looked for among the sources of all, in a second walk."""
        found: set[bytes] = set()
        newer, every = Naming(), Naming()
        self._walk(source, found, newer.add_newer)
        if any(key not in found for named in found for key in newer.of(named)):
            self._walk(source, found, every.add)
            waiting = list(found)
            while waiting:
                more = [key for key in every.of(waiting.pop()) if key not in found]
                found.update(more)
                waiting += more
        return list(found)

    def _walk(self, source: str, found: set[bytes], named: Callable[[bytes, bytes], object]) -> None:
        """Add to what is found what comes from that or names the source, item by item. named: called with
        each source of the others that name items alone, and their key."""
        for record in self._all(deleted=True):
            sources = record.item.sources
            if source in sources:
                found.add(record.key)
            elif sources and not origins(sources):
                keys = [parse_id(one) for one in sources]
                if not found.isdisjoint(keys):
                    found.add(record.key)
                else:
                    for key in keys:
                        named(key, record.key)

    def _all(self, deleted: bool = False) -> Iterator[Record]:
        """Owner by owner, ascending by key."""
        for number, _ in self._log.owners(0):
            live = self._log.records(number, order="recorded", reverse=False, after=None)
            records = (record for _, record in live)
            if deleted:  # begun after the others: what is deleted meanwhile is in both and not in neither
                yield from heapq.merge(records, self._log.deleted(number), key=lambda record: record.key)
            else:
                yield from records

    def _now_of(self, key: bytes) -> Record | None:
        return self._log.get_many([key])[0]

    def _keep(self, change: Callable[[list[RevokedSource], int], list[RevokedSource]]) -> None:
        def keep(transaction: Transaction) -> None:
            left = change(self._read(), transaction.now)
            transaction.keep(KEY, encode(left))

        self._log.transact(keep)

    def _correct(self, changes: Sequence[_Change]) -> int:
        """Give items another trust in one change, those that are what they were. How many."""

        def change(transaction: Transaction) -> int:
            changed = 0
            for key, version, trust, reason in changes:
                record = transaction.get(key)
                if record is None or record.item.version != version:
                    continue
                item = msgspec.structs.replace(record.item, trust=trust)
                reconcile.update(
                    transaction,
                    record,
                    item,
                    None,
                    based_on=version,
                    digests=(self._digests.both(record.item), self._digests.both(item)),
                    earlier=self._log.get_version,
                    reason=reason,
                )
                changed += 1
            return changed

        return self._log.transact(change)


def taken_of(history: Sequence[Past]) -> Taken | None:
    """What an item's sources have taken from it, as history tells; None where they have not, or it was given
    a trust since."""
    taken: Taken | None = None
    trust, version = 1.0, 0
    for past in history:
        if past.record is None:
            continue
        now = past.record.item.trust
        if past.record.item.version != version + 1 and taken is None:
            trust = now  # what it was in the version before is gone: it is not given back
        version = past.record.item.version
        if past.reason in _TAKEN:
            taken = Taken(trust if taken is None else taken.trust, past.reason)
        elif now != trust or past.reason == reconcile.GIVEN:
            taken = None
        trust = now
    return taken


def _derived(item: MemoryItem, most: float) -> _Item:
    return _Item(item.version, item.trust, item.sources, most)
