"""Every seam of warpmem, with its contract. Implementations live in the folders named here.

    Clock           ops/clock.py
    Embedder        embed/            TokenCounter    reason/
    MediaEmbedder   embed/openai.py
    LanguageModel   reason/           Reranker        reason/
    Engine          storage/rocks.py, storage/memory.py      (bytes)
    Log             storage/log.py                           (records)
    Transaction     storage/transaction.py
    VectorBuild     storage/vector_build.py
    Erasures        storage/erasure.py
    WorkQueue       storage/work.py
    RowPool, SearchBackend            index/cpu.py, index/numpy_ref.py, index/ivf_pool.py
    Index           index/partitions.py
    EntityNames     index/seen_names.py
    Tracer, Span    ops/otel.py
    Writer          ops/writer_link.py

models.py, engine.py, storage.py, work.py, writer.py, search.py and tracing.py hold the contracts; the values
that cross them are in records.py.
"""

from __future__ import annotations

from .engine import Engine
from .models import Clock, Embedder, LanguageModel, MediaEmbedder, Reranker, TokenCounter
from .search import EntityNames, FileBackend, Index, RowPool, SearchBackend
from .storage import Erasures, Log, Transaction, VectorBuild
from .tracing import Span, Tracer
from .work import WorkQueue
from .writer import Writer

__all__ = [
    "Clock",
    "Embedder",
    "Engine",
    "EntityNames",
    "Erasures",
    "FileBackend",
    "Index",
    "LanguageModel",
    "Log",
    "MediaEmbedder",
    "Reranker",
    "RowPool",
    "SearchBackend",
    "Span",
    "TokenCounter",
    "Tracer",
    "Transaction",
    "VectorBuild",
    "WorkQueue",
    "Writer",
]
