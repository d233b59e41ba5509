"""Reads a configuration and builds a Memory: the only file that names concrete parts, but for the search
backends, which index/backends.py names."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Unpack

import msgspec

from .config import VERSION, Config, EmbedderName, LanguageModelName, RerankerName, load_config, make_config
from .embed.callable import CallableEmbedder
from .embed.given import GivenVectors
from .embed.hashing import HashingEmbedder
from .embed.modalities import check_embedders, make_embedders
from .embed.named import make_embedder
from .embed.wordllama import WordLlamaEmbedder
from .errors import InputError, ModelMismatch
from .index.backends import backends as backends
from .index.backends import choose
from .index.checkpoint import IndexCheckpoint
from .index.checkpoint_file import CheckpointFile
from .index.clustering import cluster_by
from .index.cpu import CpuBackend
from .index.cuda_backend import CudaBackend
from .index.device_options import DeviceOptions
from .index.owner_names import NameSource
from .index.owner_words import TextSource
from .index.partitions import PartitionedIndex
from .ingest.names import tokens
from .ingest.words import words
from .jobs.runner import Jobs
from .jobs.tools import Tools
from .memory import Memory
from .memory.cache import entities_of
from .memory.options import ConfigOptions
from .memory.reasoning import Later, Reasoning
from .memory.serving import Current, Parts
from .ops import events
from .ops.clock import SystemClock
from .ops.otel import OpenTelemetryTracer
from .ops.progress import Progress, Report
from .ops.writer_link import WriterLink
from .policy.schema import compile_schemas
from .protocols import (
    Clock,
    Embedder,
    Engine,
    LanguageModel,
    Log,
    MediaEmbedder,
    Reranker,
    SearchBackend,
    TokenCounter,
    Tracer,
)
from .reason.named import make_language_model, make_reranker
from .reason.tokens import EstimateTokenCounter, TokenizerCounter, tokenizer_file
from .records import RowBlock, Space, StoreIdentity
from .storage.directory import INDEX_NAME, absolute
from .storage.follow import FollowingLog
from .storage.identity import read_identity
from .storage.log import StoreLog, open_log
from .storage.memory import MemoryEngine
from .storage.migrate import open_for_writing
from .storage.rocks import RocksEngine
from .storage.rocks_follow import FollowingEngine
from .types import Modality


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    embedder: Embedder | Callable[[Sequence[str]], Any] | EmbedderName | None = None,
    embedders: Mapping[Modality, Embedder | MediaEmbedder | EmbedderName | Mapping[str, Any]] | None = None,
    dimension: int | None = None,
    model_id: str | None = None,
    reranker: Reranker | RerankerName | None = None,
    language_model: LanguageModel | LanguageModelName | None = None,
    schemas: Mapping[str, Any] | None = None,
    token_counter: TokenCounter | None = None,
    clock: Clock | None = None,
    config: Config | str | os.PathLike[str] | None = None,
    progress: Report | None = None,
    **options: Unpack[ConfigOptions],
) -> Memory:
    """Open the store at `path`, creating it when it does not exist; None keeps it in memory.

    embedder: "wordllama" (default: embedded, offline), another of Config's names (with embedder_options), an
    Embedder, or a function from texts to an
    (n, d) array (then `dimension` and `model_id` are needed). `dimension` alone makes a store whose vectors
    all come with `vector=`. An existing store is opened with its own model when none is named. embedders: by
    modality, "text" (the same as embedder=), "code", "log", "image" or "audio": an object, a name, or
    {"name": ..., "options": {...}}; images and audio need a MediaEmbedder. The store remembers their models
    once it has such items. reranker,
    language_model: objects, or names as Config has them (with reranker_options, language_model_options); the
    store makes them when it first needs them. schemas: kind -> JSON Schema (subset, policy/schema.py) or
    msgspec type for the metadata of that kind. token_counter: instead of Config's `tokenizer`. config: a
    Config or a TOML file; `options` are fields of Config and win over it. progress: called as progress(task,
    done, total) twice a second while opening, or the first search of an owner, takes long; total may be None.
    It must not use the store; what it raises ends the call.

    Raises InputError, ModelMismatch, StoreLocked, StoreCorrupt, FormatError, StoreReadOnly, DiskFull,
    BackendUnavailable; StoreError for writing in a fork of a process that had opened a store.
    """
    others = dict({} if embedders is None else check_embedders(embedders))
    if "text" in others:
        if embedder is not None:
            raise InputError("give embedder= or embedders={'text': ...}, not both")
        embedder = others.pop("text")
    models = {"embedder": embedder, "reranker": reranker, "language_model": language_model}
    settings = _settings(path, config, models, options)
    model = None if isinstance(embedder, str) else embedder
    if progress is not None and not callable(progress):
        raise InputError(f"progress must be a function, not {type(progress).__name__}")
    if clock is not None and not callable(getattr(clock, "now", None)):
        raise InputError(f"clock must have a method now(), not be {type(clock).__name__}")
    if token_counter is not None and not callable(getattr(token_counter, "count", None)):
        raise InputError(f"token_counter must have a method count(), not be {type(token_counter).__name__}")
    reasoning = _make_reasoning(settings, reranker, language_model)
    counter = token_counter or _make_counter(settings)
    made = make_embedders({**_by_modality(settings), **others})
    compiled = compile_schemas({} if schemas is None else schemas)
    compiled.check_empty(settings.extraction.kinds)
    tracer = _make_tracer(settings)
    backend, reason = make_backend(settings)
    engine = _make_engine(settings)
    try:
        chosen = _choose_embedder(settings, model, dimension, model_id, read_identity(engine))
        log = open_log(
            engine,
            clock or SystemClock(),
            model_id=chosen.model_id,
            dimension=chosen.dimension,
            durability=settings.durability,
            max_queue=settings.write_queue,
            max_queue_bytes=settings.write_queue_bytes,
            timeout=settings.write_wait_ms / 1000 or None,
            read_only=settings.read_only or settings.follow,
            kind=FollowingLog if settings.follow else StoreLog,
        )
        counter = counter or _counter_of(chosen)
        parts = Parts(
            _other_embedder,
            functools.partial(_make_index, settings, backend, log, progress),
            functools.partial(_make_jobs, settings, backend, log, counter, reasoning),
            made,
            functools.partial(_make_space_index, settings, backend, log, progress),
        )
        writer = None
        if isinstance(log, FollowingLog) and settings.path is not None:
            writer = WriterLink(settings.path, VERSION, log.owe)
        memory = Memory(
            settings, log, parts, backend, chosen, counter, compiled, reason, reasoning, tracer, writer
        )
        if isinstance(log, FollowingLog):
            log.start(settings.follow_ms / 1000, metadata=bool(settings.columns))
        events.tell(
            events.INFO, "opened", path=settings.path, model_id=chosen.model_id, dimension=chosen.dimension,
            backend=backend.name, read_only=log.read_only, **log.totals(),
        )  # fmt: skip
        return memory
    except BaseException:
        engine.close()
        raise


def _by_modality(settings: Config) -> dict[str, Any]:
    return {str(modality): choice for modality, choice in settings.embedders.items()}


def _settings(
    path: str | os.PathLike[str] | None,
    config: Config | str | os.PathLike[str] | None,
    models: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Config:
    base = Config() if config is None else config if isinstance(config, Config) else load_config(config)
    given = dict(options)
    if path is not None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"path must be a path or None, not {type(path).__name__}")
        given["path"] = os.fspath(path)
    for kind, model in models.items():
        if isinstance(model, str):
            given[kind] = model
            if model != getattr(base, kind):  # the file's options are for the model that it names
                given.setdefault(f"{kind}_options", {})
    settings = make_config({**msgspec.structs.asdict(base), **given})
    if settings.path is None:
        return settings
    # Whoever changes the working directory later goes on with the same store, and so do the files beside it.
    return msgspec.structs.replace(settings, path=absolute(settings.path))


def make_backend(settings: Config) -> tuple[SearchBackend, str]:
    """(backend, why it was chosen). Raises BackendUnavailable."""
    device = DeviceOptions(
        settings.device, settings.vram_bytes or None, settings.pinned_bytes, settings.rebuild_ms
    )
    return choose(settings.backend, settings.isa, device)


def _make_index(
    settings: Config, backend: SearchBackend, log: Log, progress: Report | None, identity: StoreIdentity
) -> PartitionedIndex:
    return PartitionedIndex(
        backend,
        identity.dimension,
        functools.partial(log.rows, identity=identity, metadata=bool(settings.columns)),
        _make_checkpoint(settings, backend, log, progress, identity),
        settings.columns,
        lambda owner: Progress(progress, "rows loaded", log.owner_items(owner)),
        TextSource(log.texts, words),
        naming=NameSource(functools.partial(entities_of, log), tokens),
        budget=settings.index_bytes,
        items=log.owner_items,
    )


def _make_jobs(
    settings: Config,
    backend: SearchBackend,
    log: Log,
    counter: TokenCounter,
    reasoning: Reasoning,
    current: Current,
) -> Jobs:
    tools = Tools(log, current, counter, reasoning.language_model, threading.RLock(), cluster_by(backend))
    return Jobs(tools, settings)


def _make_space_index(
    settings: Config, backend: SearchBackend, log: Log, progress: Report | None, space: Space
) -> PartitionedIndex:
    def load(owner: int) -> Iterator[RowBlock]:
        # Of the family that is in use now: these rows move along when the texts get another model.
        return log.rows(owner, log.identity, metadata=bool(settings.columns), space=space)

    return PartitionedIndex(
        backend,
        space.dimension,
        load,
        None,
        settings.columns,
        lambda owner: Progress(progress, "rows loaded", None),
        TextSource(log.texts, words),
        space=space.number,
        naming=NameSource(functools.partial(entities_of, log), tokens),
        budget=settings.index_bytes,
        items=log.owner_items,
    )


def _make_checkpoint(
    settings: Config, backend: SearchBackend, log: Log, progress: Report | None, identity: StoreIdentity
) -> CheckpointFile | None:
    if settings.path is None:
        return None
    path = os.path.join(settings.path, INDEX_NAME)
    if not isinstance(backend, (CpuBackend, CudaBackend)):
        return CheckpointFile(path, log)
    return IndexCheckpoint(backend, path, log, identity, settings.columns, progress)


def _make_engine(settings: Config) -> Engine:
    if settings.path is None:
        return MemoryEngine()
    if settings.follow:
        return FollowingEngine(settings.path, memtable_bytes=settings.memtable_bytes)
    options: dict[str, Any] = {
        "memtable_bytes": settings.memtable_bytes,
        "min_free_bytes": settings.min_free_bytes,
    }
    if settings.read_only:
        return RocksEngine(settings.path, read_only=True, **options)
    return open_for_writing(
        settings.path, migrate=settings.migrate, backup=settings.migration_backup, **options
    )


def _choose_embedder(
    settings: Config,
    model: Embedder | Callable[[Sequence[str]], Any] | None,
    dimension: int | None,
    model_id: str | None,
    identity: StoreIdentity | None,
) -> Embedder:
    if model is not None:
        if isinstance(model, type):
            raise InputError(f"embedder is the class {model.__name__}; pass an instance of it")
        if isinstance(model, Embedder):
            if dimension is not None or model_id is not None:
                raise InputError("an Embedder has its own dimension and model_id; do not pass them")
            return model
        if not callable(model):
            raise InputError(
                f"embedder must be a name, an Embedder or a function, not {type(model).__name__}"
            )
        if dimension is None or model_id is None:
            raise InputError(
                "a function as embedder needs dimension= and model_id=, which name its vectors for good"
            )
        return CallableEmbedder(model, model_id, dimension)
    if settings.embedder is not None:
        if dimension is not None or model_id is not None:
            raise InputError("dimension= and model_id= are for vectors of your own, or for a function")
        return make_embedder(settings.embedder, settings.embedder_options)
    if dimension is not None:
        return GivenVectors(dimension, model_id)
    if model_id is not None:
        raise InputError("model_id= names the vectors of a function or of dimension=")
    if identity is None:
        return WordLlamaEmbedder()
    for make in (HashingEmbedder, WordLlamaEmbedder):
        candidate: Embedder = make()
        if candidate.model_id == identity.model_id:
            return candidate
    given = GivenVectors(identity.dimension, identity.model_id)
    if settings.read_only or settings.follow or given.model_id == GivenVectors(identity.dimension).model_id:
        return given
    raise ModelMismatch(
        f"the store holds vectors of {identity.model_id!r} ({identity.dimension} dimensions), not a built-in "
        "model; pass that model as embedder=, or dimension= and model_id= to bring vectors yourself, or to "
        "call reembed() with another model"
    )


def _other_embedder(embedder: Any, dimension: int | None, model_id: str | None) -> Embedder:
    """The embedder that reembed() was given. Raises InputError."""
    name = embedder if isinstance(embedder, str) else None
    if embedder is None and dimension is None:
        raise InputError("reembed needs the new embedder, or dimension= for vectors that given= returns")
    settings = make_config({} if name is None else {"embedder": name})
    return _choose_embedder(settings, None if name else embedder, dimension, model_id, None)


def _make_reasoning(settings: Config, reranker: Any, language_model: Any) -> Reasoning:
    """How the store gets its language model and its reranker. Raises InputError for objects that are none."""
    for kind, name, model in (
        (LanguageModel, "language_model", language_model),
        (Reranker, "reranker", reranker),
    ):
        if isinstance(model, type) or not (model is None or isinstance(model, (str, kind))):
            shown = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
            raise InputError(f"{name} must be a name or a {kind.__name__}, not {shown}")

    def make_model() -> LanguageModel:
        if isinstance(language_model, LanguageModel):
            return language_model
        if settings.language_model is None:
            raise InputError("this store has no language model: pass language_model= to open() or name one")
        return make_language_model(settings.language_model, settings.language_model_options)

    def make_ranker() -> Reranker:
        if isinstance(reranker, Reranker):
            return reranker
        if settings.reranker is None:
            raise InputError("this store has no reranker: pass reranker= to open() or name one")
        return make_reranker(settings.reranker, settings.reranker_options, model)

    model = Later(make_model)
    has_model = settings.language_model is not None or isinstance(language_model, LanguageModel)
    return Reasoning(model, Later(make_ranker), has_model)


def _make_tracer(settings: Config) -> Tracer | None:
    return OpenTelemetryTracer() if settings.tracing == "otel" else None


def _make_counter(settings: Config) -> TokenCounter | None:
    if settings.tokenizer is None:
        return None
    if settings.tokenizer == "estimate":
        return EstimateTokenCounter()
    return TokenizerCounter(tokenizer_file(settings.tokenizer))


def _counter_of(embedder: Embedder) -> TokenCounter:
    if isinstance(embedder, WordLlamaEmbedder):
        return TokenizerCounter(embedder.tokenizer_path(), "llama-2")
    return EstimateTokenCounter()
