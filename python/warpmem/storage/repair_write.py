"""Writing the repaired store, item by item, with everything that finds items made anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from ..ops.blank import is_blank
from ..ops.ids import OWNER_BYTES, owner_of
from ..protocols import Engine
from ..records import SPACES, LogEntry, Space, StoreIdentity
from ..types import MemoryItem
from . import codec
from .repair_items import Embed, Evidence, Outcome, settle
from .repair_source import Source
from .reports import Lost
from .spaces import owner_spaces_key, space_key
from .values import ItemValue, OwnerValue, WorkValue, encode, encode_row, make_record, make_row

STUB, UNLOGGED, DUPLICATE, CHANGED = b"S", b"U", b"D", b"C"
"""Kinds of notes (repair_source.py): sequences that become stubs, entries to append, ids by the digest of
their content, owners whose memory is not what it was."""

_BATCH: Final = 500
_STEP: Final = 1000


class Writer:
    """Collects writes for the new store. Counters say what was written so far; `owners` has the name and the
    counters of every owner with an item."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        identity: StoreIdentity,
        digests: Callable[[bytes, MemoryItem], tuple[bytes | None, bytes | None]],
        embed: Embed | None,
        progress: Callable[[str, int], None],
    ) -> None:
        self._engine = engine
        self._source = source
        self._identity = identity
        self._digests = digests
        self._embed = embed
        self._progress = progress
        self._waiting: list[tuple[str, bytes, bytes | None]] = []
        self.owners: dict[int, OwnerValue] = {}
        self._spaces: dict[int, set[int]] = {}
        self._models: dict[int, Space] = {}
        self._modalities = {SPACES[number] for number in source.spaces()}
        self.lost: list[Lost] = []
        self.items = self.versions = self.deleted = self.embedded = 0

    def put(self, family: str, key: bytes, payload: bytes) -> None:
        """Write a payload under its key."""
        self.put_sealed(family, key, codec.seal(family, key, payload))

    def put_sealed(self, family: str, key: bytes, value: bytes) -> None:
        """Write a value as it was found."""
        self._waiting.append((family, key, value))
        if len(self._waiting) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand what waits to the engine."""
        self._engine.write(self._waiting)
        self._waiting = []

    def take(self, found: Evidence, erased: Collection[int] = ()) -> None:
        """Settle one item and write what is left of it. erased: past versions that are being erased."""
        self._note_stubs(found.key, found.forget(erased))
        if not found.vectors:
            found.space = self._space_of(found)  # its text is not what was embedded
        out = settle(found, self._embed)
        self.lost += out.lost
        self.embedded += out.embedded
        number = owner_of(found.key)
        for version, past in out.history.items():
            self.put("history", codec.history_key(found.key, version), encode(past))
            self.versions += past.item is not None
            if past.item is not None:
                self._see_owner(number, past.item, live=False)
        if out.current is not None:
            self._write_current(found.key, out.current)
            versions = {version: past.item for version, past in out.history.items() if past.item is not None}
            versions[out.current.version] = out.current
            for version, vector in out.vectors.items():
                make_record(found.key, versions[version])  # raises where a time is none
                row = make_row(found.key, versions[version], vector, found.space)
                self.put(self._identity.vectors, codec.vector_key(found.key, version), encode_row(row))
                if is_blank(vector):
                    since = found.waiting.get(version, versions[version].recorded_at)
                    self.put("jobs", codec.work_key("embed", found.key, version), encode(WorkValue(since)))
            if found.unread:
                self.put("jobs", codec.work_key("extract", found.key, 1), found.unread)
            if found.space:
                self._see_space(number, found.space, out)
        elif out.history:
            self.deleted += 1
        for sequence in out.stubs:
            self._source.note(STUB, codec.log_key(sequence))
        for entry in out.unlogged:
            # In the order of their times, then of their items and versions.
            place = codec.log_key(max(entry.at, 0)) + entry.key + bytes([entry.operation == "delete"])
            self._source.note(UNLOGGED, place + entry.version.to_bytes(4, "big"), encode(entry))
        if out.lost or out.stubs or out.unlogged:
            self._source.note(CHANGED, number.to_bytes(4, "big"))

    def _space_of(self, found: Evidence) -> int:
        """The space that the lost vectors of an item lay in, as its modality tells."""
        past = (value.item for value in found.versions.values() if value.item is not None)
        item = next(iter([*found.items, *past]), None)
        known = item is not None and item.modality in self._modalities
        return SPACES.index(item.modality) if item is not None and known else 0

    def leave_out(self, found: Evidence) -> None:
        """Bring nothing over of one item: what the log tells of it becomes stubs."""
        self._note_stubs(found.key, found.log)

    def _note_stubs(self, key: bytes, entries: Iterable[LogEntry]) -> None:
        for entry in entries:
            self._source.note(STUB, codec.log_key(entry.sequence))
            self._source.note(CHANGED, owner_of(key).to_bytes(4, "big"))

    def _write_current(self, key: bytes, value: ItemValue) -> None:
        number, unique = owner_of(key), key[OWNER_BYTES:]
        self.items += 1
        self.versions += 1
        if self.items % _STEP == 0:
            self._progress("items written", self.items)
        self._see_owner(number, value, live=True)
        self.put("items", key, encode(value))
        self.put("listing", codec.listing_key(number, value.valid_from, unique), b"")
        duplicate, slot = self._digests(self._identity.salt, make_record(key, value).item)
        if slot is not None:
            suffix = codec.slot_suffix(value.valid_from, unique)
            self.put("lookup", codec.lookup_key(number, codec.SLOT, slot, suffix), b"")
        if duplicate is not None:
            self._source.note(DUPLICATE, codec.lookup_key(number, codec.DUPLICATE, duplicate) + unique)

    def _see_owner(self, number: int, value: ItemValue, *, live: bool) -> None:
        known = self.owners.get(number)
        if known is None:
            owner = make_record(number.to_bytes(4, "big") + bytes(16), value).item.scope.owner
            known = OwnerValue(owner.type, owner.id, 0, 0)
        self.owners[number] = OwnerValue(
            known.type, known.id, max(known.next_ordinal, value.ordinal + 1), known.items + live
        )

    def _see_space(self, owner: int, number: int, out: Outcome) -> None:
        assert out.current is not None
        self._spaces.setdefault(owner, set()).add(number)
        dimension = len(out.vectors[out.current.version])
        known = Space(number, out.current.model_id, dimension, out.current.created_at)
        self._models.setdefault(number, known)

    def write_spaces(self) -> None:
        """In which spaces each owner has rows, and what is known of a space no more. After the last item."""
        for number, space in self._models.items():
            if space.name not in self._modalities:
                self.lost.append(Lost(f"what is known of the {space.name} space: made anew, from its items"))
                self.put("meta", space_key(number), encode(space))
        for owner, spaces in self._spaces.items():
            self.put("lookup", owner_spaces_key(owner), bytes(sorted(spaces)))

    def write_duplicates(self) -> None:
        """The ids of the items with one content, under its digest. After the last item."""
        last, ids = b"", b""
        for key, _ in self._source.notes(DUPLICATE):
            at, unique = key[:-16], key[-16:]
            if at != last and ids:
                self.put("lookup", last, ids)
                ids = b""
            last, ids = at, ids + unique
        if ids:
            self.put("lookup", last, ids)
