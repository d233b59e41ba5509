"""Keywords by name and type, for signatures that pass them on or return by what they are given.

`add` and `search` explain them, and tests/architecture/test_typing.py compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from ..protocols import Reranker
from ..types import (
    Durability,
    EmbedWhen,
    Message,
    NewEntity,
    NewItem,
    NewRelation,
    Ranking,
    Scope,
    ScopeWeight,
)

One = str | Message | Mapping[str, Any] | NewItem | NewEntity | NewRelation
"""What `add` takes for one item."""

Several = list[Any] | tuple[Any, ...]
"""And for several, each of them One: a list of strings is no list of One."""


class AddOptions(TypedDict, total=False):
    """Keywords of Memory.add."""

    image: Any
    audio: Any
    code: str | None
    log: str | None
    blob: str | None
    user_id: str | None
    agent_id: str | None
    run_id: str | None
    corpus_id: str | None
    scope: Scope | None
    kind: str | None
    metadata: dict[str, Any] | None
    priority: float | None
    key: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    expires_at: datetime | None
    vector: Any
    entities: Sequence[str]
    sources: Sequence[str]
    trust: float | None
    idempotency_key: str | None
    infer: Literal["none", "rules", "llm"]
    wait: bool
    durability: Durability | None
    embed: EmbedWhen | None


class SearchOptions(TypedDict, total=False):
    """Keywords of Memory.search, but for `k`, which has another default where they are passed on."""

    user_id: str | None
    agent_id: str | None
    run_id: str | None
    corpus_id: str | None
    scope: Scope | None
    scopes: Sequence[Scope | ScopeWeight] | None
    filters: Mapping[str, Any] | None
    kinds: Sequence[str] | None
    ranking: Ranking | None
    min_similarity: float | None
    as_of: datetime | None
    known_at: datetime | None
    during: tuple[datetime | None, datetime | None] | None
    mode: Literal["dense", "lexical", "hybrid"] | None
    rerank: bool | int | Reranker | None
    vector: Any
    image: Any
    audio: Any
    now: datetime | None
    deadline: float | timedelta | None
    explain: bool
    return_vectors: Literal["numpy", "dlpack"] | None
    quarantined: bool
