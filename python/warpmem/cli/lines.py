"""Importing JSON lines. A line is one of

    {"text": ..., "user_id": ..., "kind": ..., "key": ..., "metadata": {...}, "valid_from": ..., ...}
        an item; all fields of an exported line are taken, of which id, version, model_id, and the times of
        recording mean nothing to the new store
    {"role": ..., "content": ..., "at": ..., "user_id": ...}
        a chat message (ingest/messages.py)

A line that names no owner belongs to the scope of the command. Empty lines are passed over.

Each line carries an idempotency key made from its content, so that importing a file again, as after an
error, stores nothing twice, messages included. That holds as long as the store remembers such keys (7 days);
later, current facts and the like are still recognised as duplicates, messages and events are not. A line that
stands twice in one file, and has no id, is meant twice.

The past comes back as it was: items with a key end where the next begins. An item that ended otherwise (its
successor was deleted, or an update ended it) is ended explicitly, and a later repetition of it is added
after the batch it stands in. `sources` are kept as written.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO

import msgspec

from ..errors import Conflict, InputError, ModelError, NotFound, WarpmemError
from ..ingest.messages import to_new_items
from ..memory import Memory
from ..types import AddResult, Modality, NewItem, Scope

MAX_LINE_BYTES = 8 << 20
_IDS = ("user_id", "agent_id", "run_id", "corpus_id")
_REFUSALS = (InputError, Conflict, ModelError)


class ItemLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line that is an item."""

    text: str
    id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    corpus_id: str | None = None
    kind: str | None = None
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    entities: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    trust: float = 1.0
    version: int | None = None
    model_id: str | None = None
    created_at: datetime | None = None
    touched_at: datetime | None = None
    expires_at: datetime | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    recorded_at: datetime | None = None
    retired_at: datetime | None = None


class Entry(msgspec.Struct, frozen=True):
    """A line ready to be added. exported: it carries the id it had elsewhere."""

    number: int
    item: NewItem
    valid_to: datetime | None
    exported: bool


def read_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of a stream. A line over the limit comes cut, one byte longer than the limit."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield number, line


class Importer:
    """Adds lines in batches, each one commit, and remembers what became of them.

    A refused line is reported on stderr with its number. Without `skip_errors` it ends the import: `stopped`
    is then True and lines before it are stored. StoreError passes through.
    """

    def __init__(
        self, memory: Memory, scope: Scope | None, kind: str | None, batch: int, *, skip_errors: bool
    ) -> None:
        self._memory = memory
        self._scope = scope
        self._kind = kind
        self._batch = batch
        self._skip_errors = skip_errors
        self._waiting: list[Entry] = []
        self._seen: Counter[bytes] = Counter()
        self._ends: dict[str, datetime] = {}
        self.actions: Counter[str] = Counter()
        self.skipped = 0
        self.stopped = False

    @property
    def count(self) -> int:
        """Lines that are stored."""
        return self.actions.total()

    def take(self, number: int, line: bytes) -> None:
        """Take in a line; it is stored with its batch."""
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            return
        try:
            entry = self._parse(number, line)
        except WarpmemError as error:
            self._flush()
            if not self.stopped:
                self._refuse(number, error)
            return
        self._waiting.append(entry)
        if len(self._waiting) >= self._batch:
            self._flush()

    def finish(self) -> None:
        """Store what waits, then end the items whose end no later line has brought about."""
        if not self.stopped:
            self._flush()
        for item_id, when in self._ends.items():
            self._end(item_id, when)

    # ------------------------------------------------------------------------------ reading a line

    def _parse(self, number: int, line: bytes) -> Entry:
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"the line is over the limit of {MAX_LINE_BYTES} bytes")
        try:
            raw = msgspec.json.decode(line)
            if not isinstance(raw, dict):
                raise InputError(f"expected a JSON object, not {type(raw).__name__}")
            if "role" in raw or "content" in raw:
                return self._message(number, line, raw)
            given = msgspec.convert(raw, ItemLine)
        except msgspec.ValidationError as error:
            raise InputError(f"not an item: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"not JSON: {error}") from None
        item = NewItem(
            text=given.text,
            scope=self._scope_of(raw),
            kind=given.kind or self._kind,
            modality=given.modality,
            blob=given.blob,
            metadata=given.metadata,
            priority=given.priority,
            key=given.key,
            entities=given.entities,
            sources=given.sources,
            trust=given.trust,
            valid_from=given.valid_from,
            expires_at=given.expires_at,
            idempotency_key=self._idempotency_key(line, unique=given.id is not None),
        )
        return Entry(number, item, given.valid_to, given.id is not None)

    def _message(self, number: int, line: bytes, raw: dict[str, Any]) -> Entry:
        scope = self._scope_of(raw)
        (item,), _ = to_new_items([{name: value for name, value in raw.items() if name not in _IDS}])
        key = self._idempotency_key(line, unique=False)
        return Entry(number, msgspec.structs.replace(item, scope=scope, idempotency_key=key), None, False)

    def _scope_of(self, raw: dict[str, Any]) -> Scope | None:
        ids = {name: raw[name] for name in _IDS if raw.get(name) is not None}
        return Scope(**ids) if ids else self._scope

    def _idempotency_key(self, line: bytes, *, unique: bool) -> str:
        """From the line, how often it has occurred in this file, and what the command adds to it."""
        digest = hashlib.blake2b(line.strip(), digest_size=16)
        digest.update(msgspec.json.encode([self._scope, self._kind]))
        if unique:
            return f"import:{digest.hexdigest()}"
        self._seen[digest.digest()] += 1
        return f"import:{digest.hexdigest()}:{self._seen[digest.digest()]}"

    # ------------------------------------------------------------------------------------- storing

    def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        try:
            results = self._memory.add_many([entry.item for entry in entries])
        except _REFUSALS:  # nothing of the batch was stored; find the line that is to blame
            for entry in entries:
                try:
                    (result,) = self._memory.add_many([entry.item])
                    self._settle(entry, result)
                except _REFUSALS as error:
                    self._refuse(entry.number, error)
                if self.stopped:
                    return
            return
        for entry, result in zip(entries, results, strict=True):
            self._settle(entry, result)

    def _refuse(self, number: int, error: WarpmemError) -> None:
        print(f"warpmem: {type(error).__name__}: line {number}: {error}", file=sys.stderr)
        if self._skip_errors:
            self.skipped += 1
        else:
            self.stopped = True

    def _settle(self, entry: Entry, result: AddResult) -> None:
        end = self._ends.get(result.id)
        begins = entry.item.valid_from
        if (
            result.action == "touched"
            and entry.exported
            and end is not None
            and begins is not None
            and end <= begins
        ):
            # Taken for a repetition of an item that had ended before this one began.
            self._end(result.id, self._ends.pop(result.id))
            again = msgspec.structs.replace(entry.item, idempotency_key=f"{entry.item.idempotency_key}:again")
            (result,) = self._memory.add_many([again])
        self.actions[result.action] += 1
        if entry.valid_to is not None:
            self._ends[result.id] = entry.valid_to

    def _end(self, item_id: str, when: datetime) -> None:
        """Let an item's validity end at `when`, if it does not end by then already."""
        try:
            item = self._memory.get(item_id)
        except NotFound:  # deleted since an earlier import of the same file
            return
        if item.valid_to is not None and item.valid_to <= when:
            return
        if item.key is None:
            self._memory.update(item_id, valid_to=when)
            return
        # The validity of a keyed item follows from what comes after it in its slot: something that is never
        # found, because it has expired when it begins, and is deleted at once.
        (mark,) = self._memory.add_many(
            [
                NewItem(
                    text=item.text,
                    scope=item.scope,
                    kind=item.kind,
                    key=item.key,
                    metadata={**item.metadata, "ends": item_id},
                    valid_from=when,
                    expires_at=when,
                )
            ]
        )
        self._memory.delete(mark.id)
