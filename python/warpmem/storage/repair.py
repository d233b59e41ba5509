"""Repairing a store: everything whole that its files hold goes into a new one. The original is only read.

Nothing is believed but the checksum in each value. Items, versions, vectors and the log are taken as they
are; owners' counters and everything that finds items (listing, lookup) are made anew from the items. A log
entry that is lost, or tells of what is lost, becomes a stub under its number, and notices at the end of the
log tell followers whose memory changed. What an unfinished erasure names is left out, and its marks are
brought over: the next opening finishes it. The result is verified before it gets its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ..errors import FormatError, StoreCorrupt, StoreError, StoreLocked
from ..ops.costs import spender
from ..protocols.storage import DigestsOf
from ..records import ReembedJob, StoreIdentity
from ..types import Owner
from . import codec, directory
from .backup_list import copies_at
from .backup_notes import note_copies
from .copies import build, check_free_name
from .erased import Erased, marked
from .erasing import names_any
from .erasure_values import MARK_PREFIX, ErasureMark
from .files import FileReader
from .identity import FORMAT, IDENTITY_KEY
from .lock import LOCK_NAME
from .repair_end import lost_unseen
from .repair_items import Embed
from .repair_log import write_log
from .repair_source import Source
from .repair_write import Writer
from .reports import Faults, Lost, RepairReport
from .rocks import RocksEngine
from .transaction import owner_digest
from .values import OwnerValue, RememberedValue, decode, encode
from .vector_build import JOB_KEY
from .verify import Progress, verify_store

_REBUILT: Final = frozenset(
    ("log", "items", "history", "owners", "listing", "lookup", "jobs", *codec.VECTOR_FAMILIES)
)
"""Families that are not copied as they are. A job's vectors are begun anew, and so is the job; what waits for
its vector is written with the rows."""


def repair_store(
    path: str,
    new: str,
    digests: DigestsOf,
    make_embed: Callable[[StoreIdentity], Embed | None] = lambda identity: None,
    *,
    progress: Progress = lambda what, count: None,
) -> RepairReport:
    """Make the directory `new`, which must not exist or be empty, a store of all that is whole in `path`.

    make_embed  gives what embeds again a text whose vector is lost, or None

    Raises InputError when `new` is taken or inside `path`, StoreLocked when the store is open for writing,
    FormatError when it is no store or a newer one, StoreCorrupt when nothing whole was found, DiskFull. Needs
    about three times the room of the store, beside `new`.
    """
    started = time.monotonic()
    path, new = directory.absolute(path), directory.absolute(new)
    check_free_name(new)
    if not directory.looks_like_store(path):
        raise FormatError(f"there is no store at {path!r}: check the path")
    directory.refuse_inside(path, new)

    def fill(whole: str, scratch: str) -> RepairReport:
        source = Source(scratch)
        try:
            reader = FileReader(path, Faults(0), progress)
            source.load(reader)
            report, last = _rebuild(source, whole, digests, make_embed, progress)
            note_copies(whole, copies_at(path))
        finally:
            source.close()
        check = verify_store(whole, digests, progress=progress)
        if check.faults:
            what = check.faults[0].what
            raise StoreError(f"the repaired store does not verify ({what}): nothing was made; report this")
        files = dict(sorted(reader.files.items()))
        lost = (*report.lost, *lost_unseen(path, reader, last))
        return msgspec.structs.replace(
            report, ok=not lost, lost=lost, path=new, source=path, source_entries=reader.entries, files=files,
            seconds=time.monotonic() - started,
        )  # fmt: skip

    with unchanging(path):
        return build(new, fill)


@contextlib.contextmanager
def unchanging(path: str) -> Iterator[None]:
    """Keep writers out of the store at `path`, without writing there. Raises StoreLocked; StoreError where
    nobody can say whether one is there."""
    try:
        fd = os.open(os.path.join(path, LOCK_NAME), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # never opened by a writer, or lost
        yield
        return
    except OSError as error:
        raise StoreError(f"cannot open the lock file of {path!r}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreLocked(f"the store {path!r} is open for writing: close it first") from error
        except OSError as error:
            raise StoreError(
                f"cannot lock {path!r} ({error.strerror}): copy the store to a file system with flock"
            ) from error
        yield
    finally:
        os.close(fd)


def _rebuild(
    source: Source,
    whole: str,
    digests: DigestsOf,
    make_embed: Callable[[StoreIdentity], Embed | None],
    progress: Progress,
) -> tuple[RepairReport, int]:
    """(the report, the last number of the log that was found)"""
    lost: list[Lost] = []
    identity, salted = _identity(source, lost)
    owners = _owners(source)
    erased = _erased(source)
    engine = RocksEngine(whole, min_free_bytes=0)
    try:
        writer = Writer(engine, source, identity, digests, make_embed(identity), progress)
        for found in source.items(identity.vectors, identity.dimension, lambda what: lost.append(Lost(what))):
            if found.key in erased:
                writer.leave_out(found)
            else:
                writer.take(found, erased.versions.get(found.key, ()))
        writer.write_duplicates()
        writer.write_spaces()
        lost += writer.lost
        _write_owners(writer, identity, owners, erased, lost)
        if salted:
            _write_remembered(writer, source, erased)
        _write_rest(writer, source, identity, erased)
        sequence, last, stubs = write_log(writer, source, lost)
        writer.flush()
        engine.sync()
    finally:
        engine.close()
    report = RepairReport(
        path="", source="", ok=not lost, model_id=identity.model_id, dimension=identity.dimension,
        items=writer.items, versions=writer.versions, deleted=writer.deleted, owners=len(writer.owners),
        sequence=sequence, embedded=writer.embedded, stubs=stubs, source_entries={}, lost=tuple(lost),
        files={}, seconds=0.0,
    )  # fmt: skip
    return report, last


def _identity(source: Source, lost: list[Lost]) -> tuple[StoreIdentity, bool]:
    """What the store is, and whether that was found: else it follows from items and vectors, and the digests
    of idempotent calls are of no use."""
    job = _job(source)
    if job is not None and not job.done:
        lost.append(Lost(f"the vectors of {job.model_id!r} made so far: begin re-embedding anew"))
    for key, stored in source.others("meta"):
        if key != IDENTITY_KEY:
            continue
        identity = decode(codec.unseal("meta", key, stored), StoreIdentity)
        if identity.format > FORMAT:
            raise FormatError(
                f"the store has format {identity.format}, this warpmem reads up to {FORMAT}: upgrade warpmem"
            )
        return msgspec.structs.replace(identity, format=FORMAT), True
    item = source.newest_item()
    counts = {family: source.dimensions(family) for family in codec.VECTOR_FAMILIES}
    if job is not None:  # it names the family that is not in use
        del counts[job.vectors]
    family = max(counts, key=lambda name: counts[name].total())
    if item is None or not counts[family]:
        raise StoreCorrupt("no whole item with a vector was found: there is nothing to repair")
    model = job.model_id if job is not None and job.done else item.model_id
    ((dimension, _),) = counts[family].most_common(1)
    lost.append(
        Lost(f"the store's identity: made anew, with the model {model!r}; idempotent calls are forgotten")
    )
    return StoreIdentity(FORMAT, item.created_at, os.urandom(16), model, dimension, family), False


def _job(source: Source) -> ReembedJob | None:
    """The change of the model that was under way; its vectors are not brought over."""
    for key, stored in source.others("jobs"):
        if key != JOB_KEY:
            continue
        with contextlib.suppress(StoreCorrupt):
            return decode(codec.unseal("jobs", key, stored), ReembedJob)
    return None


def _owners(source: Source) -> dict[int, OwnerValue]:
    found: dict[int, OwnerValue] = {}
    for key, stored in source.others("owners"):
        if key[:1] == b"s":
            with contextlib.suppress(StoreCorrupt):
                number = codec.read_owner_state_key(key)
                found[number] = decode(codec.unseal("owners", key, stored), OwnerValue)
    return found


def _erased(source: Source) -> Erased:
    """What erasures under way name: a deletion may be lost, and older values be found in its place."""
    marks = []
    for key, stored in source.others("meta"):
        if key.startswith(MARK_PREFIX):
            with contextlib.suppress(StoreCorrupt):
                marks.append(decode(codec.unseal("meta", key, stored), ErasureMark))
    return marked(marks)


def _write_owners(
    writer: Writer, identity: StoreIdentity, known: dict[int, OwnerValue], erased: Erased, lost: list[Lost]
) -> None:
    """Names as they were or as their items say, counters as they are now. Numbers stay without gaps: one of
    which nothing is known is that of an owner without a name."""
    items = Counter({number: seen.items for number, seen in writer.owners.items()})
    for number in range(1, max([*known, *writer.owners, *erased.owners], default=0) + 1):
        value, seen = known.get(number), writer.owners.get(number)
        if number in erased.owners:
            value = OwnerValue("user", "", 0, 0)
        elif seen is not None:
            # One whom an erasure has hidden has no name, though items are left: it may have a successor.
            hidden = value is not None and not value.id
            value = OwnerValue(
                "user" if hidden else seen.type, "" if hidden else seen.id,
                max(seen.next_ordinal, value.next_ordinal if value else 0), 0,
            )  # fmt: skip
        elif value is None:
            lost.append(Lost(f"the name of owner {number}, who has no item"))
            value = OwnerValue("user", "", 0, 0)
        value = msgspec.structs.replace(value, items=items[number])
        writer.put("owners", codec.owner_state_key(number), encode(value))
        if value.id:
            name = codec.owner_name_key(owner_digest(identity, Owner(value.type, value.id)))
            writer.put("owners", name, number.to_bytes(4, "big"))
        writer.owners[number] = value


def _write_remembered(writer: Writer, source: Source, erased: Erased) -> None:
    """Outcomes of idempotent calls, and their entries by time."""
    for key, stored in source.others("lookup"):
        owner, tag, digest = int.from_bytes(key[:4], "big"), key[4:5], key[5:]
        if tag != codec.IDEMPOTENCY or owner in erased.owners:
            continue
        payload = codec.unseal("lookup", key, stored)
        with contextlib.suppress(StoreCorrupt):
            value = decode(payload, RememberedValue)
            if not names_any(value.result, erased):
                writer.put("lookup", key, bytes(payload))
                writer.put("lookup", codec.remembered_key(owner, value.at, digest), b"")


def _write_rest(writer: Writer, source: Source, identity: StoreIdentity, erased: Erased) -> None:
    """The identity, and all that is not made anew as it is; no costs of owners that are being erased."""
    writer.put("meta", IDENTITY_KEY, encode(identity))
    for family in codec.FAMILIES:
        if family not in _REBUILT:
            for key, stored in source.others(family):
                if (family, key) != ("meta", IDENTITY_KEY) and spender(key) not in erased.owners:
                    writer.put_sealed(family, key, stored)
