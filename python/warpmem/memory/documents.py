"""Documents: an item that stands for the whole, and one for each chunk, all of them values of keys.

The whole has the document's name as its key; chunk n has `name#n`, and names the whole as its first source,
so that erasing the whole erases its chunks. `metadata["document"]` of a chunk says where it stands; that of
the whole how many numbers were given out. The chunks of an edition are the values that its keys have then.
An edition in quarantine is a document of its own there, and changes nothing of one that is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..config import MAX_BATCH
from ..errors import InputError, VersionConflict
from ..ops.clock import to_datetime
from ..ops.ids import format_id, owner_of
from ..policy import reconcile
from ..policy.revision import Revision, revise
from ..policy.similar import derived_from
from ..protocols import Log, Transaction
from ..records import Record
from ..types import DocumentResult, Durability, Format, MemoryItem, Modality, NewItem, Scope
from .digests import Digests
from .revocation import Revocations, taken_of
from .writer import Defaults, Writer

if TYPE_CHECKING:
    from ..ingest.chunks import Chunk

_TRIES: Final = 16
_STEP: Final = 256
_OUTLINE: Final = 2000
_LIKE_A_CHUNK = re.compile(r"#\d+$")
_MODALITIES: Final[Mapping[str, Modality]] = {"code": "code", "log": "log"}


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One edition, cut into chunks. The other fields are those of its items."""

    name: str
    text: str
    format: Format
    chunks: Sequence[Chunk]
    scope: Scope
    kind: str
    metadata: Mapping[str, Any]
    priority: float | None
    sources: Sequence[str]
    trust: float


class _Known(msgspec.Struct, frozen=True):
    """What is stored of a document. chunks: (number, item) in the order of the text; free: other numbers.
    hidden: whether it was looked for in quarantine alone."""

    hidden: bool
    whole: Record
    chunks: Sequence[tuple[int, Record]]
    free: Sequence[int]


class Documents:
    """Stores documents. Thread-safe: all state is in the log."""

    def __init__(self, log: Log, writer: Writer, digests: Digests, revocations: Revocations) -> None:
        self._log = log
        self._writer = writer
        self._digests = digests
        self._revocations = revocations

    def add(self, document: Document, durability: Durability | None) -> DocumentResult:
        """Store an edition in one atomic change. Raises InputError, and as the writer."""
        if len(document.chunks) >= MAX_BATCH:
            raise InputError(
                f"the document has {len(document.chunks)} chunks, and {MAX_BATCH - 1} may come in one call; "
                "raise max_tokens or split it"
            )
        if _LIKE_A_CHUNK.search(document.name):
            raise InputError("a document's name may not end in # and a number: its chunks are named so")
        for attempt in range(_TRIES):
            known = self._known(document)
            try:
                return self._store(document, known, durability)
            except VersionConflict:  # another edition came in between
                if attempt + 1 == _TRIES:
                    raise
        raise AssertionError("unreachable")

    # ---------------------------------------------------------------------------------- what is stored

    def _known(self, document: Document) -> _Known | None:
        number = self._log.owner(document.scope.owner)
        if number is None:
            return None
        (like,) = self._writer.check([_whole(document, 0)], _defaults(document))
        hidden, whole, given = self._log.transact(lambda transaction: self._found(transaction, number, like))
        if whole is None:
            return None
        names = [f"{document.name}#{n}" for n in range(given)]
        chunks: list[tuple[int, Record]] = []
        free: list[int] = []
        for start in range(0, given, _STEP):  # in steps, so that writers come in between
            slots = [self._slots(like, name, hidden) for name in names[start : start + _STEP]]
            for n, record in enumerate(self._chunks(whole, slots), start):
                if record is None:
                    free.append(n)
                else:
                    chunks.append((n, record))
        chunks.sort(key=lambda entry: (_start(entry[1].item), entry[0]))
        return _Known(hidden, whole, chunks, free)

    def _found(
        self, transaction: Transaction, owner: int, like: MemoryItem
    ) -> tuple[bool, Record | None, int]:
        """Whether the edition will be in quarantine, the item that stands for its document, and how many
        numbers there are. Another source's in quarantine is left as it is, for it may be believed again.
        Raises InputError when the name is the key of something else."""
        trust, _ = self._revocations.trust(transaction, like)
        hidden = _trusted(like, trust).quarantined
        for slot in self._slots(like, like.key, hidden):
            assert slot is not None
            whole = _value(transaction, owner, slot)
            if whole is None or (hidden and not self._revocations.alike(whole, like)):
                continue
            if _given(whole.item) is not None:  # it may have ended one with more chunks
                chain = (transaction.get(key) for _, key in transaction.key_chain(owner, slot))
                return hidden, whole, max(_given(one.item) or 0 for one in chain if one)
            if whole.item.quarantined == hidden:
                raise InputError(f"the key {like.key!r} belongs to an item that is no document")
        return hidden, None, 0

    def _chunks(self, whole: Record, slots: Sequence[Sequence[bytes | None]]) -> list[Record | None]:
        return self._log.transact(lambda transaction: _values(transaction, whole, slots))

    def _slots(self, like: MemoryItem, key: str | None, hidden: bool) -> list[bytes | None]:
        """Where the value of a key may be: one that was trusted may have gone into quarantine since."""
        trusts = (0.0,) if hidden else (1.0, 0.0)
        named = msgspec.structs.replace(like, key=key)
        return [self._digests.slot(_trusted(named, trust)) for trust in trusts]

    # ------------------------------------------------------------------------------------- what is new

    def _store(
        self, document: Document, known: _Known | None, durability: Durability | None
    ) -> DocumentResult:
        old = [] if known is None else list(known.chunks)
        wanted = [_Wanted(document, chunk) for chunk in document.chunks]
        revision = revise([_said(record.item) for _, record in old], [one.said for one in wanted])
        numbers, given = _numbers(revision, known)
        new = [i for i, kept in enumerate(revision.kept) if not kept]
        items = [_whole(document, given)]
        items += [wanted[i].item(f"{document.name}#{numbers[i]}") for i in new]
        given_whole, *prepared = self._writer.prepare(items, _defaults(document))

        def change(transaction: Transaction) -> DocumentResult:
            self._writer.confirm(transaction)
            whole = self._writer.checked(transaction, given_whole)
            counts = dict.fromkeys(("added", "superseded", "moved", "removed"), 0)
            whole_id = self._put_whole(transaction, whole, known)
            ids: dict[int, str] = {}
            sources = derived_from(whole_id, whole.item.sources)
            for i, entry in zip(new, prepared, strict=True):
                place = revision.places[i]
                if place is not None:
                    _unchanged(transaction, old[place][1])
                item = msgspec.structs.replace(entry.item, sources=sources)
                result = self._writer.put(transaction, msgspec.structs.replace(entry, item=item))
                counts["added" if result.replaced is None else "superseded"] += 1
                ids[i] = result.id
            for i, kept in enumerate(revision.kept):
                if kept:
                    place = revision.places[i]
                    assert place is not None
                    record = _unchanged(transaction, old[place][1])
                    ids[i] = format_id(record.key)
                    like = wanted[i].placed(record.item, whole.item, sources)
                    if like != record.item or self._given_anew(record, whole):
                        reason = "its document was changed elsewhere"
                        self._correct(transaction, record, like, reason, None, whole)
                        counts["moved"] += 1
            for place in revision.removed:
                record = _unchanged(transaction, old[place][1])
                ended = msgspec.structs.replace(record.item, valid_to=to_datetime(transaction.now))
                transaction.revise(
                    record, ended, None, operation="close", reason="it is no longer in its document"
                )
                counts["removed"] += 1
            return DocumentResult(id=whole_id, chunks=tuple(ids[i] for i in range(len(wanted))), **counts)

        size = sum(len(entry.item.text) + entry.vector.nbytes for entry in prepared)
        return self._log.transact(change, durability, size)

    def _put_whole(self, transaction: Transaction, whole: reconcile.Prepared, known: _Known | None) -> str:
        """The id of the item that stands for the document, as it is now. Raises VersionConflict."""
        if known is None:
            like = whole.item if whole.given is None else _trusted(whole.item, whole.given)
            last = self._found(transaction, transaction.owner(like.scope.owner), like)[1]
            if last is not None:
                raise VersionConflict(0, last.item.version)
            return self._writer.put(transaction, whole).id
        record = _unchanged(transaction, known.whole)
        if whole.item.quarantined != known.hidden:  # a source was revoked or reinstated in between
            raise VersionConflict(known.whole.item.version, record.item.version)
        item = msgspec.structs.replace(
            record.item,
            text=whole.item.text,
            metadata=whole.item.metadata,
            priority=whole.item.priority,
            sources=whole.item.sources,
            trust=whole.item.trust,
        )
        if item != record.item or self._given_anew(record, whole):
            self._correct(transaction, record, item, "a new edition", whole.vector, whole)
        return format_id(record.key)

    def _given_anew(self, record: Record, whole: reconcile.Prepared) -> bool:
        """Whether sources take away another trust than they have taken already."""
        if whole.given is None:
            return False
        taken = taken_of(self._log.history(record.key))
        return taken is None or whole.given != taken.trust

    def _correct(
        self,
        transaction: Transaction,
        record: Record,
        item: MemoryItem,
        reason: str,
        vector: Any,
        whole: reconcile.Prepared,
    ) -> None:
        digests = self._digests.both(record.item), self._digests.both(item)
        if whole.given is not None:
            told = _trusted(item, whole.given)
            record = transaction.revise(record, told, vector, operation="update", reason=reason)
            vector, reason = None, whole.why
        reconcile.update(
            transaction,
            record,
            item,
            vector,
            based_on=record.item.version,
            digests=digests,
            earlier=self._log.get_version,
            reason=reason,
        )


class _Wanted:
    """A chunk on its way into an item."""

    def __init__(self, document: Document, chunk: Chunk) -> None:
        self._document = document
        self._text = document.text[chunk.start : chunk.end]
        place: dict[str, Any] = {"name": document.name, "start": chunk.start, "end": chunk.end}
        if chunk.path:
            place["path"] = list(chunk.path)
        if document.format == "log":
            from ..ingest.blocks import log_facts

            place |= log_facts(self._text)
        self.metadata = {**document.metadata, "document": place}
        self.said = (self._text, chunk.path, document.kind)

    def item(self, key: str) -> NewItem:
        document = self._document
        return NewItem(
            text=self._text, key=key, metadata=self.metadata, trust=document.trust,
            modality=_MODALITIES.get(document.format, "text"),
        )  # fmt: skip

    def placed(self, item: MemoryItem, whole: MemoryItem, sources: tuple[str, ...]) -> MemoryItem:
        """An item that says the same, where it stands now."""
        return msgspec.structs.replace(
            item, metadata=self.metadata, sources=sources, trust=whole.trust, priority=whole.priority
        )


def _defaults(document: Document) -> Defaults:
    return Defaults(scope=document.scope, kind=document.kind, priority=document.priority)


def _whole(document: Document, numbers: int) -> NewItem:
    """The item for the document as a whole: its name, and its headings."""
    paths = dict.fromkeys(" > ".join(chunk.path) for chunk in document.chunks if chunk.path)
    text = "\n".join((document.name, *paths))[:_OUTLINE]
    said = {"name": document.name, "format": document.format, "numbers": numbers}
    return NewItem(
        text=text, key=document.name, metadata={**document.metadata, "document": said},
        sources=document.sources, trust=document.trust,
    )  # fmt: skip


def _numbers(revision: Revision, known: _Known | None) -> tuple[list[int], int]:
    """(number of each new chunk, how many are given out then): its old one's, a free one, or a new one."""
    given = 0 if known is None else len(known.chunks) + len(known.free)
    free = [] if known is None else list(reversed(known.free))
    numbers = []
    for place in revision.places:
        if place is not None:
            assert known is not None
            numbers.append(known.chunks[place][0])
        elif free:
            numbers.append(free.pop())
        else:
            numbers.append(given)
            given += 1
    return numbers, given


def _value(transaction: Transaction, owner: int, slot: bytes | None) -> Record | None:
    """The value that a key has now."""
    assert slot is not None
    chain = transaction.key_chain(owner, slot)
    record = transaction.get(chain[-1][1]) if chain else None
    return record if record is not None and reconcile.is_current(record.item, transaction.now) else None


def _values(
    transaction: Transaction, whole: Record, slots: Sequence[Sequence[bytes | None]]
) -> list[Record | None]:
    """The chunk in each first slot that has one; in quarantine the chunks of other documents do not count."""
    owner = owner_of(whole.key)
    found = ((_value(transaction, owner, slot) for slot in either) for either in slots)
    return [
        next(
            (
                record
                for record in either
                if record and (not record.item.quarantined or whole.item.id in record.item.sources[:1])
            ),
            None,
        )
        for either in found
    ]


def _trusted(item: MemoryItem, trust: float) -> MemoryItem:
    return msgspec.structs.replace(item, trust=trust)


def _given(whole: MemoryItem) -> int | None:
    """How many numbers a document has given out; None where the item stands for none."""
    said = whole.metadata.get("document")
    given = said.get("numbers") if isinstance(said, dict) else None
    return given if isinstance(given, int) else None


def _unchanged(transaction: Transaction, known: Record) -> Record:
    """The record as it was read before this change. Raises VersionConflict."""
    record = transaction.get(known.key)
    if record is None or record.item.version != known.item.version:
        raise VersionConflict(known.item.version, 0 if record is None else record.item.version)
    return record


def _start(item: MemoryItem) -> int:
    said = item.metadata.get("document")
    start = said.get("start") if isinstance(said, dict) else None
    return start if isinstance(start, int) else 0


def _said(item: MemoryItem) -> tuple[str, tuple[str, ...], str]:
    said = item.metadata.get("document")
    path = said.get("path") if isinstance(said, dict) else None
    return item.text, tuple(path) if isinstance(path, list) else (), item.kind
