"""The digests that find an item again: by content, key or idempotent call. FORMATS.md fixes their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..ingest.normalize import normalize_text
from ..ops.digest import digest16
from ..policy.reconcile import NEVER_DUPLICATE
from ..types import MemoryItem, Scope

_json = msgspec.json.Encoder(order="deterministic").encode


class Digests:
    """Digests keyed by the salt of one store."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def duplicate(self, item: MemoryItem) -> bytes | None:
        """Where a repetition of this item would be found; None for kinds whose repetition is history."""
        if item.kind in NEVER_DUPLICATE:
            return None
        text = normalize_text(item.text)
        content = [scope_ids(item.scope), item.kind, text, item.metadata, item.key, item.modality, item.blob]
        return digest16(self._salt, b"duplicate", _json(content), *_apart(item.quarantined))

    def slot(self, item: MemoryItem) -> bytes | None:
        """Where the other values of this item's key are found; None without a key."""
        return None if item.key is None else self.slot_of(item.scope, item.key, item.quarantined)

    def slot_of(self, scope: Scope, key: str, quarantined: bool) -> bytes:
        """Where the values of a key are found: those that are trusted, or those in quarantine."""
        return digest16(self._salt, b"slot", _json([scope_ids(scope), key]), *_apart(quarantined))

    def both(self, item: MemoryItem) -> tuple[bytes | None, bytes | None]:
        """(duplicate, slot) of an item."""
        return self.duplicate(item), self.slot(item)

    def idempotency(self, key: str) -> bytes:
        """Where the outcome of a call with this key is found."""
        return digest16(self._salt, b"idempotency", key.encode())

    def payload(self, contents: Sequence[Sequence[Any]]) -> bytes:
        """What an idempotent call said: one list of the fields its caller gave for each item."""
        return digest16(self._salt, b"payload", *(_json(content) for content in contents))


def _apart(quarantined: bool) -> tuple[bytes, ...]:
    """What keeps items in quarantine from being found by others: they repeat and supersede each other."""
    return (b"quarantined",) if quarantined else ()


def scope_ids(scope: Scope) -> list[str | None]:
    """A scope's ids in a fixed order."""
    return [scope.user_id, scope.agent_id, scope.run_id, scope.corpus_id]
