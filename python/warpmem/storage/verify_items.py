"""Whether items, their versions and vectors agree, and whether everything that finds them does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..errors import StoreCorrupt
from ..ops.blank import is_blank
from ..ops.ids import KEY_BYTES, OWNER_BYTES, owner_of
from ..protocols import Engine
from ..records import NEVER, SPACES, Row, Space, StoreIdentity
from ..types import MemoryItem
from . import codec
from .reports import Faults
from .spaces import owner_spaces, read_spaces
from .values import (
    HistoryValue,
    ItemValue,
    OwnerValue,
    RememberedValue,
    decode,
    decode_row,
    make_record,
    make_row,
)
from .vector_build import JOB_KEY

V = TypeVar("V", bound=msgspec.Struct)

_END = b"\xff" * 64
_STEP = 1000
_UUID = 16
_UNIT = 1e-3


class ItemsFound(msgspec.Struct):
    """What the families hold: live items, and versions of live and deleted items, to compare the log with."""

    items: int = 0
    deleted: int = 0
    versions: int = 0
    owners: int = 0


class Group(msgspec.Struct):
    """All that stands under one item key. `versions`: those of history. `rows`: those of vectors."""

    key: bytes
    item: ItemValue | None
    versions: dict[int, HistoryValue]
    rows: dict[int, Row]


def groups(
    engine: Engine, identity: StoreIdentity, note: Callable[[str, str, bytes], None]
) -> Iterator[Group]:
    """Every item key of items, history and the vectors in use, ascending. What does not decode is noted and
    left out."""
    items = _Side(engine, "items")
    history = _Side(engine, "history")
    vectors = _Side(engine, identity.vectors)
    while (key := min(side.key for side in (items, history, vectors))) != _END:
        group = Group(key, None, {}, {})
        for at, payload in items.take(key):
            group.item = _decoded(note, "items", at, payload, ItemValue)
        for at, payload in history.take(key):
            past = _decoded(note, "history", at, payload, HistoryValue)
            if past is not None:
                group.versions[codec.read_version_key("history", at)[1]] = past
        for at, payload in vectors.take(key):
            version = codec.read_version_key("vectors", at)[1]
            try:
                group.rows[version] = decode_row(key, version, payload, identity.dimension)
            except StoreCorrupt as error:
                note("vectors", str(error), at)
        yield group


class _Side:
    """One family, read item key by item key. Values whose checksum fails were noted before: passed over."""

    def __init__(self, engine: Engine, family: str) -> None:
        self._family = family
        self._scan = engine.scan(family, b"", _END)
        self._next()

    def _next(self) -> None:
        self._entry = next(self._scan, None)
        self.key = _END if self._entry is None else self._entry[0][:KEY_BYTES]

    def take(self, key: bytes) -> Iterator[tuple[bytes, memoryview]]:
        while self._entry is not None and self.key == key:
            at, stored = self._entry
            self._next()
            try:
                payload = codec.unseal(self._family, at, stored)
            except StoreCorrupt:
                continue
            yield at, payload


def _decoded(
    note: Callable[[str, str, bytes], None], family: str, key: bytes, payload: memoryview, kind: type[V]
) -> V | None:
    try:
        return decode(payload, kind)
    except StoreCorrupt as error:
        note(family, str(error), key)
        return None


def verify_items(
    engine: Engine,
    identity: StoreIdentity,
    owners: dict[int, OwnerValue],
    digests: Callable[[bytes, MemoryItem], tuple[bytes | None, bytes | None]],
    faults: Faults,
    progress: Callable[[str, int], None],
) -> ItemsFound:
    """Compare items with history, vectors, listing, lookup and the counters of `owners`."""
    found = ItemsFound(owners=len(owners))
    spaces = read_spaces(engine)
    live: Counter[int] = Counter()
    listed = slots = repeated = blank = 0
    for group in groups(engine, identity, faults.note):
        _check_versions(group, faults)
        blank += _check_waiting(engine, group, faults)
        _check_spaces(engine, group, spaces, faults)
        found.versions += sum(past.item is not None for past in group.versions.values())
        if group.item is None:
            found.deleted += bool(group.versions)
            continue
        found.versions += 1
        found.items += 1
        if found.items % _STEP == 0:
            progress("items compared", found.items)
        number = owner_of(group.key)
        live[number] += 1
        item = make_record(group.key, group.item).item
        owner = owners.get(number)
        if owner is None or (owner.type, owner.id) != (item.scope.owner.type, item.scope.owner.id):
            faults.note("items", "its scope is not of the owner that its key names", group.key)
        elif group.item.ordinal >= owner.next_ordinal:
            faults.note("owners", f"next_ordinal {owner.next_ordinal} is not above {group.item.ordinal}",
                        codec.owner_state_key(number), item=group.key)  # fmt: skip
        listed += _has(engine, "listing", _listing_key(group), faults, group.key)
        duplicate, slot = digests(identity.salt, item)
        if slot is not None:
            suffix = codec.slot_suffix(group.item.valid_from, group.key[OWNER_BYTES:])
            key = codec.lookup_key(number, codec.SLOT, slot, suffix)
            slots += _has(engine, "lookup", key, faults, group.key)
        if duplicate is not None:
            repeated += 1
            # Other Unicode tables than those it was written with may normalise a text differently.
            if item.text.isascii() and not _is_duplicate(engine, number, duplicate, group.key):
                faults.note("lookup", "it is not found as a duplicate of its own content", group.key,
                            item=group.key)  # fmt: skip
    for number, owner in owners.items():
        if owner.items != live[number]:
            faults.note("owners", f"it counts {owner.items} items and has {live[number]}",
                        codec.owner_state_key(number))  # fmt: skip
    _check_counts(engine, listed, slots, repeated, faults)
    _check_work(engine, identity, blank, faults)
    _check_other_vectors(engine, identity, faults)
    return found


def _check_versions(group: Group, faults: Faults) -> None:
    """Versions stand under their numbers, and live ones have a row that says what they say. There may be
    gaps: a version may have been erased alone."""
    past = {number: value.item for number, value in group.versions.items() if value.item is not None}
    marks = [number for number, value in group.versions.items() if value.item is None]
    for number, item in past.items():
        if item.version != number:
            faults.note("history", f"version {item.version} stands as version {number}", group.key)
    if group.item is not None:
        if marks:
            faults.note("history", f"version {marks[0]} says that the item was deleted", group.key)
        if group.item.version in past:
            faults.note("history", f"version {group.item.version} is past and current", group.key)
        if group.item.retired_at != NEVER:
            faults.note("items", "the current version has an end of knowledge", group.key)
        past[group.item.version] = group.item
    elif not marks and past:
        faults.note("history", "it has versions, and is neither there nor deleted", group.key)
    elif len(marks) > 1 or (past and marks and marks[0] <= max(past)):  # one that is lost the log names
        faults.note(
            "history", f"deleted in version {marks[0]}, after version {max(past, default=0)}", group.key
        )
    expected = past if group.item is not None else {}
    for number in sorted(expected.keys() - group.rows.keys()):
        faults.note("vectors", f"version {number} has no vector", codec.vector_key(group.key, number))
    for number, row in group.rows.items():
        key = codec.vector_key(group.key, number)
        if number not in expected:
            faults.note("vectors", f"version {number} has a vector, but is not there", key)
            continue
        make_record(group.key, expected[number])  # raises where a time is none
        if header(row) != header(make_row(group.key, expected[number], row.vector)):
            faults.note("vectors", f"version {number} says other things than the item", key)
        elif not (is_blank(row.vector) and not row.space) and not _is_unit(row.vector):
            faults.note("vectors", f"version {number} has a vector that is not of length 1", key)


def _check_waiting(engine: Engine, group: Group, faults: Faults) -> int:
    """How many rows have no vector yet; each is to get one."""
    blank = [number for number, row in group.rows.items() if not row.space and is_blank(row.vector)]
    for number in blank:
        if engine.get("jobs", codec.work_key("embed", group.key, number)) is None:
            faults.note("vectors", f"version {number} has no vector, and nothing says that it is to get one",
                        codec.vector_key(group.key, number))  # fmt: skip
    return len(blank)


def _check_work(engine: Engine, identity: StoreIdentity, blank: int, faults: Faults) -> None:
    """What waits in family jobs is what is not done: the numbers are equal, or each is looked at."""
    for name, _ in engine.scan("jobs", *codec.prefix_range(codec.work_prefix("extract"))):
        key, version = codec.read_work_key(name)
        if engine.get("items", key) is None:
            faults.note("jobs", f"version {version} waits to be read, and is not there", name, item=key)
    span = codec.prefix_range(codec.work_prefix("embed"))
    if sum(1 for _ in engine.scan("jobs", *span)) == blank:
        return
    for name, _ in engine.scan("jobs", *span):
        key, version = codec.read_work_key(name)
        stored = engine.get(identity.vectors, row := codec.vector_key(key, version))
        payload = None if stored is None else codec.unseal(identity.vectors, row, stored)
        if payload is None or not is_blank(decode_row(key, version, payload, identity.dimension).vector):
            what = f"version {version} waits for a vector that it has, or is not there"
            faults.note("jobs", what, name, item=key)


def _check_spaces(engine: Engine, group: Group, spaces: dict[str, Space], faults: Faults) -> None:
    """All versions lie in one space, which the store knows, and the owner's index would be loaded for it."""
    for number, row in group.rows.items():
        key = codec.vector_key(group.key, number)
        if row.space != next(iter(group.rows.values())).space:
            faults.note("vectors", f"version {number} lies in another space than others of its item", key)
        if not row.space:
            continue
        space = spaces.get(SPACES[row.space])
        if space is None or len(row.vector) != space.dimension:
            expected = "none" if space is None else f"{space.dimension} dimensions"
            faults.note("vectors", f"version {number} lies in space {row.space} with {len(row.vector)} "
                        f"dimensions, and the store has {expected} there", key)  # fmt: skip
        if row.space not in owner_spaces(engine, owner_of(group.key)):
            faults.note("lookup", f"its owner is not known to have rows in space {row.space}", key)


def _is_unit(vector: Any) -> bool:
    return abs(float(np.linalg.norm(vector)) - 1.0) < _UNIT


def header(row: Row) -> tuple[Any, ...]:
    """What a row says beside its vector."""
    return (row.ordinal, row.kind, row.agent_id, row.run_id, row.priority, row.valid_from, row.valid_to,
            row.recorded_at, row.retired_at, row.expires_at)  # fmt: skip


def _listing_key(group: Group) -> bytes:
    assert group.item is not None
    return codec.listing_key(owner_of(group.key), group.item.valid_from, group.key[OWNER_BYTES:])


def _has(engine: Engine, family: str, key: bytes, faults: Faults, item: bytes) -> bool:
    if engine.get(family, key) is not None:
        return True
    faults.note(family, "it is missing", key, item=item)
    return False


def _is_duplicate(engine: Engine, owner: int, digest: bytes, key: bytes) -> bool:
    at = codec.lookup_key(owner, codec.DUPLICATE, digest)
    stored = engine.get("lookup", at)
    if stored is None:
        return False
    ids = bytes(codec.unseal("lookup", at, stored))
    return key[OWNER_BYTES:] in (ids[i : i + _UUID] for i in range(0, len(ids), _UUID))


def _check_counts(engine: Engine, listed: int, slots: int, repeated: int, faults: Faults) -> None:
    """Every item has its own entry in each family, so equal numbers mean that there is nothing more."""
    listings = sum(1 for _ in engine.scan("listing", b"", _END))
    if listings != listed:
        faults.note("listing", f"{listings} entries for {listed} items")
    counts: Counter[bytes] = Counter()
    ids = 0
    remembered = 0
    for key, stored in engine.scan("lookup", b"", _END):
        tag = key[OWNER_BYTES : OWNER_BYTES + 1]
        counts[tag] += 1
        payload = codec.unseal("lookup", key, stored)
        if tag == codec.DUPLICATE:
            ids += len(payload) // _UUID
        elif tag == codec.REMEMBERED:
            at, digest = codec.read_remembered_key(key)
            outcome = codec.lookup_key(owner_of(key), codec.IDEMPOTENCY, digest)
            value = engine.get("lookup", outcome)
            if value is None or decode(codec.unseal("lookup", outcome, value), RememberedValue).at != at:
                faults.note("lookup", "the outcome that it names is missing", key)
            else:
                remembered += 1
    if counts[codec.SLOT] != slots:
        faults.note("lookup", f"{counts[codec.SLOT]} entries of key slots for {slots} items with a key")
    if ids != repeated:
        faults.note("lookup", f"{ids} items are found as duplicates, and {repeated} should be")
    if counts[codec.IDEMPOTENCY] != remembered:
        faults.note(
            "lookup", f"{counts[codec.IDEMPOTENCY]} outcomes of idempotent calls, {remembered} by time"
        )


def _check_other_vectors(engine: Engine, identity: StoreIdentity, faults: Faults) -> None:
    """The place for vectors that is not in use is empty, unless a job of re-embedding fills or empties it."""
    if engine.get("jobs", JOB_KEY) is not None:
        return
    for family in codec.VECTOR_FAMILIES:
        count = sum(1 for _ in engine.scan(family, b"", _END)) if family != identity.vectors else 0
        if count:
            faults.note(family, f"{count} vectors that are not in use")
