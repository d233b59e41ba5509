"""Adding: check, embed, digest, then reconcile and store in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_BATCH, MAX_NAMES
from ..errors import InputError, SchemaViolation
from ..ingest.graph import named_by
from ..ingest.media import MAX_CALL_BYTES, media_reference, to_media
from ..ops.clock import to_datetime, to_micros
from ..ops.event_time import Days, with_days
from ..policy import reconcile
from ..policy.metadata import check_caption, check_metadata, check_text
from ..policy.schema import Schemas
from ..policy.similar import Near
from ..protocols import Log, Transaction
from ..types import AddResult, Durability, EmbedWhen, MemoryItem, NewItem, Scope
from . import arguments
from .adding import Adding, Call, Calls, add_group, replay
from .checked import Checked, content, embed_elsewhere
from .digests import Digests
from .revocation import Revocations
from .similar import NearDuplicates
from .spaces import MEDIA, Spaces
from .vectors import Vectors


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a call says for all of its items."""

    scope: Scope | None
    kind: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None
    sources: Sequence[str] = ()
    trust: float | None = None
    entities: Sequence[str] = ()


Rows = Sequence["NDArray[np.float32] | None"]
"""A vector for each item, of one dimension in an array."""


class Writer:
    """Adds. Thread-safe: all state is in the log."""

    def __init__(
        self,
        log: Log,
        vectors: Vectors,
        digests: Digests,
        schemas: Schemas,
        near: NearDuplicates,
        revocations: Revocations,
        spaces: Spaces,
    ) -> None:
        self._log = log
        self._vectors = vectors
        self._digests = digests
        self._schemas = schemas
        self._near = near
        self._revocations = revocations
        self._spaces = spaces

    def add(
        self,
        items: Sequence[NewItem],
        defaults: Defaults,
        *,
        idempotency_key: str | None,
        durability: Durability | None,
        embed: EmbedWhen,
        reading: Callable[[], AbstractContextManager[None]],
        states: Callable[[MemoryItem], Sequence[tuple[str, Days | None]]] | None = None,
        retention: timedelta | None = None,
        extract: bool = False,
    ) -> tuple[AddResult, ...]:
        """Store items in one atomic change; nothing is stored when any of them is refused. reading: keeps the
        index readable meanwhile. states: what an item says, and when that happened, to be stored as facts of
        their own, too.
        retention: after which items expire that do not say when. extract: see Adding."""
        if len(items) > MAX_BATCH:
            raise InputError(f"one call takes {MAX_BATCH} items, not {len(items)}; split the list")
        if not items:
            return ()
        now = self._now()
        checked = self._check_all(items, defaults, now)
        calls = self._calls(items, checked, idempotency_key)
        if any(call is not None for call, _ in calls):
            known = self._log.transact(lambda transaction: replay(transaction, calls), durability)
            if known is not None:
                return known
        followers: dict[int, Sequence[int]] = {}
        if retention is not None:
            checked = [_expiring(entry, retention) for entry in checked]
        for number, entry in enumerate(tuple(checked) if extract or states is not None else ()):
            stated = [] if states is None else self._facts(entry, states)
            facts = [self._check(fact, Defaults(scope=None), None, now) for fact in stated]
            if extract or facts:
                arguments.check_names(entry.item.sources, "sources", MAX_NAMES - 1)
            if facts:
                followers[number] = range(len(checked), len(checked) + len(facts))
                checked += facts
        vectors = self._embed(checked, embed)
        size = sum(len(entry.item.text) for entry in checked)
        size += sum(row.nbytes for row in vectors if row is not None)
        # What lies in another space has no wording.
        new = [entry.item if entry.space is None else None for entry in checked]
        together = self._near.together(new, vectors)
        with self._near.alone(new):
            with reading() if self._near.looks else nullcontext():
                stored = self._near.stored(new, vectors)
            prepared = self._prepared(checked, vectors, stored)

            def change(transaction: Transaction) -> tuple[AddResult, ...]:
                if any(item is not None for item in new):
                    self._vectors.confirm(self._log, transaction)
                adding = Adding(transaction, prepared, together, self.put, followers, extract)
                results: list[AddResult] = []
                for call, numbers in calls:
                    results += add_group(adding, call, numbers)
                return tuple(results)

            return self._log.transact(change, durability, size)

    def check(self, items: Sequence[NewItem], defaults: Defaults) -> list[MemoryItem]:
        """The items as they would be stored. Raises InputError."""
        return [entry.item for entry in self._check_all(items, defaults, self._now())]

    def prepare(
        self, items: Sequence[NewItem], defaults: Defaults, embed: EmbedWhen = "now"
    ) -> list[reconcile.Prepared]:
        """Items checked and embedded, for a change that begins with confirm()."""
        checked = self._check_all(items, defaults, self._now())
        return self._prepared(checked, self._embed(checked, embed), [()] * len(checked))

    def confirm(self, transaction: Transaction) -> None:
        """Inside a change: raises ModelMoved unless what was prepared is of the store's model."""
        self._vectors.confirm(self._log, transaction)

    def checked(self, transaction: Transaction, prepared: reconcile.Prepared) -> reconcile.Prepared:
        """Inside a change: what was prepared, with the trust that its sources leave it."""
        return self._revocations.checked(transaction, prepared)

    def put(self, transaction: Transaction, prepared: reconcile.Prepared) -> AddResult:
        """Inside a change: store what was prepared. Raises ModelMismatch when its space has another model."""
        if prepared.space:
            self._spaces.register(transaction, prepared.space)
        checked = self.checked(transaction, prepared)
        return reconcile.add(transaction, checked, self._digests.duplicate, self._revocations.alike)

    def _prepared(
        self, checked: Sequence[Checked], vectors: Rows, near: Sequence[Sequence[Near]]
    ) -> list[reconcile.Prepared]:
        return [
            reconcile.Prepared(
                entry.item,
                vectors[i],
                self._digests.duplicate(entry.item),
                self._digests.slot(entry.item),
                entry.valid_from_given,
                near[i],
                space=0 if entry.space is None else entry.space.number,
            )
            for i, entry in enumerate(checked)
        ]

    # ---------------------------------------------------------------------------------- idempotency

    def _calls(
        self, items: Sequence[NewItem], checked: Sequence[Checked], idempotency_key: str | None
    ) -> Calls:
        def call(key: str, numbers: Sequence[int]) -> Call:
            name = arguments.check_name(key, "idempotency_key")
            payload = self._digests.payload([content(checked[i]) for i in numbers])
            return Call(checked[numbers[0]].item.scope.owner, self._digests.idempotency(name), payload)

        keys = [item.idempotency_key for item in items]
        if idempotency_key is None:
            if all(key is None for key in keys):
                return [(None, range(len(items)))]
            return [(None if key is None else call(key, [i]), [i]) for i, key in enumerate(keys)]
        if any(key is not None for key in keys):
            raise InputError("give idempotency_key to the call or to its items, not both")
        if len({entry.item.scope.owner for entry in checked}) > 1:
            raise InputError("an idempotency_key belongs to one owner; this call has items of several")
        everything = range(len(items))
        return [(call(idempotency_key, everything), everything)]

    # ---------------------------------------------------------------------------------------- checks

    def _now(self) -> datetime:
        return to_datetime(self._log.now())

    def _check_all(self, items: Sequence[NewItem], defaults: Defaults, now: datetime) -> list[Checked]:
        given: Sequence[Any] = [None] * len(items)
        if defaults.vector is not None:
            if any(item.vector is not None for item in items):
                raise InputError("give vector to the call or to its items, not both")
            given = list(self._given(defaults.vector, items))
        checked: list[Checked] = []
        size = 0
        for item, vector in zip(items, given, strict=True):
            checked.append(self._check(item, defaults, vector, now))
            media = checked[-1].media
            size += 0 if media is None else len(media)
            if size > MAX_CALL_BYTES:
                raise InputError(f"one call takes {MAX_CALL_BYTES} bytes of images and audio; split the list")
        return checked

    def _check(self, new: NewItem, defaults: Defaults, vector: Any, now: datetime) -> Checked:
        scope = arguments.required(arguments.check_scope(new.scope) or defaults.scope)
        modality = arguments.check_modality(new.modality)
        space = self._spaces.of(modality)
        blob = new.blob
        if new.media is not None:
            if modality not in MEDIA:
                raise InputError(f"media is for the modalities {' and '.join(MEDIA)}, not {modality!r}")
            reference = media_reference(new.media, modality)
            blob = reference if blob is None else blob
        blob = None if blob is None else arguments.check_name(blob, "blob")
        named = space is not None and modality in MEDIA and blob is not None
        text = check_caption(new.text) if named else check_text(new.text)
        kind = arguments.check_kind(_first(new.kind, defaults.kind, "fact"))
        metadata = check_metadata(_first(defaults.metadata, new.metadata, {}))
        if new.metadata is not None and defaults.metadata is not None:
            metadata = check_metadata({**metadata, **check_metadata(new.metadata)})
        self._schemas.check(kind, metadata)
        key = defaults.key if new.key is None else new.key
        valid_from = defaults.valid_from if new.valid_from is None else new.valid_from
        valid_to = defaults.valid_to if new.valid_to is None else new.valid_to
        expires_at = defaults.expires_at if new.expires_at is None else new.expires_at
        if valid_from is not None:
            to_micros(valid_from, "valid_from")
        if valid_to is not None:
            to_micros(valid_to, "valid_to")
        if expires_at is not None:
            to_micros(expires_at, "expires_at")
        priority = defaults.priority if new.priority is None else new.priority
        trust = defaults.trust if new.trust is None else new.trust
        entities = named_by(kind, metadata, arguments.check_names(new.entities, "entities"))
        item = MemoryItem(
            id="",
            scope=scope,
            kind=kind,
            text=text,
            modality=modality,
            blob=blob,
            metadata=metadata,
            priority=0.5 if priority is None else arguments.check_share(priority, "priority"),
            key=None if key is None else arguments.check_name(key, "key"),
            entities=entities or arguments.check_names(defaults.entities, "entities"),
            sources=_sources(new, defaults, arguments.most_names(kind)),
            trust=1.0 if trust is None else arguments.check_share(trust, "trust"),
            model_id=self._vectors.model_id if space is None else space.model_id,
            created_at=now,
            touched_at=now,
            recorded_at=now,
            valid_from=valid_from or now,
            valid_to=valid_to,
            expires_at=expires_at,
        )
        if new.vector is not None:
            vector = (self._vectors if space is None else space).given(new.vector, 1)[0]
        media = None
        if space is not None and modality in MEDIA and vector is None:
            if new.media is None:
                raise InputError(f"an item of modality {modality!r} comes with media= or vector=")
            media = to_media(new.media, modality)
        return Checked(item, valid_from is not None, vector, space, media)

    def _facts(
        self, entry: Checked, states: Callable[[MemoryItem], Sequence[tuple[str, Days | None]]]
    ) -> list[NewItem]:
        item = entry.item
        stated = states(item)
        if not stated:
            return []
        said_by: dict[str, Any] = {
            name: item.metadata[name] for name in ("role", "name") if name in item.metadata
        }

        def metadata(days: Days | None) -> dict[str, Any]:
            timed = with_days(said_by, days)
            return timed if days is not None and self.fits("fact", timed) else said_by

        return [
            NewItem(
                text=text, scope=item.scope, kind="fact", metadata=metadata(days), priority=item.priority,
                sources=item.sources, trust=item.trust,
                valid_from=item.valid_from if entry.valid_from_given else None,
            )
            for text, days in stated
        ]  # fmt: skip

    def fits(self, kind: str, metadata: dict[str, Any]) -> bool:
        """Whether an item of a kind may have this metadata."""
        try:
            self._schemas.check(kind, metadata)
        except SchemaViolation:
            return False
        return True

    def _given(self, vectors: Any, items: Sequence[NewItem]) -> NDArray[np.float32]:
        """(n, dimension) float32 of what came with a call whose items are of one space."""
        modalities = {arguments.check_modality(item.modality) for item in items}
        spaces = {modality: self._spaces.of(modality) for modality in modalities}
        if len({id(space) for space in spaces.values()}) > 1:
            raise InputError("one list of vectors is of one space: give each NewItem its own vector")
        space = next(iter(spaces.values()))
        return (self._vectors if space is None else space).given(vectors, len(items))

    def _embed(self, checked: Sequence[Checked], when: EmbedWhen) -> Rows:
        """(dimension,) float32 each, normalised: the vectors that were given, and those that are made; None
        for texts that are embedded later."""
        if all(entry.space is None for entry in checked):
            return self._embed_texts(checked, when)
        rows: list[Any] = [None] * len(checked)
        for space in {id(entry.space): entry.space for entry in checked}.values():
            numbers = [i for i, entry in enumerate(checked) if entry.space is space]
            group = [checked[i] for i in numbers]
            made = self._embed_texts(group, when) if space is None else embed_elsewhere(space, group)
            for i, row in zip(numbers, made, strict=True):
                rows[i] = row
        return rows

    def _embed_texts(self, checked: Sequence[Checked], when: EmbedWhen) -> Rows:
        """The same, in the space of the texts."""
        given = [entry.vector for entry in checked if entry.vector is not None]
        if given and len(given) == len(checked):
            rows = given[0] if len(given) == 1 else np.concatenate(given)
            return list(self._vectors.normalize(rows.reshape(len(given), -1)))
        out = np.empty((len(checked), self._vectors.dimension), np.float32)
        wanted = [i for i, entry in enumerate(checked) if entry.vector is None]
        for i, entry in enumerate(checked):
            if entry.vector is not None:
                out[i] = entry.vector
        texts = [checked[i].item.text for i in wanted]
        found = self._vectors.embed_or_queue(texts, [(checked[i].item.scope.owner,) for i in wanted], when)
        if found is not None and not given:
            return list(self._vectors.normalize(found))
        if found is not None:
            out[wanted] = found
            return list(self._vectors.normalize(out))
        later = set(wanted)
        ready = [i for i in range(len(checked)) if i not in later]
        vectors = dict(zip(ready, self._vectors.normalize(out[ready]), strict=True))
        return [vectors.get(i) for i in range(len(checked))]


def _first(own: Any, of_call: Any, default: Any = None) -> Any:
    """The first value that is not None, else None."""
    if own is not None:
        return own
    return default if of_call is None else of_call


def _expiring(entry: Checked, retention: timedelta) -> Checked:
    item = entry.item
    if item.expires_at is not None:
        return entry
    item = msgspec.structs.replace(item, expires_at=item.created_at + retention)
    return msgspec.structs.replace(entry, item=item)


def _sources(new: NewItem, defaults: Defaults, most: int) -> tuple[str, ...]:
    own = arguments.check_names(new.sources, "sources", most)
    if not defaults.sources:
        return own
    return arguments.check_names([*dict.fromkeys((*own, *defaults.sources))], "sources", most)
