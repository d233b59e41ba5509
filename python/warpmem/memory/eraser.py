"""Erasure as a user asks for it: whose or which, what was derived from it, and a receipt."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

from ..errors import InputError, NotFound, StoreError, StoreReadOnly
from ..ops import events
from ..ops.clock import to_datetime
from ..ops.ids import format_id, owner_of, parse_id
from ..protocols import Log
from ..records import Descent, ErasureReceipt, KnownBackup
from ..types import Owner, Scope
from . import arguments
from .costs import CostLedger
from .jobbing import JobRunner
from .serving import Current

_ID_BYTES = 16


class Eraser:
    """Erases, one erasure at a time. Thread-safe.

    Made after what hears of changes: it begins with what an earlier process left to be finished.
    """

    def __init__(
        self,
        log: Log,
        current: Current,
        jobs: JobRunner,
        costs: CostLedger,
    ) -> None:
        self._log = log
        self._costs = costs
        self._current = current
        self._jobs = jobs
        self._lock = threading.Lock()
        if not log.read_only:
            # On a full disk, for example, the store opens all the same, and the erasure stays pending.
            with contextlib.suppress(StoreError):
                self._scrub(Counter(), Descent(set(), set(), {}, set()))

    def erase(
        self, ids: Sequence[str] | None, scope: Scope | None, derived: Literal["erase", "keep"]
    ) -> ErasureReceipt:
        """Remove for good what `ids` name in `scope`, or all that `scope` covers."""
        if not isinstance(derived, str) or derived not in ("erase", "keep"):
            raise InputError("derived must be 'erase' or 'keep'")
        if self._log.read_only:
            raise StoreReadOnly("the store was opened read-only: open it without to erase")
        with self._lock, self._jobs.pausing():
            started = time.monotonic()
            if ids is None:
                owners, keys = self._covered(arguments.required(scope))
            else:
                owners, keys = set(), self._named(ids, scope)
            found = Descent(set(), set(), {}, set())
            if owners or keys:
                found = self._log.erasures.derived(owners, keys)
            if derived == "keep":
                found = Descent(set(), found.only | found.partly, {}, set())
            elif found.partly:
                found = self._made_anew(owners, keys, found)
            finished = self._log.erasures.pending()
            erasure = os.urandom(_ID_BYTES)
            pages = self._current.now.index.stats()["device_pages"]
            counts: Counter[str] = Counter()
            try:
                if owners or keys:
                    gone = {*keys, *found.only}
                    more, since = self._log.erasures.remove(
                        erasure, owners, gone, found.versions, late=derived == "erase"
                    )
                    counts.update(more)
                    found.update(since)
                checkpoint, files = self._scrub(counts, found)
            finally:
                self._forget_texts(owners | {owner_of(key) for key in (*keys, *found.only, *found.versions)})
            receipt = ErasureReceipt(
                id=erasure.hex(),
                at=to_datetime(self._log.now()),
                seconds=time.monotonic() - started,
                items=counts.get("items", 0),
                history=counts.get("history", 0),
                log_entries=counts.get("log_entries", 0),
                vectors=counts.get("vectors", 0),
                lookups=counts.get("lookups", 0),
                sources=counts.get("sources", 0),
                owners=len(owners),
                derived=_ids(found.only),
                kept=_ids(found.partly | found.telling),
                checkpoint=checkpoint,
                device_pages=max(0, pages - self._current.now.index.stats()["device_pages"]),
                files=files,
                backups=tuple(
                    KnownBackup(path=path, at=to_datetime(at)) for at, path in self._log.erasures.backups()
                ),
                versions=tuple(
                    (format_id(key), version)
                    for key, versions in sorted(found.versions.items())
                    for version in sorted(versions)
                ),
                finished=finished,
            )
            events.tell(
                events.INFO, "erased", items=receipt.items, owners=receipt.owners, files=receipt.files,
                backups=len(receipt.backups), seconds=receipt.seconds,
            )  # fmt: skip
            return receipt

    def _made_anew(self, owners: Collection[int], keys: set[bytes], found: Descent) -> Descent:
        """Derived items that go too, and those that stay. A summary that a job has made of what is erased and
        of other things is made anew of those, and goes; so does then what was made of it. Should the erasure
        fail, both are there."""
        made: set[bytes] = set()
        while more := self._jobs.rebuild(found.partly | found.telling, keys | found.only):
            made |= more
            further = self._log.erasures.derived(owners, keys | made)
            found = further._replace(only=further.only | made)
        return found

    def _scrub(
        self, counts: Counter[str], found: Descent
    ) -> tuple[Literal["none", "rewritten", "removed"], int]:
        """Finish what is pending. counts, found: get what that removed and found."""
        if not self._log.erasures.pending():
            return "none", 0
        more, since = self._log.erasures.resume()
        counts.update(more)
        found.update(since)
        self._current.forget_texts()
        return self._current.now.index.renew(), self._log.erasures.scrub()

    def _forget_texts(self, numbers: Collection[int]) -> None:
        """What was embedded for these owners and what that cost, and for those whom the store does not know:
        who was erased, or has only ever searched."""

        def erased(owner: Owner) -> bool:
            number = self._log.owner(owner)
            return number is None or number in numbers

        self._current.now.embeddings.forget(erased)
        self._current.now.revocations.forget()
        self._costs.forget(erased)

    def _covered(self, scope: Scope) -> tuple[set[int], set[bytes]]:
        number = self._log.owner(scope.owner)
        if number is None:
            return set(), set()
        if scope == Scope(**{f"{scope.owner.type}_id": scope.owner.id}):
            return {number}, set()
        found = self._log.erasures.keys(number)
        return set(), {key for key, whose in found if scope.covers(whose)}

    def _named(self, ids: Sequence[str], scope: Scope | None) -> set[bytes]:
        if isinstance(ids, str) or not isinstance(ids, Sequence):
            raise InputError(f"ids must be a list of ids, not {type(ids).__name__}")
        keys = set()
        missing = 0
        begun = self._log.erasures.begun()  # an erasure that failed is asked for again
        for name in ids:
            try:
                key = parse_id(name)
            except NotFound:
                missing += 1
                continue
            versions = self._log.history(key)
            seen = [past.record.item.scope for past in versions if past.record is not None]
            if scope is not None and not seen and key in begun:
                continue  # whose it was nobody knows any more: it goes as its erasure was asked for
            keys.add(key)
            if scope is None:
                missing += not versions and key not in begun
            else:
                missing += not any(scope.covers(one) for one in seen)
        if missing:
            raise NotFound(f"no such items in this scope: {missing} of {len(ids)} ids; nothing was erased")
        return keys


def _ids(keys: Collection[bytes]) -> tuple[str, ...]:
    return tuple(format_id(key) for key in sorted(keys))
