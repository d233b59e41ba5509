"""What is stored: scopes, items in their versions, and what to add or change."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import InvalidScope

KINDS = ("fact", "preference", "event", "procedure", "document", "summary", "message", "entity", "relation")
"""The kinds every store knows. Any other identifier may be used as a kind too. Metadata of the last two has
what NewEntity and NewRelation put there."""

KIND_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
"""What a kind is called."""

TRUSTED = 0.5
"""The least trust of an item that is believed. One with less is in quarantine."""

Action = Literal["added", "touched", "superseded", "merged", "queued"]
Durability = Literal["sync", "os"]
Modality = Literal["text", "code", "log", "image", "audio"]
EmbedWhen = Literal["now", "later", "auto"]
Format = Literal["markdown", "text", "code", "log", "jsonl"]
Operation = Literal["add", "touch", "update", "close", "merge", "revert", "delete", "erase", "embed"]


def _utf8_bytes(value: str, name: str) -> int:
    try:
        return len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidScope(f"{name} is not valid Unicode text") from error


class Owner(msgspec.Struct, frozen=True):
    """Whose partition: the first part of every storage key and the list set of every search."""

    type: Literal["user", "agent", "run", "corpus"]
    id: str


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose memory it is. At least one id is set; a corpus stands alone.

    The owner is the user if given, else the agent, else the run, else the corpus. The other ids are
    attributes of each item: a search that names them sees only items that carry the same ids, a search that
    leaves them unset sees any.
    """

    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    corpus_id: str | None = None

    def __post_init__(self) -> None:
        values = (self.user_id, self.agent_id, self.run_id, self.corpus_id)
        if all(value is None for value in values):
            raise InvalidScope("a scope needs at least one of user_id, agent_id, run_id, corpus_id")
        for name, value in zip(("user_id", "agent_id", "run_id", "corpus_id"), values, strict=True):
            if value is None:
                continue
            if not isinstance(value, str):
                raise InvalidScope(f"{name} must be a string, not {type(value).__name__}")
            if not 0 < _utf8_bytes(value, name) <= 512:
                raise InvalidScope(f"{name} must be 1 to 512 bytes of UTF-8")
            if type(value) is not str:  # encoders take no other
                msgspec.structs.force_setattr(self, name, str.__str__(value))
        if self.corpus_id is not None and any(v is not None for v in values[:3]):
            raise InvalidScope("corpus_id stands alone; search several scopes with scopes=[...]")

    @property
    def owner(self) -> Owner:
        """The partition that this scope lives in."""
        if self.user_id is not None:
            return Owner("user", self.user_id)
        if self.agent_id is not None:
            return Owner("agent", self.agent_id)
        if self.run_id is not None:
            return Owner("run", self.run_id)
        assert self.corpus_id is not None
        return Owner("corpus", self.corpus_id)

    def covers(self, other: Scope) -> bool:
        """Whether an item with scope `other` is visible from this scope."""
        return (
            self.owner == other.owner
            and (self.agent_id is None or self.agent_id == other.agent_id)
            and (self.run_id is None or self.run_id == other.run_id)
        )


class MemoryItem(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered thing, in one of its versions.

    `valid_from`, `valid_to`: when it was true in the world (half-open; None is "until further notice").
    `recorded_at`, `retired_at`: when this version was what the store knew. `created_at`: when the first
    version was recorded. `touched_at`: when it was last added, repeated or changed. `model_id`: the embedding
    model of its modality when this version was recorded. `sources`: what it was derived from, ids of items
    and names of origins. `trust`: how far these are believed; below 0.5 the item is in quarantine. What is
    added with nothing but ids of items as its sources is trusted no more than the most trusted of them; one
    that was deleted counts as it last was, and an id that the store does not know counts for nothing.
    """

    id: str
    scope: Scope
    kind: str
    text: str
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] = {}
    priority: float = 0.5
    key: str | None = None
    entities: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    trust: float = 1.0
    version: int = 1
    model_id: str
    created_at: datetime
    touched_at: datetime
    expires_at: datetime | None = None
    valid_from: datetime
    valid_to: datetime | None = None
    recorded_at: datetime
    retired_at: datetime | None = None

    @property
    def quarantined(self) -> bool:
        """Whether it is believed so little that searches and listings leave it out, unless they are told
        otherwise, and that it is no value of its key to anyone but others like it."""
        return self.trust < TRUSTED


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A chat message. `at` is when it was said (default: now)."""

    role: str
    content: str
    name: str | None = None
    at: datetime | None = None


class Media(msgspec.Struct, frozen=True):
    """An image or audio on its way to a model: its bytes, or where they are. len(): bytes, 1 at least."""

    data: bytes | None = None
    uri: str | None = None

    def __len__(self) -> int:
        return max(1, len(self.data or b""))


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """What to add when a string is not enough.

    Unset fields take the call's value, then the default; metadata and sources of call and item are merged.
    `media`: the image or audio that `modality` says it is: bytes, the path of a file, or a URI; `blob` refers
    to it, by its path, URI or digest if nothing is given. Its bytes are not stored; `text` is its caption.
    """

    text: str
    scope: Scope | None = None
    kind: str | None = None
    modality: Modality = "text"
    blob: str | None = None
    metadata: dict[str, Any] | None = None
    priority: float | None = None
    key: str | None = None
    entities: Sequence[str] = ()
    sources: Sequence[str] = ()
    trust: float | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    vector: Any = None
    idempotency_key: str | None = None
    media: Any = None


class ItemUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The fields an update may change; what is UNSET stays as it is."""

    text: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    priority: float | UnsetType = UNSET
    entities: Sequence[str] | UnsetType = UNSET
    sources: Sequence[str] | UnsetType = UNSET
    trust: float | UnsetType = UNSET
    valid_from: datetime | UnsetType = UNSET
    valid_to: datetime | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    vector: Any = UNSET


class DocumentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a document. id: the item that stands for it as a whole. chunks: the ids of its chunks in
    order. How many of them were `added`, `superseded` one that stood in their place, or `moved` without a
    change of their text, and how many others were `removed`: they ended."""

    id: str
    chunks: tuple[str, ...]
    added: int
    superseded: int
    moved: int
    removed: int


class AddResult(msgspec.Struct, frozen=True):
    """What became of one added item. `replaced` is the id whose validity the new item closed.

    action: "added"; "superseded": added, and `replaced` ended, as a value of the same key; "touched": it was
    there already, as the item `id`; "merged": it words the item `id` anew and is its next version
    (`near_duplicate`); "queued" is "added" or, with `replaced`, "superseded", and its vector is made later.
    """

    id: str
    action: Action
    replaced: str | None = None
