"""What an index checkpoint says beside the rows: whose they are, and up to which change of the log.

A checkpoint is a pool's file (FORMATS.md) with two sections more: `partitions`, this struct in msgpack, and
`names`, the names of all row ids of all owners one after the other. It is derived: whoever reads it compares
it with the log, and starts without it when anything does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..records import LogEntry, StoreIdentity
from .partition import NAME_BYTES, Names, Partition

VERSION = 1


class OwnerMark(msgspec.Struct, frozen=True, array_like=True):
    """One owner. `names` is how many row ids it has given out, `codes` what its strings are numbered."""

    owner: int
    names: int
    past_until: int
    codes: dict[str, int]


class CheckpointMark(msgspec.Struct, frozen=True, array_like=True):
    """Section `partitions`. `position` is the last change that the rows hold; `salt` tells stores apart."""

    version: int
    salt: bytes
    model_id: str
    position: LogEntry
    kinds: dict[str, int]
    owners: list[OwnerMark]


_decoder = msgspec.msgpack.Decoder(CheckpointMark)


def sections(
    identity: StoreIdentity, position: LogEntry, kinds: Mapping[str, int], ready: Mapping[int, Partition]
) -> dict[str, bytes]:
    """The sections of partitions that do not change meanwhile."""
    names = {owner: partition.names.tobytes() for owner, partition in ready.items()}
    marks = [
        OwnerMark(owner, len(names[owner]) // NAME_BYTES, partition.past_until, partition.codes)
        for owner, partition in ready.items()
    ]
    mark = CheckpointMark(VERSION, identity.salt, identity.model_id, position, dict(kinds), marks)
    return {"partitions": msgspec.msgpack.encode(mark), "names": b"".join(names.values())}


def read(
    found: Mapping[str, bytes | memoryview], identity: StoreIdentity
) -> tuple[CheckpointMark, dict[int, Partition]]:
    """The mark, and ready partitions by owner. ValueError when they are not of this store, or do not add up."""
    if not {"partitions", "names"} <= set(found):
        raise ValueError("it is not a checkpoint of a store's index")
    try:
        mark = _decoder.decode(found["partitions"])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"its section partitions does not decode ({error})") from error
    if mark.version != VERSION:
        raise ValueError(f"it has version {mark.version}, this warpmem reads {VERSION}")
    if (mark.salt, mark.model_id) != (identity.salt, identity.model_id):
        raise ValueError("it belongs to another store or model")
    names = memoryview(found["names"])
    if len(names) != NAME_BYTES * sum(owner.names for owner in mark.owners):
        raise ValueError("its section names has another length than its owners say")
    partitions: dict[int, Partition] = {}
    at = 0
    for owner in mark.owners:
        end = at + NAME_BYTES * owner.names
        partitions[owner.owner] = Partition.restored(Names(names[at:end]), dict(owner.codes), owner.past_until)
        at = end
    return mark, partitions


def touched(entries: Sequence[LogEntry]) -> dict[int, dict[bytes, int]]:
    """By owner, the item keys that changes touched and the largest version each reached."""
    from ..ops.ids import owner_of

    found: dict[int, dict[bytes, int]] = {}
    for entry in entries:
        keys = found.setdefault(owner_of(entry.key), {})
        keys[entry.key] = max(entry.version, keys.get(entry.key, 0))
    return found
