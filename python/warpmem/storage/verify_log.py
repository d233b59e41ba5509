"""Whether the log has no gaps and tells of exactly the versions that are there; whether owners are named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..errors import StoreCorrupt
from ..ops import costs
from ..protocols import Engine
from ..records import MAKES_VERSION, LogEntry, StoreIdentity
from ..types import Owner
from . import codec
from .reports import Faults
from .transaction import owner_digest
from .values import HistoryValue, ItemValue, OwnerValue, decode
from .verify_items import ItemsFound, groups

_END = b"\xff" * 64
_BATCH = 500
_STEP = {"add": 1, "delete": -1}


def verify_owners(engine: Engine, identity: StoreIdentity, faults: Faults) -> dict[int, OwnerValue]:
    """Every owner's name and counters by number; names and numbers must name each other."""
    owners: dict[int, OwnerValue] = {}
    named = 0
    for key, stored in engine.scan("owners", b"", _END):
        if key[:1] == b"n":
            named += 1
            continue
        number = codec.read_owner_state_key(key)
        owners[number] = decode(codec.unseal("owners", key, stored), OwnerValue)
    for number, value in owners.items():
        if not value.id:  # erased; nothing names it any more
            continue
        key = codec.owner_name_key(owner_digest(identity, Owner(value.type, value.id)))
        name = engine.get("owners", key)
        if name is None or int.from_bytes(codec.unseal("owners", key, name), "big") != number:
            faults.note("owners", "its name does not lead to it", codec.owner_state_key(number))
            continue
        named -= 1
    if named:
        faults.note("owners", f"{named} names more than owners")
    if owners and max(owners) != len(owners):
        faults.note("owners", f"{len(owners)} owners, but numbers up to {max(owners)}")
    return owners


def verify_costs(engine: Engine, owners: Collection[int], faults: Faults) -> None:
    """Daily totals can be read, and are of owners that there are."""
    for key, stored in engine.scan("meta", *codec.prefix_range(costs.PREFIX)):
        try:
            payload = codec.unseal("meta", key, stored)
        except StoreCorrupt:  # noted when the families were read
            continue
        try:
            _, owner = costs.read_cost_key(key)
            costs.read_lines(payload)
        except StoreCorrupt as error:
            faults.note("meta", str(error), key)
            continue
        if owner != costs.NOBODY and owner not in owners:
            faults.note("meta", f"costs of owner {owner}, whom there is not", key)


def verify_log(
    engine: Engine,
    identity: StoreIdentity,
    found: ItemsFound,
    faults: Faults,
    progress: Callable[[str, int], None],
) -> None:
    """Read the whole log and hold it against what the families hold."""
    expected, live, at, made, deleted = 1, 0, 0, 0, 0
    counted = True
    waiting: list[LogEntry] = []
    last: LogEntry | None = None
    for key, stored in engine.scan("log", b"", _END):
        try:
            entry = decode(codec.unseal("log", key, stored), LogEntry)
        except StoreCorrupt as error:
            faults.note("log", str(error), key)
            expected += 1
            continue
        sequence = codec.read_log_key(key)
        if entry.sequence != sequence:
            faults.note("log", f"entry {entry.sequence} stands at {sequence}", key)
        if sequence != expected:
            faults.note("log", f"entries {expected} to {sequence - 1} are missing", key)
            counted = False
        expected = sequence + 1
        if entry.at < at:
            faults.note("log", f"entry {sequence} is earlier than the one before it", key)
        at = entry.at
        if entry.operation == "erase":  # what it stood for may have counted
            live = entry.items
        else:
            live += _STEP.get(entry.operation, 0)
            if counted and entry.items != live:
                faults.note("log", f"entry {sequence} counts {entry.items} items, not {live}", key,
                            item=entry.key)  # fmt: skip
            live, counted = entry.items, True
            made += entry.operation in MAKES_VERSION
            deleted += entry.operation == "delete"
            waiting.append(entry)
            if len(waiting) >= _BATCH:
                _check_entries(engine, waiting, faults)
                waiting = []
                progress("log entries compared", sequence)
        last = entry
    _check_entries(engine, waiting, faults)
    if last is not None and last.items != found.items:
        faults.note("log", f"the last entry counts {last.items} items, there are {found.items}")
    if deleted != found.deleted:
        faults.note("log", f"{deleted} deletions, and {found.deleted} deleted items")
    if made != found.versions:
        faults.note("log", f"entries for {made} versions, and {found.versions} versions")
        _name_unlogged(engine, identity, faults)


def _check_entries(engine: Engine, entries: Sequence[LogEntry], faults: Faults) -> None:
    """The version that each entry made is there, current or past; a deletion left its mark."""
    current = engine.get_many("items", [entry.key for entry in entries])
    for entry, stored in zip(entries, current, strict=True):
        key = codec.log_key(entry.sequence)
        if entry.operation == "delete":
            mark = _past(engine, entry.key, entry.version + 1)
            if stored is not None or mark is None or mark.item is not None:
                faults.note("log", f"entry {entry.sequence} deletes what is not deleted", key, item=entry.key)
            continue
        if stored is not None and _version(entry.key, stored) == entry.version:
            continue
        past = _past(engine, entry.key, entry.version)
        if past is None or past.item is None:
            faults.note("log", f"version {entry.version} of entry {entry.sequence} is not there", key,
                        item=entry.key)  # fmt: skip


def _version(key: bytes, stored: bytes) -> int:
    try:
        return decode(codec.unseal("items", key, stored), ItemValue).version
    except StoreCorrupt:  # noted when the families were read
        return 0


def _past(engine: Engine, item: bytes, version: int) -> HistoryValue | None:
    key = codec.history_key(item, version)
    stored = engine.get("history", key)
    try:
        return None if stored is None else decode(codec.unseal("history", key, stored), HistoryValue)
    except StoreCorrupt:
        return None


def _name_unlogged(engine: Engine, identity: StoreIdentity, faults: Faults) -> None:
    """Which versions no entry of the log tells of. Takes memory in proportion to the log."""
    logged: set[tuple[bytes, int]] = set()
    for key, stored in engine.scan("log", b"", _END):
        try:
            entry = decode(codec.unseal("log", key, stored), LogEntry)
        except StoreCorrupt:
            continue
        if entry.operation in MAKES_VERSION:
            logged.add((entry.key, entry.version))
    for group in groups(engine, identity, lambda family, what, key: None):
        versions = [number for number, past in group.versions.items() if past.item is not None]
        if group.item is not None:
            versions.append(group.item.version)
        for version in versions:
            if (group.key, version) not in logged:
                faults.note("log", f"no entry tells of version {version}", group.key, item=group.key)
