"""Configuration: one struct, from keyword arguments or from a `warpmem.toml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from .errors import InputError
from .types import Durability

MAX_TEXT_BYTES = 1 << 20
MAX_METADATA_BYTES = 64 << 10
MAX_DOCUMENT_BYTES = 32 << 20
MAX_K = 4096
MAX_BATCH = 10_000
MAX_DIMENSION = 65_536
IDEMPOTENCY_DAYS = 7
MAX_DECLARED = 64
MAX_NAMES = 256

RERANK = 50
"""Hits that `rerank=True` puts in order."""
MAX_RERANK = 1000

EmbedderName = Literal["wordllama", "hashing", "onnx", "torch", "openai", "tei", "kserve"]
RerankerName = Literal["tei", "cohere", "onnx", "judge", "overlap"]
LanguageModelName = Literal["openai", "transformers", "scripted"]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a store can be told, apart from objects that only Python can hold.

    path            data directory; None keeps everything in memory
    durability      "sync": add returns after fsync; "os": after the write reached the operating system
    backend         "auto", "cpu", "numpy", with a CUDA device "cuda", or with an extra installed "cupy"
                    (needs a CUDA device), "numba"
    isa             instruction set of the cpu backend: "auto", "avx512", "avx2", "serial"
    device          number of the CUDA device
    vram_bytes      of its memory the index may take; 0 is half of what is free at opening
    embedder        "wordllama", "hashing", with an extra "onnx", "torch", behind a server "openai", "tei",
                    "kserve"; None is the store's own, and "wordllama" for a new store
    embedder_options
                    the arguments of its class in warpmem.embed, like url and model
    reranker        orders hits anew for searches that ask for it: behind a server "tei", "cohere", with an
                    extra "onnx", by the language model "judge", for tests "overlap"; made at first use
    language_model  behind a server "openai", with an extra "transformers", for tests "scripted"; made at
                    first use
    reranker_options, language_model_options
                    the arguments of their classes in warpmem.reason
    mode            of searches that name neither a mode nor a ranking and give a text alone: "dense",
                    "lexical", "hybrid"
    degrade         answer a search by less where a model has too much to do or the deadline is near, and say
                    so in `degraded`: without its reranker, and a hybrid one without vectors or without words;
                    False: Overloaded and DeadlineExceeded instead
    tokenizer       what counts the tokens of context(): the path of a tokenizer.json or of its directory,
                    "estimate"; None is the embedder's own where it has one, else the estimate
    read_only       refuse every write, and show the state at opening
    follow          refuse every write, and show what another process writes, as it is written
    follow_ms       milliseconds after which a store that follows looks again; 0 leaves that to refresh()
    migrate         bring a store of an older format up to date when it is opened for writing; else refuse it
    migration_backup
                    directory for the copy that is made of it first; None: `<path>.format-<number>` beside it
    item_cache      decoded items kept in memory
    embedding_cache_bytes
                    for vectors of texts that were searched for or stored, kept in memory; 0 keeps none
    write_queue     changes that may wait for the committer before writers block
    write_queue_bytes  bytes of texts and vectors that may, beside one change that is larger
    write_wait_ms   milliseconds that a change may wait for its turn: DeadlineExceeded then, with nothing
                    changed; 0 for as long as it takes
    near_duplicate  cosine from which an added text may be another wording of a stored one, in whose place it
                    then comes; it must also name the same names and numbers (policy/similar.py). None, the
                    default: only equal texts are duplicates
    min_free_bytes  refuse writes when the data directory's disk has less than this free
    memtable_bytes  RocksDB write buffer per column family
    checkpoint_rows close() saves the index once so many of its rows, and a tenth of all, have changed since
                    it was last saved; 0 leaves that to checkpoint()
    columns         metadata keys ("year", "a.b") that searches filter by, and the type of their values; the
                    scan tests them itself. Other types are allowed. May differ from open to open
    """

    path: str | None = None
    durability: Durability = "sync"
    backend: Literal["auto", "cuda", "cpu", "cupy", "numba", "numpy"] = "auto"
    isa: Literal["auto", "avx512", "avx2", "serial"] = "auto"
    device: int = 0
    vram_bytes: int = 0
    embedder: EmbedderName | None = None
    embedder_options: dict[str, Any] = {}
    reranker: RerankerName | None = None
    reranker_options: dict[str, Any] = {}
    language_model: LanguageModelName | None = None
    language_model_options: dict[str, Any] = {}
    mode: Literal["dense", "lexical", "hybrid"] = "dense"
    degrade: bool = True
    tokenizer: str | None = None
    read_only: bool = False
    migrate: bool = True
    migration_backup: str | None = None
    follow: bool = False
    follow_ms: int = 100
    item_cache: int = 65_536
    embedding_cache_bytes: int = 32 << 20
    write_queue: int = 4_096
    write_queue_bytes: int = 64 << 20
    write_wait_ms: int = 0
    near_duplicate: float | None = None
    min_free_bytes: int = 64 << 20
    memtable_bytes: int = 16 << 20
    checkpoint_rows: int = 20_000
    columns: dict[str, Literal["boolean", "number", "string"]] = {}

    def __post_init__(self) -> None:
        for name, least in (
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
            ("vram_bytes", 0),
        ):
            value = getattr(self, name)
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
        if len(self.columns) > MAX_DECLARED or not all(all(name.split(".")) for name in self.columns):
            raise InputError(
                f"columns must be at most {MAX_DECLARED} paths of metadata keys, like 'a' or 'a.b'"
            )


def make_config(values: dict[str, Any]) -> Config:
    """A checked Config from plain values. InputError names the field that is wrong."""
    if isinstance(values.get("path"), os.PathLike):
        values = {**values, "path": os.fspath(values["path"])}
    if "\0" in str(values.get("path")):
        raise InputError("configuration: path holds a NUL character")
    try:
        return msgspec.convert(values, Config)
    except ValueError as error:  # ValidationError is one, and so is text that is not Unicode
        raise InputError(f"configuration: {error}") from error


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
