"""The writing side: check, embed, digest, then reconcile and store in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import IDEMPOTENCY_DAYS, MAX_BATCH
from ..embed.vectors import as_vectors
from ..errors import EmbeddingError, InputError, InvalidVector, NotFound, VersionConflict
from ..ingest.normalize import normalize_text
from ..ops.clock import to_datetime, to_micros
from ..ops.digest import digest16
from ..ops.ids import owner_of, parse_id
from ..policy import reconcile
from ..policy.metadata import check_metadata, check_text
from ..policy.schema import Schemas
from ..protocols import Embedder, Log, Transaction
from ..records import Record
from ..types import AddResult, Durability, ItemUpdate, MemoryItem, NewItem, Scope
from . import arguments

_DAY = 24 * 3600 * 1_000_000
_UPDATE_TRIES = 64
_EPOCH = to_datetime(0)
_json = msgspec.json.Encoder(order="deterministic").encode


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a call says for all of its items."""

    scope: Scope | None
    kind: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None


class Writer:
    """Adds, updates and deletes. Thread-safe: all state is in the log."""

    def __init__(
        self,
        log: Log,
        embedder: Embedder,
        normalize: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        schemas: Schemas,
    ) -> None:
        self._log = log
        self._embedder = embedder
        self._normalize = normalize
        self._schemas = schemas
        self._salt = log.identity.salt

    # ----------------------------------------------------------------------------------------- add

    def add(
        self,
        items: Sequence[NewItem],
        defaults: Defaults,
        *,
        idempotency_key: str | None,
        durability: Durability | None,
    ) -> tuple[AddResult, ...]:
        """Store items in one atomic change; nothing is stored when any of them is refused."""
        if len(items) > MAX_BATCH:
            raise InputError(f"one call takes {MAX_BATCH} items, not {len(items)}; split the list")
        if not items:
            return ()
        prepared = self._prepare(items, defaults)
        keys = [item.idempotency_key for item in items]
        if idempotency_key is not None:
            if any(key is not None for key in keys):
                raise InputError("give idempotency_key to the call or to its items, not both")
            if len({entry.item.scope.owner for entry in prepared}) > 1:
                raise InputError("an idempotency_key belongs to one owner; this call has items of several")
            groups = [(idempotency_key, prepared)]
        else:
            groups = [(key, [entry]) for key, entry in zip(keys, prepared, strict=True)]  # type: ignore[misc]

        def change(transaction: Transaction) -> tuple[AddResult, ...]:
            results: list[AddResult] = []
            for key, group in groups:
                results += self._add_group(transaction, key, group)
            return tuple(results)

        return self._log.transact(change, durability)

    def _add_group(
        self, transaction: Transaction, key: str | None, group: Sequence[reconcile.Prepared]
    ) -> Sequence[AddResult]:
        if key is None:
            return [reconcile.add(transaction, entry) for entry in group]
        owner = transaction.owner(group[0].item.scope.owner)
        digest = digest16(self._salt, b"idempotency", arguments.check_name(key, "idempotency_key").encode())
        payload = self._payload(group)
        window = IDEMPOTENCY_DAYS * _DAY
        known = reconcile.idempotent_result(transaction, owner, digest, payload, window)
        if known is not None:
            return [AddResult(*fields) for fields in known]
        results = [reconcile.add(transaction, entry) for entry in group]
        transaction.remember(
            owner, digest, payload, [[result.id, result.action, result.replaced] for result in results]
        )
        return results

    def _payload(self, group: Sequence[reconcile.Prepared]) -> bytes:
        """What identifies a call's content: everything given, without the times that the store sets."""
        parts = []
        for entry in group:
            begins = entry.item.valid_from if entry.valid_from_given else _EPOCH
            item = msgspec.structs.replace(
                entry.item, created_at=_EPOCH, touched_at=_EPOCH, recorded_at=_EPOCH, valid_from=begins
            )
            parts.append(_json(item))
        return digest16(self._salt, b"payload", *parts)

    def _prepare(self, items: Sequence[NewItem], defaults: Defaults) -> list[reconcile.Prepared]:
        checked = [self._check(item, defaults) for item in items]
        vectors = self._vectors(items, [entry[0].text for entry in checked], defaults)
        return [
            reconcile.Prepared(item, vectors[i], self.duplicate_digest(item), self.slot_digest(item), given)
            for i, (item, given) in enumerate(checked)
        ]

    def _check(self, new: NewItem, defaults: Defaults) -> tuple[MemoryItem, bool]:
        scope = arguments.required(new.scope or defaults.scope)
        text = check_text(new.text)
        kind = arguments.check_kind(new.kind or defaults.kind or "fact")
        metadata = {
            **check_metadata({} if defaults.metadata is None else defaults.metadata),
            **check_metadata({} if new.metadata is None else new.metadata),
        }
        if defaults.metadata and new.metadata:
            metadata = check_metadata(metadata)
        self._schemas.check(kind, metadata)
        key = new.key if new.key is not None else defaults.key
        if key is not None:
            arguments.check_name(key, "key")
        priority = new.priority if new.priority is not None else defaults.priority
        valid_from = new.valid_from if new.valid_from is not None else defaults.valid_from
        expires_at = new.expires_at if new.expires_at is not None else defaults.expires_at
        now = to_datetime(self._log.now())
        for when, name in ((valid_from, "valid_from"), (expires_at, "expires_at")):
            if when is not None:
                to_micros(when, name)
        item = MemoryItem(
            id="",
            scope=scope,
            kind=kind,
            text=text,
            modality=new.modality,
            blob=None if new.blob is None else arguments.check_name(new.blob, "blob"),
            metadata=metadata,
            priority=0.5 if priority is None else arguments.check_share(priority, "priority"),
            key=key,
            entities=arguments.check_names(new.entities, "entities"),
            sources=arguments.check_names(new.sources, "sources"),
            trust=arguments.check_share(new.trust, "trust"),
            model_id=self._embedder.model_id,
            created_at=now,
            touched_at=now,
            recorded_at=now,
            valid_from=valid_from or now,
            expires_at=expires_at,
        )
        return item, valid_from is not None

    # --------------------------------------------------------------------------------------- vectors

    def _vectors(
        self, items: Sequence[NewItem], texts: Sequence[str], defaults: Defaults
    ) -> NDArray[np.float32]:
        dimension = self._embedder.dimension
        if defaults.vector is not None:
            if any(item.vector is not None for item in items):
                raise InputError("give vector to the call or to its items, not both")
            given = as_vectors(defaults.vector, dimension, "vector")
            if len(given) != len(items):
                raise InvalidVector(f"expected {len(items)} vectors, one for each item, not {len(given)}")
            return self.normalize(given)
        out = np.empty((len(items), dimension), np.float32)
        wanted: list[int] = []
        for i, item in enumerate(items):
            if item.vector is None:
                wanted.append(i)
                continue
            given = as_vectors(item.vector, dimension, "vector")
            if len(given) != 1:
                raise InvalidVector(f"expected 1 vector for an item, not {len(given)}")
            out[i] = given[0]
        if wanted:
            out[wanted] = self.embed([texts[i] for i in wanted], "document")
        return self.normalize(out)

    def embed(self, texts: Sequence[str], role: Any) -> NDArray[np.float32]:
        """Embed, and check that what came back is what the protocol promises. Raises EmbeddingError."""
        vectors = self._embedder.embed(texts, role=role)
        expected = (len(texts), self._embedder.dimension)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise EmbeddingError(
                f"expected float32 vectors of shape {expected}, not {vectors.dtype} {vectors.shape}"
            )
        return vectors

    def normalize(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit length, canonically. Raises InvalidVector on a zero or non-finite row."""
        try:
            return self._normalize(np.ascontiguousarray(vectors))
        except ValueError as error:
            raise InvalidVector(f"a vector cannot be normalised: {error}") from error

    # --------------------------------------------------------------------------------------- digests

    def duplicate_digest(self, item: MemoryItem) -> bytes | None:
        """Where a repetition of this item would be found; None for kinds whose repetition is history."""
        if item.kind in reconcile.NEVER_DUPLICATE:
            return None
        content = [
            item.scope,
            item.kind,
            normalize_text(item.text),
            item.metadata,
            item.key,
            item.modality,
            item.blob,
        ]
        return digest16(self._salt, b"duplicate", _json(content))

    def slot_digest(self, item: MemoryItem) -> bytes | None:
        """Where the other values of this item's key are found; None without a key."""
        return None if item.key is None else digest16(self._salt, b"slot", _json([item.scope, item.key]))

    # ------------------------------------------------------------------------------------ update, delete

    def update(
        self,
        item_id: str,
        fields: ItemUpdate,
        *,
        scope: Scope | None,
        expected_version: int | None,
        durability: Durability | None,
    ) -> MemoryItem:
        """Correct an item. Without expected_version it is tried again when another writer came first."""
        key = parse_id(item_id)
        for attempt in range(_UPDATE_TRIES):
            (known,) = self._log.get_many([key])
            if known is None or (scope is not None and not scope.covers(known.item.scope)):
                raise NotFound("no such item in this scope")
            item, vector = self._corrected(known, fields)
            digests = (self.duplicate_digest(known.item), self.duplicate_digest(item))
            based_on = known.item.version

            def change(transaction: Transaction) -> Record:
                return reconcile.update(
                    transaction,
                    reconcile.find(transaction, key, scope),
                    item,  # noqa: B023
                    vector,  # noqa: B023
                    expected_version=expected_version,
                    based_on=based_on,  # noqa: B023
                    digests=digests,  # noqa: B023
                )

            try:
                return self._log.transact(change, durability).item
            except VersionConflict:
                if expected_version is not None or attempt + 1 == _UPDATE_TRIES:
                    raise
        raise AssertionError("unreachable")

    def _corrected(self, record: Record, fields: ItemUpdate) -> tuple[MemoryItem, NDArray[np.float32] | None]:
        given: dict[str, Any] = {
            name: value
            for name in fields.__struct_fields__
            if (value := getattr(fields, name)) is not msgspec.UNSET
        }
        if not given:
            raise InputError("an update names at least one field to change")
        vector = given.pop("vector", None)
        if "text" in given:
            given["text"] = check_text(given["text"])
        if "metadata" in given:
            given["metadata"] = check_metadata(given["metadata"])
        for name in ("priority", "trust"):
            if name in given:
                given[name] = arguments.check_share(given[name], name)
        for name in ("entities", "sources"):
            if name in given:
                given[name] = arguments.check_names(given[name], name)
        for name in ("valid_from", "valid_to", "expires_at"):
            if given.get(name) is not None or (name == "valid_from" and name in given):
                to_micros(given[name], name)
        item = msgspec.structs.replace(record.item, **given)
        self._schemas.check(item.kind, item.metadata)
        if vector is not None:
            rows = as_vectors(vector, self._embedder.dimension, "vector")
            if len(rows) != 1:
                raise InvalidVector(f"expected 1 vector for an item, not {len(rows)}")
            return item, self.normalize(rows)[0]
        if item.text != record.item.text:
            return item, self.normalize(self.embed([item.text], "document"))[0]
        return item, None

    def delete(self, item_id: str, *, scope: Scope | None, durability: Durability | None) -> None:
        """Hide and unindex an item at once. Raises NotFound."""
        key = parse_id(item_id)
        self._log.transact(lambda transaction: self._delete(transaction, key, scope), durability)

    def _delete(self, transaction: Transaction, key: bytes, scope: Scope | None) -> None:
        record = reconcile.find(transaction, key, scope)
        transaction.delete(
            record, duplicate=self.duplicate_digest(record.item), slot=self.slot_digest(record.item)
        )

    def delete_all(self, scope: Scope, *, durability: Durability | None) -> int:
        """Delete every item that `scope` covers, in one atomic change. Returns how many."""
        number = self._log.owner(scope.owner)
        if number is None:
            return 0

        def change(transaction: Transaction) -> int:
            keys = [
                record.key
                for _, record in self._log.records(number, order="recorded", reverse=False, after=None)
                if scope.covers(record.item.scope)
            ]
            for key in keys:
                assert owner_of(key) == number
                self._delete(transaction, key, scope)
            return len(keys)

        return self._log.transact(change, durability)
