"""Every exception warpmem raises, as one tree.

    WarpmemError
      InputError (ValueError)            an argument is wrong; nothing was stored
        InvalidScope                     no scope, or a scope that mixes a corpus with other ids
        InvalidText                      empty, too long, or without a single token
        InvalidVector                    wrong dimension, dtype or shape; NaN, inf, or all zero
        InvalidMetadata                  not JSON, or too large
        InvalidTime                      naive datetime, or an interval that ends before it begins
        InvalidFilter                    unknown operator or field, wrong operand; `.path` says where
        SchemaViolation                  metadata breaks the schema of its kind; `.path` says where
        NotSupported                     a documented option that this build cannot serve
      NotFound (LookupError)             no such item in that scope
      Conflict
        VersionConflict                  `expected_version` is not the current one
        IdempotencyConflict              the idempotency key was used with another payload
      StoreError                         the data directory
        StoreLocked                      another process holds it; `.pid` where known
        StoreCorrupt                     a checksum, a sequence number or RocksDB itself says so
        IndexCorrupt                     an index file is not what was written; names the file and the part
        StoreReadOnly                    opened read-only, or stopped by an earlier failed write
          WriterUnavailable              a follower reached no process that writes; `.sent`
        StoreClosed                      used after close()
        DiskFull                         a write lacks space; `.needed` and `.free` bytes, where known
        FormatError                      written by a newer warpmem, or not a warpmem store or index
        ModelMismatch                    the store's vectors come from another model
      BackendUnavailable                 a named search backend cannot run here; says what to install
      MissingDependency (ImportError)    an optional package is absent; says what to install
      ModelError                         an embedder, reranker or language model failed
        EmbeddingError                   wrong shape, NaN, or no token
        ModelUnavailable                 its server is down, breaks off, fails, or cannot be trusted (TLS)
      DeadlineExceeded (TimeoutError)    the caller's deadline passed; nothing was changed
      Overloaded                         too much waits for a model or a device; `.retry_after` in seconds

Foreign exceptions are mapped where they enter (storage/rocks.py, embed/*, reason/*, index/cpu.py,
ops/http.py, ops/onnx.py).
Messages carry numbers and remedies, never memory text, vectors or secrets.
"""

from __future__ import annotations


class WarpmemError(Exception):
    """Base of every exception raised on purpose by warpmem."""

    def __reduce__(self) -> tuple[object, ...]:
        # Python would give the finished message to an __init__ that makes one out of other things. An error
        # that cannot be read breaks a pool of processes, or leaves whoever asked it waiting for ever.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[WarpmemError], args: tuple[object, ...], fields: dict[str, object]) -> WarpmemError:
    """The same error in another process, or a copy."""
    error = kind.__new__(kind, *args)
    super(WarpmemError, error).__init__(*args)
    error.__dict__.update(fields)
    return error


class InputError(WarpmemError, ValueError):
    """An argument is wrong. Nothing was stored."""


class InvalidScope(InputError):
    """No scope was named, or its ids do not go together."""


class InvalidText(InputError):
    """Text is empty, over the limit, or holds nothing a model can read."""


class InvalidVector(InputError):
    """A vector has the wrong dimension, dtype or shape, or values that are not usable."""


class InvalidMetadata(InputError):
    """Metadata is not a JSON object, or is over the limit."""


class InvalidTime(InputError):
    """A datetime is naive, or an interval ends before it begins."""


class InvalidFilter(InputError):
    """A filter breaks the grammar. `path` is where, for example ``and[1].metadata.age.gte``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"filter at {path or 'top level'}: {reason}")
        self.path = path


class SchemaViolation(InputError):
    """Metadata breaks the schema of its kind. `path` is where, for example ``metadata.level``."""

    def __init__(self, kind: str, path: str, reason: str) -> None:
        super().__init__(f"kind {kind!r}: {path}: {reason}")
        self.kind = kind
        self.path = path


class NotSupported(InputError):
    """A documented option that this build or this store cannot serve."""


class NotFound(WarpmemError, LookupError):
    """No such item, or not in the scope given."""


class Conflict(WarpmemError):
    """The change contradicts what is stored. Nothing was stored."""


class VersionConflict(Conflict):
    """`expected_version` is not the item's current version."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"expected version {expected}, but the item is at version {actual}; read it again")
        self.expected = expected
        self.actual = actual


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another payload."""


class StoreError(WarpmemError):
    """The data directory cannot be used as asked."""


class StoreLocked(StoreError):
    """Another process has the store open. `pid` is its process id where known."""

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class StoreCorrupt(StoreError):
    """Stored bytes are not what was written."""


class IndexCorrupt(StoreError):
    """An index file is not what was written. Raised where it is opened, or by whatever first needs the
    damaged part; nothing wrong is returned."""


class StoreReadOnly(StoreError):
    """Writes are refused: the store was opened read-only or is a backup, an earlier write failed, or the
    folder of an index file may not be written to."""


class WriterUnavailable(StoreReadOnly):
    """A store opened with follow=True passes changes on to the process that writes, and that is not there or
    takes none. `sent`: whether it broke off after it had got this one, which may or may not be made then;
    where it is False nothing was changed."""

    def __init__(self, message: str, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class StoreClosed(StoreError):
    """The store was closed."""


class DiskFull(StoreError):
    """Not enough free space to write safely. `needed` bytes must be free on the disk and `free` are; None
    where the disk itself refused and nobody knows."""

    def __init__(self, message: str, needed: int | None = None, free: int | None = None) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class FormatError(StoreError):
    """The directory is not a warpmem store, or the file no index; or a newer version wrote it."""


class ModelMismatch(StoreError):
    """The store's vectors were made by another embedding model."""


class BackendUnavailable(WarpmemError):
    """A search backend that was asked for by name cannot run here."""


class MissingDependency(WarpmemError, ImportError):
    """An optional package is not installed."""


class ModelError(WarpmemError):
    """A model failed or answered with something unusable."""


class EmbeddingError(ModelError):
    """An embedder failed, or returned vectors that cannot be stored."""


class ModelUnavailable(ModelError):
    """A model's server cannot be reached, broke off, or failed. The same request may succeed later."""


class DeadlineExceeded(WarpmemError, TimeoutError):
    """The caller's deadline passed before the work was done. Nothing was changed."""


class Overloaded(WarpmemError):
    """More is asked of a model or a device than it can do in time; nothing was changed. `retry_after`:
    seconds. `one_owner`: it is an owner's budget that is spent, and others are served."""

    def __init__(self, why: str, retry_after: float, one_owner: bool = False) -> None:
        super().__init__(f"overloaded: {why}; try again in {retry_after:.3g} s")
        self.retry_after = retry_after
        self.one_owner = one_owner
