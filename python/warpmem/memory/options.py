"""Keywords by name and type, for signatures that pass them on or return by what they are given.

`add`, `search`, `open` and `Config` explain them, and tests/architecture/test_typing.py compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from ..config import (
    Config,
    Consolidation,
    Deduplication,
    EmbedderName,
    Forgetting,
    LanguageModelName,
    Optimisation,
    Reflection,
    RerankerName,
)
from ..ops.progress import Report
from ..protocols import Clock, Embedder, LanguageModel, MediaEmbedder, Reranker, TokenCounter
from ..types import (
    Budget,
    Durability,
    EmbedWhen,
    Extraction,
    Message,
    Modality,
    NewEntity,
    NewItem,
    NewRelation,
    Price,
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


class ConfigOptions(TypedDict, total=False):
    """Fields of Config as `open` takes them: a table may also be a dict, and a path a Path. Those that `open`
    has parameters of its own for are not among them."""

    durability: Durability
    backend: Literal["auto", "cuda", "cpu", "cupy", "numba", "numpy"]
    isa: Literal["auto", "avx512", "avx2", "serial"]
    device: int
    vram_bytes: int
    pinned_bytes: int | None
    rebuild_ms: int
    embedder_options: Mapping[str, Any]
    extraction: Extraction | Mapping[str, Any]
    embed: EmbedWhen
    background_work: bool
    reranker_options: Mapping[str, Any]
    language_model_options: Mapping[str, Any]
    mode: Literal["dense", "lexical", "hybrid"]
    degrade: bool
    tokenizer: str | os.PathLike[str] | None
    read_only: bool
    migrate: bool
    migration_backup: str | os.PathLike[str] | None
    follow: bool
    follow_ms: int
    prices: Mapping[str, Price | Mapping[str, Any]]
    cost_days: int
    owner_budget: Budget | Mapping[str, Any]
    owner_limit: Budget | Mapping[str, Any]
    job_budgets: Mapping[str, Budget | Mapping[str, Any]]
    tracing: Literal["otel"] | None
    index_bytes: int
    item_cache: int
    embedding_cache_bytes: int
    write_queue: int
    write_queue_bytes: int
    write_wait_ms: int
    message_days: int
    near_duplicate: float | None
    min_free_bytes: int
    memtable_bytes: int
    checkpoint_rows: int
    deduplication: Deduplication | Mapping[str, Any] | None
    consolidation: Consolidation | Mapping[str, Any] | None
    forgetting: Forgetting | Mapping[str, Any] | None
    reflection: Reflection | Mapping[str, Any] | None
    optimisation: Optimisation | Mapping[str, Any] | None
    jobs_minutes: int
    columns: Mapping[str, Literal["boolean", "number", "string"]]


class OpenOptions(ConfigOptions, total=False):
    """Keywords of `open`, all of them."""

    embedder: Embedder | Callable[[Sequence[str]], Any] | EmbedderName | None
    embedders: Mapping[Modality, Embedder | MediaEmbedder | EmbedderName | Mapping[str, Any]] | None
    dimension: int | None
    model_id: str | None
    reranker: Reranker | RerankerName | None
    language_model: LanguageModel | LanguageModelName | None
    schemas: Mapping[str, Any] | None
    token_counter: TokenCounter | None
    clock: Clock | None
    config: Config | str | os.PathLike[str] | None
    progress: Report | None
