"""Erasure: what was stored is removed from every record, then from every file.

marks     say in family meta what is to be erased; from then on it is finished, whatever happens
records   items, history, vectors, listing, lookup, sources that name them, in changes of bounded size
entries   of the log become stubs, last of all: no entry of an erased item can be added after its record
files     tables are written anew without them, the write-ahead log, the manifest and RocksDB's own log
          begin anew
names     go from the marks, and from their tables, only then: until there is nothing left to come back, a
          repair must know what may not
done      the mark is removed
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from ..ops import costs, revoked
from ..ops.ids import KEY_BYTES, format_id, owner_of, owner_prefix
from ..protocols import Engine
from ..records import Descent, LogEntry
from . import codec
from .backup_notes import remaining_copies
from .descent import Descendants, stored_values, stored_versions, with_nothing_left
from .erased import Erased, by_item, marked
from .erasing import ErasingTransaction, names_any, with_erased
from .erasure_values import MARK_PREFIX, ErasureMark, mark_key, mark_part, read_mark_key
from .values import RememberedValue, decode, make_scope

T = TypeVar("T")

_CHUNK_ITEMS: Final = 256
_CHUNK_VALUES: Final = 4096
_END: Final = codec.KEYS_END

Range = tuple[str, bytes, bytes]
_MARKS: Final[Range] = ("meta", *codec.prefix_range(MARK_PREFIX))
_EVERYTHING: Final[Sequence[Range]] = [(family, b"", _END) for family in codec.FAMILIES]
Run = Callable[[Callable[[ErasingTransaction], T]], T]
Mark = Callable[[ErasingTransaction, ErasureMark], None]


class StoreErasures:
    """Implements protocols.Erasures. Thread-safe, one erasure at a time.

    run: executes a function of an ErasingTransaction on the committer thread as one durable change.
    """

    def __init__(self, engine: Engine, run: Run[Any]) -> None:
        self._engine = engine
        self._descendants = Descendants(engine)
        self._run = run
        self._ranges: dict[bytes, Sequence[Range]] = {}  # where the records stood that were removed

    # ------------------------------------------------------------------------------------- looking

    def pending(self) -> int:
        return len({read_mark_key(key) for key, _ in self._marks()})

    def backups(self) -> list[tuple[int, str]]:
        return remaining_copies(self._engine, self._run)

    def derived(self, owners: Collection[int], keys: Collection[bytes]) -> Descent:
        return self._descendants.find(owners, keys)

    def begun(self) -> frozenset[bytes]:
        return frozenset(key for _, mark in self._marks() for key in marked([mark]).keys)

    def keys(self, owner: int) -> Iterator[tuple[bytes, Any]]:
        for key, item in stored_versions(self._engine, "items", owner_prefix(owner)):
            yield key, make_scope(item.scope)
        for key, item in stored_versions(self._engine, "history", owner_prefix(owner)):
            yield key[:KEY_BYTES], make_scope(item.scope)

    def _marks(self, erasure: bytes = b"") -> list[tuple[bytes, ErasureMark]]:
        return [
            (key, decode(codec.unseal("meta", key, stored), ErasureMark))
            for key, stored in self._engine.scan("meta", *codec.prefix_range(MARK_PREFIX + erasure))
        ]

    # ------------------------------------------------------------------------------------ removing

    def remove(
        self,
        erasure: bytes,
        owners: Collection[int],
        keys: Collection[bytes],
        versions: Mapping[bytes, Collection[int]],
        *,
        late: bool,
    ) -> tuple[Counter[str], Descent]:
        what = Erased(owners, keys, versions)

        def begin(transaction: ErasingTransaction) -> None:
            for part, mark in enumerate(what.marks(transaction.now, late=late)):
                transaction.mark(mark_key(erasure, part), mark)

        self._run(begin)
        return self._remove(erasure)

    def resume(self) -> tuple[Counter[str], Descent]:
        counts: Counter[str] = Counter()
        since = Descent(set(), set(), {}, set())
        begun = {read_mark_key(key): None for key, mark in self._marks() if not mark.removed}
        for erasure in begun:
            if erasure not in self._ranges:
                more, found = self._remove(erasure)
                counts += more
                since.update(found)
                # Where the process before had been at work is not known.
                self._ranges[erasure] = _EVERYTHING
        return counts, since

    def _remove(self, erasure: bytes) -> tuple[Counter[str], Descent]:
        """What the marks of an erasure say, and by further marks of it what is found to go too."""
        counts: Counter[str] = Counter()
        since = Descent(set(), set(), {}, set())

        def run(change: Callable[[ErasingTransaction], T]) -> T:
            def counted(transaction: ErasingTransaction) -> T:
                result = change(transaction)
                transaction.notify()
                counts.update(transaction.counts)
                return result

            result: T = self._run(counted)
            return result

        marks = self._marks(erasure)
        parts = itertools.count(1 + max(mark_part(key) for key, _ in marks))

        def mark(transaction: ErasingTransaction, more: ErasureMark) -> None:
            transaction.mark(mark_key(erasure, next(parts)), more)

        late = mark if any(one.late for _, one in marks) else None
        what = marked(one for _, one in marks)
        ranges: list[Range] = []
        while True:
            ranges += self._remove_records(what, run)
            ranges += self._forget_sources(what, run, since.partly, late)
            ranges += self._erase_entries(what, run)
            what = self._with_nothing_left(erasure, run, mark)
            if not what:
                break
            gone = {key: set(some) for key, some in what.versions.items()}
            since.update(Descent(set(what.keys), set(), gone, set()))
        make_scope.cache_clear()
        self._ranges[erasure] = ranges
        return counts, since

    def _remove_records(self, what: Erased, run: Run[Any]) -> list[Range]:
        ranges: list[Range] = [
            ("owners", codec.owner_name_key(b""), codec.prefix_range(codec.owner_state_key(0)[:1])[1]),
            ("jobs", b"", _END),
            ("meta", *codec.prefix_range(costs.PREFIX)),
            ("meta", *codec.prefix_range(revoked.KEY)),
        ]
        ranges += _owned_ranges(what)
        for owner in sorted(what.owners):
            run(functools.partial(ErasingTransaction.hide_owner, number=owner))
        self._remove_items(what, run)
        past = ((key, version) for key, some in sorted(what.versions.items()) for version in sorted(some))
        for part in _parts(past, _CHUNK_ITEMS):
            run(functools.partial(ErasingTransaction.erase_past, names=part))
        for owner in sorted(what.owners):
            some = functools.partial(ErasingTransaction.erase_owner, number=owner, limit=_CHUNK_VALUES)
            while not run(some):
                pass
        self._forget_lookups(what, run)
        if what.owners:
            run(functools.partial(ErasingTransaction.forget_costs, owners=what.owners))
        run(ErasingTransaction.move_job)
        run(functools.partial(ErasingTransaction.forget_revoked, gone=what))
        return ranges

    def _remove_items(self, what: Erased, run: Run[Any]) -> None:
        slots: dict[bytes, list[bytes]] = {}
        for owner in sorted({owner_of(key) for key in what.keys}):
            prefix = owner_prefix(owner) + codec.SLOT
            for key, _ in self._engine.scan("lookup", *codec.prefix_range(prefix)):
                item = codec.read_slot_suffix(key)[1]
                if item in what.keys:
                    slots.setdefault(item, []).append(key)
        for part in _parts(sorted(what.keys), _CHUNK_ITEMS):
            some = functools.partial(ErasingTransaction.erase_versions, keys=part, limit=_CHUNK_VALUES)

            def change(
                transaction: ErasingTransaction, part: Sequence[bytes] = part, some: Any = some
            ) -> bool:
                for key in part:
                    transaction.erase_item(key, slots.get(key, ()))
                done: bool = some(transaction)
                return done

            done = run(change)
            while not done:
                done = run(some)

    def _forget_lookups(self, what: Erased, run: Run[Any]) -> None:
        for owner, group in itertools.groupby(sorted(what.keys), owner_of):
            gone = set(group)
            ids = {format_id(key) for key in gone}
            found = (
                key
                for key, stored in self._engine.scan("lookup", *codec.prefix_range(owner_prefix(owner)))
                if _concerns(key, codec.unseal("lookup", key, stored), gone, ids)
            )
            for part in _parts(found, _CHUNK_VALUES):

                def change(
                    transaction: ErasingTransaction, part: Sequence[bytes] = part, gone: set[bytes] = gone
                ) -> None:
                    for key in part:
                        transaction.forget_lookup(key, gone)

                run(change)

    def _forget_sources(
        self, what: Erased, run: Run[Any], named: set[bytes], late: Mark | None
    ) -> list[Range]:
        """Take what is erased out of sources, and out of what history says of deletions. named: gets the keys
        of what named it as a source. late: marks the versions that name nothing then, in the same change,
        since nothing tells of them afterwards."""
        ranges = []
        for family in ("items", "history"):
            found = (
                (key, item is None)
                for key, item, reason in stored_values(self._engine, family)
                if with_erased(reason, what) != reason
                or (item is not None and any(source in what for source in item.sources))
            )
            for part in _parts(found, _CHUNK_VALUES):

                def change(
                    transaction: ErasingTransaction,
                    part: Sequence[tuple[bytes, bool]] = part,
                    family: str = family,
                ) -> None:
                    for key, is_mark in part:
                        if is_mark:
                            transaction.forget_reason(key, what)
                    forgotten = [
                        (key, transaction.forget_sources(family, key, what))
                        for key, is_mark in part
                        if not is_mark
                    ]
                    emptied = b"".join(
                        codec.history_key(key[:KEY_BYTES], version)
                        for key, version in forgotten
                        if version is not None
                    )
                    if late is not None and emptied:
                        late(transaction, ErasureMark(transaction.now, (), b"", False, b"", True, emptied))

                run(change)
                named.update(key[:KEY_BYTES] for key, is_mark in part if not is_mark)
                ranges += [(family, *span) for span in _spans([key for key, _ in part])]
        return ranges

    def _with_nothing_left(self, erasure: bytes, run: Run[Any], mark: Mark) -> Erased:
        """What goes of that which came to name what is erased after derived() had looked, and names nothing
        now."""
        marks = [(key, one.emptied) for key, one in self._marks(erasure) if one.emptied]
        emptied = by_item(names for _, names in marks)
        gone: set[bytes] = set()
        versions: dict[bytes, Collection[int]] = {}
        for part in _parts(sorted(emptied), _CHUNK_ITEMS):

            def change(transaction: ErasingTransaction, part: Sequence[bytes] = part) -> Erased:
                found = with_nothing_left(self._engine, {key: emptied[key] for key in part})
                for one in found.marks(transaction.now, late=True):
                    mark(transaction, one)
                return found

            found = run(change)
            gone |= found.keys
            versions |= found.versions

        def forget(transaction: ErasingTransaction) -> None:
            for key, _ in marks:
                transaction.mark(key, None)

        if marks:
            run(forget)
        return Erased((), gone, versions)

    def _erase_entries(self, what: Erased, run: Run[Any]) -> list[Range]:
        ranges = []
        found = (
            entry
            for key, stored in self._engine.scan("log", b"", _END)
            if (entry := decode(codec.unseal("log", key, stored), LogEntry)).operation != "erase"
            and (entry.key in what or _made(entry, what))
        )
        for part in _parts(found, _CHUNK_VALUES):
            # Not a change of any owner: who follows the log has read its notices already.
            run(functools.partial(ErasingTransaction.erase_entries, entries=part))
            ranges.append(("log", codec.log_key(part[0].sequence), codec.log_key(part[-1].sequence + 1)))
        return ranges

    # --------------------------------------------------------------------------------------- files

    def scrub(self) -> int:
        marks = self._marks()
        if not marks:
            return 0
        erasures = {read_mark_key(key) for key, _ in marks}
        named = {read_mark_key(key) for key, mark in marks if not mark.removed}
        if not named <= self._ranges.keys():
            raise AssertionError("resume() comes first")
        ranges = [one for erasure in erasures for one in self._ranges.get(erasure, _EVERYTHING)]
        files = self._engine.compact(_joined(ranges))
        self._run(lambda transaction: self._engine.renew())

        def forget(transaction: ErasingTransaction) -> None:
            for key, _ in marks:
                transaction.mark(key, None)
            for erasure in erasures:
                transaction.mark(mark_key(erasure, 0), ErasureMark(transaction.now, (), b"", True))

        def done(transaction: ErasingTransaction) -> None:
            for erasure in erasures:
                transaction.mark(mark_key(erasure, 0), None)

        if named:
            self._run(forget)
            files += self._engine.compact([_MARKS])
        self._run(done)
        for erasure in erasures:
            self._ranges.pop(erasure, None)
        return files


def _made(entry: LogEntry, what: Erased) -> bool:
    """Whether an entry tells of a past version that goes. A deletion names the last one, and stays."""
    return entry.operation != "delete" and what.has_version(entry.key, entry.version)


def _concerns(key: bytes, payload: memoryview, gone: set[bytes], ids: set[str]) -> bool:
    if key[4:5] == codec.DUPLICATE:
        found = bytes(payload)
        return any(key[:4] + found[at : at + 16] in gone for at in range(0, len(found), 16))
    return key[4:5] == codec.IDEMPOTENCY and names_any(decode(payload, RememberedValue).result, ids)


def _owned_ranges(what: Erased) -> list[Range]:
    """Where the records of an erasure stood: everything of whole owners, of others from the first item to
    the last, and all of what is sorted otherwise."""
    by_item = ("items", "history", *codec.VECTOR_FAMILIES)
    ranges: list[Range] = []
    for owner in what.owners:
        span = codec.prefix_range(owner_prefix(owner))
        ranges += [(family, *span) for family in (*by_item, "listing", "lookup")]
    for first, last in _spans(sorted(what.keys)):
        ranges += [(family, first, last) for family in by_item]
        ranges += [(family, *codec.prefix_range(first[:4])) for family in ("listing", "lookup")]
    for key, versions in what.versions.items():
        span = (
            codec.history_key(key, min(versions)),
            codec.prefix_range(codec.history_key(key, max(versions)))[1],
        )
        ranges += [(family, *span) for family in ("history", *codec.VECTOR_FAMILIES)]
    return ranges


def _spans(keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """(first, past the last) of each owner's keys, which are ascending."""
    spans = []
    for _, group in itertools.groupby(keys, owner_of):
        mine = list(group)
        spans.append((mine[0], codec.prefix_range(mine[-1])[1]))
    return spans


def _joined(ranges: Iterable[Range]) -> list[Range]:
    """The same ranges, those that meet as one."""
    joined: list[Range] = []
    for family, start, stop in sorted(ranges):
        if joined and joined[-1][0] == family and start <= joined[-1][2]:
            joined[-1] = (family, joined[-1][1], max(stop, joined[-1][2]))
        else:
            joined.append((family, start, stop))
    return joined


def _parts(values: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(values)
    while part := list(itertools.islice(remaining, size)):
        yield part
