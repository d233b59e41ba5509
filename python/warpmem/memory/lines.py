"""Importing JSON lines. A line is one of

    {"text": ..., "user_id": ..., "kind": ..., "key": ..., "metadata": {...}, "valid_from": ..., ...}
        an item; all fields of an exported line are taken, of which id, version and the times of recording
        mean nothing to the new store; but what has a created_at and no valid_from, as rows of other stores
        have, is true from then on. "vector" (base64 of float32) counts where "model_id" is the store's
        model for the line's modality; else the text is embedded again, and an image or audio for which the
        store has a model is refused, since its content is not at hand. A line with a "check" must be what it
        was (line_check.py)
    {"role": ..., "content": ..., "at": ..., "user_id": ...}
        a chat message (ingest/messages.py)

A line that names no owner belongs to the scope of the call; where that is enforced, a line outside it is
refused. One that names no kind, as no chat message does, is of the call's kind, else a fact or a message.
Empty lines are passed over.

Each line carries an idempotency key made from its content, so that importing it again stores nothing twice,
messages included, as long as the store remembers such keys (7 days). For good it remembers how far a file was
imported, and each exported line: one with an id (ledger.py). Such a line that says something else by now is
taken like any other, unless the item that it was stored as was deleted or erased here. A line that stands
twice in one file, and has no id, is meant twice.

The past comes back as it was: each item is stored with the end it had, whatever comes before or after it. A
line that is taken for a repetition of a stored item which is valid longer ends that item, unless the item is
a line of the same export or was known to end at another time; then a note says that its end stays.
`sources` are kept as written.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..errors import Conflict, InputError, InvalidScope, InvalidVector, ModelError, WarpmemError
from ..ingest.messages import to_new_items
from ..policy.metadata import check_caption
from ..types import AddResult, MemoryItem, NewItem, Scope
from .exporting import items_of
from .item_line import MAX_LINE_BYTES, ItemLine, check_times
from .ledger import ExportedLines
from .line_check import Checks, content_of

if TYPE_CHECKING:
    from .facade import Memory

_IDS = ("user_id", "agent_id", "run_id", "corpus_id")
_MAX_WAITING_BYTES = MAX_LINE_BYTES
_REFUSALS = (InputError, Conflict, ModelError)


class Entry(msgspec.Struct, frozen=True):
    """A line ready to be added. exported: the names of it and of its id, where it has one."""

    number: int
    item: NewItem
    exported: tuple[bytes, bytes] | None = None


class Importer:
    """Adds lines in batches, each one commit, and remembers what became of them.

    A batch is `batch` lines, or as many as have 8 MiB. A refused line goes to `refused` with its number.
    Without `skip_errors`, or where the model fails at other texts too, it ends the import: `stopped` is then
    True and lines before it are stored. Overloaded, DeadlineExceeded and StoreError pass through, with these
    stored as well. Takes memory in proportion to the lines, the digest of each or the id it got, beside one
    batch.

    exported  exported lines that are known; none are asked for with `again`
    answers   whether the model of a modality embeds another text now
    refused  called with a line's number and why it was refused
    say      called with notes on what was stored otherwise than written
    stored   called with the number of a line when all up to it are stored, or were refused
    known    lines that earlier runs stored

    `since`: items made after that time are taken for lines of this file; an earlier run began then.
    """

    def __init__(
        self,
        memory: Memory,
        scope: Scope | None,
        kind: str | None,
        batch: int,
        exported: ExportedLines,
        *,
        enforce_scope: bool,
        skip_errors: bool,
        again: bool,
        answers: Callable[[str], bool],
        refused: Callable[[int, WarpmemError], None],
        say: Callable[[str], None],
        stored: Callable[[int], None],
    ) -> None:
        self._memory = memory
        self._scope = scope
        self._kind = kind
        self._batch = batch
        self._exported = exported
        self._enforced = scope if enforce_scope else None
        self._skip_errors = skip_errors
        self._again = again
        self._answers = answers
        self._refused = refused
        self._say = say
        self._stored = stored
        self._last = self._flushed = 0
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._seen: Counter[bytes] = Counter()
        self._checks = Checks()
        self._items: set[bytes] = set()  # those that exported lines were stored as
        self._living: set[bytes] = set()  # all items of one owner
        self._living_of: Scope | None = None
        self._models: dict[str, tuple[str, int]] | None = None
        self.since: datetime | None = None
        self.actions: Counter[str] = Counter()
        self.skipped = self.known = 0
        self.stopped = False

    @property
    def count(self) -> int:
        """Lines that are stored."""
        return self.actions.total()

    def take(self, number: int, line: bytes) -> None:
        """Take in a line; it is stored with its batch."""
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            entry = self._parse(number, line) if line.strip() else None
        except WarpmemError as error:
            self._flush()
            if not self.stopped:
                self._refuse(number, error)
                self._last = number
            return
        self._last = number
        if entry is not None:
            self._waiting.append(entry)
            self._waiting_bytes += len(line)
        if number - self._flushed >= self._batch or self._waiting_bytes >= _MAX_WAITING_BYTES:
            self._flush()

    def pass_over(self, number: int, line: bytes) -> None:
        """Count a line that an earlier run has stored."""
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        self._last = number
        if not self._waiting:
            self._flushed = number
        self.known += 1
        if line.strip():
            self._idempotency_key(line, unique=False)
        if b'"check"' in line:
            with contextlib.suppress(InputError, msgspec.DecodeError):
                self._checks.is_end(msgspec.json.decode(line, type=dict))

    def finish(self) -> None:
        """Store what waits."""
        if not self.stopped:
            self._flush()
        if not self.stopped and self._checks.cut_off:
            self._refuse(self._last, InputError("the export is cut off after this line: export it again"))
        if not self.stopped and not self._last:
            self._refuse(1, InputError("there is none: an empty file is no export, which has a last line"))

    # ------------------------------------------------------------------------------ reading a line

    def _parse(self, number: int, line: bytes) -> Entry | None:
        """What a line asks for; None when it is the last line of an export, or known."""
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"the line is over the limit of {MAX_LINE_BYTES} bytes")
        try:
            raw = msgspec.json.decode(line)
            if not isinstance(raw, dict):
                raise InputError(f"expected a JSON object, not {type(raw).__name__}")
            if "role" in raw or "content" in raw:
                return self._message(number, line, raw)
            if self._checks.is_end(raw):
                return None
            given = msgspec.convert(raw, ItemLine)
        except msgspec.ValidationError as error:
            raise InputError(f"not an item: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"not JSON: {error}") from None
        except RecursionError:
            raise InputError("the JSON is nested too deeply") from None
        scope, kind = self._scope_of(raw), given.kind or self._kind
        exported = None
        if given.id is not None:
            name = self._exported.line(scope, kind, content_of(raw))
            exported = name, self._exported.source(scope, kind, given.id)
            if not self._again and (self._is_known(exported[0]) or self._is_gone(exported[1], scope)):
                self.known += 1
                return None
        check_caption(given.text)
        check_times(given)
        begins = given.created_at if given.valid_from is None else given.valid_from
        item = NewItem(
            text=given.text,
            scope=scope,
            kind=kind,
            modality=given.modality,
            blob=given.blob,
            metadata=given.metadata,
            priority=given.priority,
            key=given.key,
            entities=given.entities,
            sources=given.sources,
            trust=given.trust,
            valid_from=begins,
            valid_to=given.valid_to,
            expires_at=given.expires_at,
            vector=self._vector(given),
            idempotency_key=self._idempotency_key(line, unique=given.id is not None),
        )
        return Entry(number, item, exported)

    def _is_known(self, exported: bytes) -> bool:
        """Whether the exported line of this name is stored already."""
        stored = self._exported.find(exported)
        if stored is None:
            return False
        self._items.add(stored)
        return True

    def _is_gone(self, source: bytes, scope: Scope | None) -> bool:
        """Whether what lines of this name were stored as has been deleted or erased."""
        stored = self._exported.find(source)
        if stored is None or scope is None:
            return False
        owner = Scope(**{f"{scope.owner.type}_id": scope.owner.id})
        if owner != self._living_of:
            self._living = {self._exported.item(item.id) for item in items_of(self._memory, owner)}
            self._living_of = owner
        return stored not in self._living

    def _vector(self, given: ItemLine) -> Any:
        """The line's vector, where it is of this store's model for its modality: (dim,) float32."""
        if given.vector is None:
            return None
        if self._models is None:
            stats = self._memory.stats()
            self._models = {"text": (stats.model_id, stats.dimension)}
            for modality, space in stats.spaces.items():
                self._models[modality] = (space["model_id"], space["dimension"])
        model_id, dimension = self._models.get(given.modality, self._models["text"])
        if given.model_id != model_id:
            return None
        try:
            data = base64.b64decode(given.vector, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidVector("vector is not base64") from None
        if len(data) != 4 * dimension:
            raise InvalidVector(f"vector has {len(data)} bytes, expected {4 * dimension}")
        return np.frombuffer(data, "<f4")

    def _message(self, number: int, line: bytes, raw: dict[str, Any]) -> Entry:
        scope = self._scope_of(raw)
        message = {name: value for name, value in raw.items() if name not in _IDS}
        (item,), _ = to_new_items(message, self._kind)
        check_caption(item.text)
        key = self._idempotency_key(line, unique=False)
        return Entry(number, msgspec.structs.replace(item, scope=scope, idempotency_key=key))

    def _scope_of(self, raw: dict[str, Any]) -> Scope | None:
        ids = {name: raw[name] for name in _IDS if raw.get(name) is not None}
        scope = Scope(**ids) if ids else self._scope
        if self._enforced is not None and scope is not None and not self._enforced.covers(scope):
            raise InvalidScope("the line names another scope than the import's, which is enforced")
        return scope

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
        entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._flushed = self._last
        if not entries:
            self._keep(self._last)
            return
        try:
            results = self._memory.add_many([entry.item for entry in entries])
        except _REFUSALS:  # nothing of the batch was stored; find the line that is to blame
            self._one_by_one(entries)
            if self.stopped:
                return
        else:
            for entry, result in zip(entries, results, strict=True):
                self._settle(entry, result)
        self._keep(self._last)

    def _one_by_one(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                (result,) = self._memory.add_many([entry.item])
                self._settle(entry, result)
            except _REFUSALS as error:
                self._refuse(entry.number, error, entry.item.modality)
            except WarpmemError:
                with contextlib.suppress(WarpmemError):
                    self._keep(entry.number - 1)
                raise
            if self.stopped:
                self._keep(entry.number - 1)
                return

    def _keep(self, number: int) -> None:
        """Remember for good that all lines up to `number` are stored."""
        self._exported.keep()
        self._stored(number)

    def _refuse(self, number: int, error: WarpmemError, modality: str = "text") -> None:
        self._refused(number, error)
        # Of a model that fails at other texts too no line after this one fares better.
        if self._skip_errors and (not isinstance(error, ModelError) or self._answers(modality)):
            self.skipped += 1
        else:
            self.stopped = True

    def _settle(self, entry: Entry, result: AddResult) -> None:
        item = self._find(result) if result.action == "touched" else None
        begins = entry.item.valid_from
        if item is not None and item.valid_to is not None and begins is not None and item.valid_to <= begins:
            # What it was taken to repeat was ended by a line before it, of the same batch, after all.
            again = msgspec.structs.replace(entry.item, idempotency_key=f"{entry.item.idempotency_key}:again")
            (result,) = self._memory.add_many([again])
            item = self._find(result) if result.action == "touched" else None
        self.actions[result.action] += 1
        if item is not None and entry.item.valid_to is not None:
            self._end(entry, item, entry.item.valid_to)
        if entry.exported is not None:
            stored = self._exported.item(result.id)
            for name in entry.exported:
                self._exported.add(name, stored)
            self._items.add(stored)
            self._living.add(stored)

    def _find(self, result: AddResult) -> MemoryItem | None:
        """What was touched; None when it was deleted since an earlier import of the same file touched it."""
        return self._memory.get_many([result.id])[0]

    def _end(self, entry: Entry, item: MemoryItem, when: datetime) -> None:
        """End the stored item that `entry` repeats at `when` if it is valid longer, or say that it stays."""
        if item.valid_to is not None and item.valid_to <= when:
            return
        same_beginning = item.valid_from == entry.item.valid_from
        # An exported line that repeats another of its export is a second item: it does not correct the first.
        another = entry.exported is not None and (
            self._exported.item(item.id) in self._items
            or (self.since is not None and item.created_at >= self.since)
        )
        if another or when < item.valid_from or (item.valid_to is not None and not same_beginning):
            self._say(f"line {entry.number}: repeats an item that is valid longer; its end stays as it is")
            return
        self._memory.update(item.id, valid_to=when)
