"""Configuration: one struct, from keyword arguments or from a `warpmem.toml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from .errors import InputError
from .types import Budget, Durability, EmbedWhen, Extraction, Price
from .types.paths import keys_of
from .types.scalars import plain, plain_fields

MAX_TEXT_BYTES = 1 << 20
MAX_METADATA_BYTES = 64 << 10
MAX_DOCUMENT_BYTES = 32 << 20
VERSION = "0.1.0"
MAX_K = 4096
MAX_BATCH = 10_000
MAX_DIMENSION = 65_536
IDEMPOTENCY_DAYS = 7
MAX_DECLARED = 64
MAX_NAMES = 256

_MAX_DAYS = 36_525
_FOR_OTHERS = ("embedders", "embedder_options", "reranker_options", "language_model_options")

JOBS = ("consolidate", "embed", "import", "infer", "reembed", "reflect")
"""What is done in the background and may have a budget."""

RERANK = 50
"""Hits that `rerank=True` puts in order."""
MAX_RERANK = 1000

EmbedderName = Literal["wordllama", "hashing", "onnx", "torch", "openai", "tei", "kserve"]
RerankerName = Literal["tei", "cohere", "onnx", "judge", "overlap"]
LanguageModelName = Literal["openai", "transformers", "scripted"]


class Forgetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job "forget" deletes.

    grace_days      after which what has expired goes
    min_retention   what is worth less goes, by priority * 2 ** (-days since it was last added, repeated or
                    changed / half_life_days); None: nothing does
    max_items       of one owner that nothing below keeps: those in quarantine and what has expired go first,
                    then those of the least retention. None: any number. What "deduplicate" has ended is not
                    counted, and goes by grace_days alone
    keep_kinds      kinds that only expiry ends. Values of keys, and what current items name as a source, are
                    kept too
    """

    grace_days: float = 30.0
    min_retention: float | None = None
    half_life_days: float = 180.0
    max_items: int | None = None
    keep_kinds: tuple[str, ...] = ("summary", "profile")

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= self.grace_days <= _MAX_DAYS or not 0 < self.half_life_days <= _MAX_DAYS:
            raise InputError(f"grace_days and half_life_days must be at most {_MAX_DAYS}, the latter above 0")
        if self.min_retention is not None and not 0.0 <= self.min_retention <= 1.0:
            raise InputError("min_retention must be a number from 0 to 1")
        if self.max_items is not None and self.max_items < 1:
            raise InputError("max_items must be an integer of at least 1")


class Consolidation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job "consolidate" puts summaries in the place of.

    kinds, older_than_days
                    events of these kinds, of calendar months that ended so long ago
    min_events      of one scope in a month; fewer stay as they are
    lines_per_summary
                    different things that are said in one, on average; max_events and max_tokens (by the
                    store's token counter) at most
    outliers        share of the different things, those said once and least like any other, that have a
                    summary each, in their own words, so that they are found as well as before
    by              "extract": the events' own words, repetitions counted; "model": the language model's,
                    where a summary says several things
    """

    kinds: tuple[str, ...] = ("event", "message")
    older_than_days: float = 30.0
    min_events: int = 8
    lines_per_summary: int = 6
    outliers: float = 0.125
    max_events: int = 128
    max_tokens: int = 400
    by: Literal["extract", "model"] = "extract"

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= self.older_than_days <= _MAX_DAYS:
            raise InputError(f"older_than_days must be from 0 to {_MAX_DAYS}")
        if not 0 <= self.outliers <= 1:
            raise InputError("outliers must be a number from 0 to 1")
        for name, least, most in (
            ("min_events", 2, MAX_BATCH),
            ("lines_per_summary", 1, MAX_NAMES),
            ("max_events", 2, MAX_NAMES - 64),
            ("max_tokens", 16, 1 << 16),
        ):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} must be an integer from {least} to {most}")


class Deduplication(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of what the job "deduplicate" keeps one item.

    near            other wordings too, from the cosine on that `near_duplicate` says; without one, and with
                    False, only texts that are equal but for case, spaces and the like
    """

    near: bool = True


class Reflection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job "reflect" makes profiles of.

    kinds           what holds now of these kinds
    min_facts       of one scope, of those that are trusted most; of fewer there is no profile
    max_facts, max_tokens
                    in one at most, the latter by the store's token counter: those of the highest priority,
                    and the newest of these
    by              "extract": the facts' own words; "model": the language model's; "auto": the latter where
                    the store has one
    """

    kinds: tuple[str, ...] = ("fact", "preference")
    min_facts: int = 3
    max_facts: int = 128
    max_tokens: int = 800
    by: Literal["auto", "extract", "model"] = "auto"

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least, most in (
            ("min_facts", 1, MAX_BATCH),
            ("max_facts", 1, MAX_NAMES - 64),
            ("max_tokens", 16, 1 << 16),
        ):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} must be an integer from {least} to {most}")


class Optimisation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the job "optimise" waits for.

    changes         since it last wrote the storage anew: so many, and a tenth of the items that there are
    """

    changes: int = 10_000

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.changes < 1:
            raise InputError("changes must be an integer of at least 1")


class EmbedderChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An embedder by name, with the arguments of its class in warpmem.embed."""

    name: EmbedderName
    options: dict[str, Any] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a store can be told, apart from objects that only Python can hold.

    path            data directory; None keeps everything in memory
    durability      "sync": add returns after fsync; "os": after the write reached the operating system
    backend         "auto", "cpu", "numpy", with a CUDA device "cuda", or with an extra installed "cupy"
                    (needs a CUDA device), "numba"
    isa             instruction set of the cpu backend: "auto", "avx512", "avx2", "serial"
    device          number of the CUDA device
    vram_bytes      of its memory that each index may take, that of the texts and those of `embedders`; 0 is
                    half of what is free when it is opened
    pinned_bytes    of host memory that each index may take besides once it does not fit there: codes of what
                    has no whole place then lie on the device, and its rows in that memory. None is half of
                    what other indexes of the process leave of an eighth of what the host has available; 0
                    leaves it to the CPU
    rebuild_ms      milliseconds after which a device that failed is tried again; twice as long after each
                    failure, up to five minutes. 0 leaves that to rebuild_device()
    embedder        "wordllama", "hashing", with an extra "onnx", "torch", behind a server "openai", "tei",
                    "kserve"; None is the store's own, and "wordllama" for a new store
    embed           of texts that are added or changed: "now", before they are stored; "later", which stores
                    them at once, found by words until they have their vectors; "auto": now, and later when
                    the embedder is down, overloaded or fails
    background_work
                    what is to be done later is done by a thread of the process that has the store open for
                    writing; False leaves it to embed_pending()
    embedder_options
                    the arguments of its class in warpmem.embed, like url and model
    embedders       by modality ("code", "log", "image", "audio"), an embedder's name and options of its own:
                    items of that modality have their vectors in a space of theirs. Others go to the texts
    reranker        orders hits anew for searches that ask for it: behind a server "tei", "cohere", with an
                    extra "onnx", by the language model "judge", for tests "overlap"; made at first use
    language_model  behind a server "openai", with an extra "transformers", for tests "scripted"; made at
                    first use
    reranker_options, language_model_options
                    the arguments of their classes in warpmem.reason
    mode            of searches by text that name neither a mode nor weights of one: "hybrid", "dense",
                    "lexical"
    degrade         answer a search by less where a model has too much to do or the deadline is near, and say
                    so in `degraded`: without its reranker, and a hybrid one without vectors or without words;
                    pick sentences for a context without a model that has, or fails; False: that is an
                    error instead
    tokenizer       what counts the tokens of context(): the path of a tokenizer.json or of its directory,
                    "estimate"; None is the embedder's own where it has one, else the estimate
    read_only       refuse every write, and show the state at opening
    follow          refuse every write, and show what another process writes, as it is written
    follow_ms       milliseconds after which a store that follows looks again; 0 leaves that to refresh()
    migrate         bring a store of an older format up to date when it is opened for writing; else refuse it
    migration_backup
                    directory for the copy that is made of it first; None: `<path>.format-<number>` beside it
    prices          of models, by model id: per_million_tokens, per_device_second
    cost_days       days for which the store keeps what was spent by owners; 0 keeps it in memory alone
    owner_budget    money, device_seconds: work in the background (imports, re-embedding) for an owner who
                    has spent so much in a day of UTC is Overloaded until it is over; jobs go on to others
    owner_limit     the same for everything that needs a model, searches and adds too
    job_budgets     the same by job, of all owners together: "consolidate", "embed", "import", "infer",
                    "reembed", "reflect"
    tracing         "otel": spans by OpenTelemetry (extra "otel") for searches, adds and their parts, with
                    sizes and never a text; the program sets up the tracer provider
    index_bytes     of host memory that each index may take, that of the texts and those of `embedders`:
                    beyond it owners that were asked for longest ago are forgotten, and read from the log
                    at their next search. Pages of a saved index, which the system takes back by itself, do
                    not count, and what one search needs stays. 0: no bound
    item_cache      decoded items kept in memory
    embedding_cache_bytes
                    for vectors of texts that were searched for or stored, kept in memory; 0 keeps none
    write_queue     changes that may wait for the committer before writers block
    write_queue_bytes  bytes of texts and vectors that may, beside one change that is larger
    write_wait_ms   milliseconds that a change may wait for its turn: DeadlineExceeded then, with nothing
                    changed; 0 for as long as it takes
    message_days    after which messages that memories were made of (`add(infer=...)`) expire, where their
                    call does not say; what was made of them stays. 0: they are kept
    extraction      what a language model is to remember of messages, see Extraction; those that wait are read
                    by what the store is opened with when they are
    near_duplicate  cosine from which an added text may be another wording of a stored one, in whose place it
                    then comes; it must also name the same names and numbers (policy/similar.py). None, the
                    default: only equal texts are duplicates
    min_free_bytes  refuse writes, and save no index, when the data directory's disk has less than this free
    memtable_bytes  RocksDB write buffer per column family
    checkpoint_rows close() saves the index once so many of its rows, and a tenth of all, have changed since
                    it was last saved; 0 leaves that to checkpoint()
    deduplication, consolidation, forgetting, reflection, optimisation
                    what run_jobs() does by itself, in this order, and how; None: it does not
    jobs_minutes    after which a thread of the process that writes runs these jobs again; 0: none does
    columns         metadata keys ("year", "a.b", '"http.status"') that searches filter by, and the type of
                    their values; the scan tests them itself. Other types are allowed. May differ from open to
                    open
    """

    path: str | None = None
    durability: Durability = "sync"
    backend: Literal["auto", "cuda", "cpu", "cupy", "numba", "numpy"] = "auto"
    isa: Literal["auto", "avx512", "avx2", "serial"] = "auto"
    device: int = 0
    vram_bytes: int = 0
    pinned_bytes: int | None = None
    rebuild_ms: int = 1000
    embedder: EmbedderName | None = None
    embedder_options: dict[str, Any] = {}
    embedders: dict[Literal["code", "log", "image", "audio"], EmbedderChoice] = {}
    embed: EmbedWhen = "now"
    background_work: bool = True
    reranker: RerankerName | None = None
    reranker_options: dict[str, Any] = {}
    language_model: LanguageModelName | None = None
    language_model_options: dict[str, Any] = {}
    mode: Literal["dense", "lexical", "hybrid"] = "hybrid"
    degrade: bool = True
    tokenizer: str | None = None
    read_only: bool = False
    migrate: bool = True
    migration_backup: str | None = None
    follow: bool = False
    follow_ms: int = 100
    prices: dict[str, Price] = {}
    cost_days: int = 400
    owner_budget: Budget = Budget()
    owner_limit: Budget = Budget()
    job_budgets: dict[str, Budget] = {}
    tracing: Literal["otel"] | None = None
    index_bytes: int = 0
    item_cache: int = 65_536
    embedding_cache_bytes: int = 32 << 20
    write_queue: int = 4_096
    write_queue_bytes: int = 64 << 20
    write_wait_ms: int = 0
    message_days: int = 0
    extraction: Extraction = Extraction()
    near_duplicate: float | None = None
    min_free_bytes: int = 64 << 20
    memtable_bytes: int = 16 << 20
    checkpoint_rows: int = 20_000
    deduplication: Deduplication | None = None
    consolidation: Consolidation | None = None
    forgetting: Forgetting | None = None
    reflection: Reflection | None = None
    optimisation: Optimisation | None = None
    jobs_minutes: int = 0
    columns: dict[str, Literal["boolean", "number", "string"]] = {}

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, least in (
            ("index_bytes", 0),
            ("item_cache", 1),
            ("embedding_cache_bytes", 0),
            ("write_queue", 1),
            ("write_queue_bytes", 1),
            ("write_wait_ms", 0),
            ("memtable_bytes", 1),
            ("min_free_bytes", 0),
            ("checkpoint_rows", 0),
            ("device", 0),
            ("follow_ms", 0),
            ("jobs_minutes", 0),
            ("message_days", 0),
            ("vram_bytes", 0),
            ("pinned_bytes", 0),
            ("rebuild_ms", 0),
            ("cost_days", 0),
        ):
            value = getattr(self, name)
            if value is None and name == "pinned_bytes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
                raise InputError(f"{name} must be an integer of at least {least}")
        if self.near_duplicate is not None and not 0.0 < self.near_duplicate <= 1.0:
            raise InputError("near_duplicate is a cosine: a number above 0 and up to 1, or None")
        if self.follow and self.path is None:
            raise InputError("follow needs a path: a store in memory has no other process that writes it")
        for model, words in (
            ("embedder", "an embedder"),
            ("reranker", "a reranker"),
            ("language_model", "a language model"),
        ):
            if getattr(self, f"{model}_options") and getattr(self, model) is None:
                raise InputError(f"{model}_options need {words} by name")
        unknown = sorted(set(self.job_budgets) - set(JOBS))
        if unknown:
            raise InputError(f"job_budgets: {unknown[0]!r} is no job in the background, of {', '.join(JOBS)}")
        if len(self.columns) > MAX_DECLARED or None in map(keys_of, self.columns):
            raise InputError(
                f"columns must be at most {MAX_DECLARED} paths of metadata keys, like 'a' or 'a.b', or "
                "'\"a.b\"' for a key that holds a period"
            )


def make_config(values: dict[str, Any]) -> Config:
    """A checked Config from plain values. InputError names the field that is wrong."""
    for name in ("path", "tokenizer", "migration_backup"):
        if isinstance(values.get(name), os.PathLike):
            values = {**values, name: os.fspath(values[name])}
    values = {name: value if name in _FOR_OTHERS else _plain(value, 2) for name, value in values.items()}
    if "\0" in str(values.get("path")):
        raise InputError("configuration: path holds a NUL character")
    try:
        return msgspec.convert(values, Config)
    except ValueError as error:  # ValidationError is one, and so is text that is not Unicode
        raise InputError(f"configuration: {error}") from error


def _plain(value: Any, depth: int) -> Any:
    """A number of NumPy as Python's own, and so the numbers of a table, and of tables in it."""
    if depth and isinstance(value, Mapping):
        return {name: _plain(inner, depth - 1) for name, inner in value.items()}
    return plain(value)


def load_config(file: str | os.PathLike[str]) -> Config:
    """Read a TOML file with the fields of Config, at top level or under [warpmem]."""
    if not isinstance(file, (str, os.PathLike)):
        raise InputError(f"config must be a Config or the path of a TOML file, not {type(file).__name__}")
    try:
        values = msgspec.toml.decode(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"configuration file {os.fspath(file)!r}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"configuration file {os.fspath(file)!r}: expected a table")
    section = values.get("warpmem", values)
    return make_config(section if isinstance(section, dict) else {"warpmem": section})
