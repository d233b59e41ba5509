"""Changing what is there: updates and deletions, each one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_NAMES
from ..errors import InputError, NotFound, VersionConflict
from ..ingest.graph import named_by
from ..ops.blank import is_blank
from ..ops.clock import to_micros
from ..ops.ids import parse_id
from ..policy import reconcile
from ..policy.filters import compile_filter
from ..policy.metadata import check_caption, check_metadata, check_text
from ..policy.schema import Schemas
from ..protocols import Log, Transaction
from ..records import Record
from ..types import Durability, EmbedWhen, ItemUpdate, MemoryItem, Operation, Scope
from . import arguments
from .digests import Digests
from .document_chunks import chunks_of
from .revocation import Revocations, taken_of
from .spaces import MEDIA, OtherSpace, Spaces
from .vectors import Vectors

_TRIES = 64


class Editor:
    """Updates and deletes. Thread-safe: all state is in the log."""

    def __init__(
        self,
        log: Log,
        vectors: Vectors,
        digests: Digests,
        schemas: Schemas,
        spaces: Spaces,
        revocations: Revocations,
    ) -> None:
        self._revocations = revocations
        self._log = log
        self._vectors = vectors
        self._digests = digests
        self._schemas = schemas
        self._spaces = spaces

    def update(
        self,
        item_id: str,
        fields: ItemUpdate,
        scope: Scope | None,
        expected_version: int | None,
        durability: Durability | None,
        embed: EmbedWhen,
    ) -> MemoryItem:
        """Correct an item. Without expected_version it is tried again when another writer came first."""
        key = parse_id(item_id)
        for attempt in range(_TRIES):
            (known,) = self._log.get_many([key])
            if known is None or (scope is not None and not scope.covers(known.item.scope)):
                raise NotFound("no such item in this scope")
            if expected_version is not None and expected_version != known.item.version:
                raise VersionConflict(expected_version, known.item.version)
            try:
                return self._revise(known, fields, scope, durability, embed).item
            except VersionConflict:
                if expected_version is not None or attempt + 1 == _TRIES:
                    raise
        raise AssertionError("unreachable")

    def _revise(
        self,
        known: Record,
        fields: ItemUpdate,
        scope: Scope | None,
        durability: Durability | None,
        embed: EmbedWhen,
    ) -> Record:
        space = self._space(known)
        item, vector, later = self._corrected(known, fields, space, embed)
        if vector is not None or later:
            model_id = self._vectors.model_id if space is None else space.model_id
            item = msgspec.structs.replace(item, model_id=model_id)

        def change(transaction: Transaction) -> Record:
            if vector is not None and space is None:
                self._vectors.confirm(self._log, transaction)
            record = reconcile.find(transaction, known.key, scope)
            corrected = item
            if fields.sources is msgspec.UNSET:  # an erasure takes ids out of them, and makes no version
                corrected = msgspec.structs.replace(item, sources=record.item.sources)
            reason = None
            if fields.trust is not msgspec.UNSET:
                taken = taken_of(self._log.history(known.key))
                if taken is not None and corrected.trust == record.item.trust:
                    reason = reconcile.GIVEN
            elif fields.sources is not msgspec.UNSET:
                trust, reason = self._revocations.trust(transaction, corrected)
                corrected = msgspec.structs.replace(corrected, trust=trust)
            return reconcile.update(
                transaction,
                record,
                corrected,
                vector,
                based_on=known.item.version,
                digests=(self._digests.both(known.item), self._digests.both(corrected)),
                earlier=self._log.get_version,
                reason=reason,
                later=later,
            )

        return self._log.transact(change, durability)

    def revise(
        self,
        transaction: Transaction,
        known: Record,
        item: MemoryItem,
        vector: NDArray[np.float32] | None,
        *,
        operation: Operation,
        reason: str,
        later: bool = False,
    ) -> Record:
        """Inside a change: `item`, made from `known` by a rule, as its next version. vector: (dim,) float32,
        normalised; None keeps the old one, or with `later` one is made later. Raises VersionConflict."""
        record = reconcile.find(transaction, known.key, None)
        return reconcile.update(
            transaction,
            record,
            item,
            vector,
            based_on=known.item.version,
            digests=(self._digests.both(known.item), self._digests.both(item)),
            earlier=self._log.get_version,
            operation=operation,
            reason=reason,
            later=later,
        )

    def _space(self, record: Record) -> OtherSpace | None:
        """Where the item's vectors lie; None: among those of the texts, as they may in any modality."""
        space = self._spaces.of(record.item.modality)
        if space is None or self._log.space_of(record.key, record.item.version) != space.number:
            return None
        return space

    def _corrected(
        self, record: Record, fields: ItemUpdate, space: OtherSpace | None, embed: EmbedWhen
    ) -> tuple[MemoryItem, NDArray[np.float32] | None, bool]:
        """The item, its vector unless the old one stays, and whether a new one is made later."""
        given: dict[str, Any] = {
            name: value
            for name in fields.__struct_fields__
            if (value := getattr(fields, name)) is not msgspec.UNSET
        }
        vector = given.pop("vector", None)
        if not given and vector is None:
            raise InputError("an update names at least one field to change")
        is_caption = space is not None and space.name in MEDIA and record.item.blob is not None
        checks = {"text": check_caption if is_caption else check_text, "metadata": check_metadata}
        for name, check in checks.items():
            if name in given:
                given[name] = check(given[name])
        for name in ("priority", "trust"):
            if name in given:
                given[name] = arguments.check_share(given[name], name)
        for name in ("entities", "sources"):
            if name in given:
                most = arguments.most_names(record.item.kind) if name == "sources" else MAX_NAMES
                given[name] = arguments.check_names(given[name], name, most)
        for name in ("valid_from", "valid_to", "expires_at"):
            if given.get(name) is not None or (name == "valid_from" and name in given):
                to_micros(given[name], name)
        item = msgspec.structs.replace(record.item, **given)
        if "metadata" in given or "entities" in given:
            named = named_by(item.kind, item.metadata, given.get("entities", ()))
            item = msgspec.structs.replace(item, entities=named or item.entities)
        self._schemas.check(item.kind, item.metadata)
        owners = [(item.scope.owner,)]
        if vector is not None:
            found = (self._vectors if space is None else space).given(vector, 1)
        elif item.text == record.item.text or is_caption:
            return item, None, False
        elif space is not None:
            found = space.of_texts([item.text], owners)
        else:
            made = self._vectors.embed_or_queue([item.text], owners, embed)
            if made is None:
                return item, None, True
            found = made
        return item, self._vectors.normalize(found)[0], False

    def revert(
        self,
        item_id: str,
        version: int,
        scope: Scope | None,
        expected_version: int | None,
        durability: Durability | None,
    ) -> MemoryItem:
        """Make what an item was in `version` its next version; as it is when that is the current one."""
        key = parse_id(item_id)
        wanted = self._version(key, version, scope)
        space = self._space(wanted)
        model_id = self._vectors.model_id if space is None else space.model_id
        vector = self._log.vector(key, version, self._vectors.identity)
        later = space is None and vector is not None and is_blank(vector)
        if vector is None:
            made = self._vectors.embed([wanted.item.text], "document", [(wanted.item.scope.owner,)])
            vector = self._vectors.normalize(made)[0]

        def change(transaction: Transaction) -> Record:
            if space is None:
                self._vectors.confirm(self._log, transaction)
            record = reconcile.find(transaction, key, scope)
            if expected_version is not None and expected_version != record.item.version:
                raise VersionConflict(expected_version, record.item.version)
            if version == record.item.version:
                return record
            then = self._version(key, version, scope).item  # an erasure may have been at its sources
            self._schemas.check(then.kind, then.metadata)
            reason = f"what it was in version {version}"
            trust, why = self._revocations.trust(transaction, then)
            taken = taken_of(self._log.history(key))
            if taken is not None and taken.reason == reconcile.UNTRUSTED:
                trust = min(trust, record.item.trust)  # what it came from may be gone since
            if trust < then.trust:
                then = msgspec.structs.replace(then, trust=trust)
                if why is not None and record.item.trust > trust:  # else it was taken before, as history says
                    reason = why
            return reconcile.update(
                transaction,
                record,
                msgspec.structs.replace(then, model_id=model_id),
                None if later else vector,
                based_on=record.item.version,
                digests=(self._digests.both(record.item), self._digests.both(then)),
                earlier=self._log.get_version,
                operation="revert",
                reason=reason,
                later=later,
            )

        return self._log.transact(change, durability).item

    def _version(self, key: bytes, version: int, scope: Scope | None) -> Record:
        record = self._log.get_version(key, version)
        if record is None or (scope is not None and not scope.covers(record.item.scope)):
            raise NotFound("no such version of an item in this scope")
        return record

    def delete(self, item_id: str, *, scope: Scope | None, durability: Durability | None) -> None:
        """Hide and unindex an item at once, a document with its chunks. Raises NotFound."""
        key = parse_id(item_id)

        def change(transaction: Transaction) -> None:
            whole = reconcile.find(transaction, key, scope)
            for chunk in list(chunks_of(transaction, self._digests, whole)):
                self.remove(transaction, chunk.key, None, "its document was deleted")
            self.remove(transaction, key, scope)

        self._log.transact(change, durability)

    def remove(
        self, transaction: Transaction, key: bytes, scope: Scope | None, reason: str | None = None
    ) -> None:
        """Inside a change: delete an item. reason: the rule that asks for it. Raises NotFound."""
        record = reconcile.find(transaction, key, scope)
        duplicate, slot = self._digests.both(record.item)
        transaction.delete(record, duplicate=duplicate, slot=slot, reason=reason)

    def delete_all(
        self,
        scope: Scope,
        kinds: Sequence[str] | None,
        filters: Mapping[str, Any] | None,
        *,
        durability: Durability | None,
    ) -> int:
        """Delete every item that `scope` covers, of these kinds and that passes the filter, a document with
        its chunks, in one atomic change. Returns how many."""
        wanted = None if kinds is None else frozenset(arguments.check_kinds(kinds))
        compiled = None if filters is None else compile_filter(filters)
        number = self._log.owner(scope.owner)
        if number is None:
            return 0

        def change(transaction: Transaction) -> int:
            found = [
                record
                for _, record in self._log.records(number, order="recorded", reverse=False, after=None)
                if scope.covers(record.item.scope)
                and (wanted is None or record.item.kind in wanted)
                and (compiled is None or compiled.matches(record.item))
            ]
            reasons: dict[bytes, str | None] = {record.key: None for record in found}
            if wanted is not None or compiled is not None:
                for record in found:
                    for chunk in chunks_of(transaction, self._digests, record):
                        reasons.setdefault(chunk.key, "its document was deleted")
            for key, reason in reasons.items():
                self.remove(transaction, key, scope, reason)
            return len(reasons)

        return self._log.transact(change, durability)
