"""What takes a Memory's contents elsewhere: backups, items as JSON lines, texts to train with."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, cast

from ..config import Config
from ..errors import InputError
from ..ops import events
from ..records import Backup
from ..types import MemoryItem, Scope
from . import arguments
from .digests import Digests
from .exporting import export
from .importing import ImportReport, import_file
from .item_line import TEXT_STREAM
from .training import TrainingStream, make_stream

if TYPE_CHECKING:
    from ..protocols import Log
    from .facade import Memory

_MAX_BATCH = 10_000


class Portable:
    """The part of Memory that is about other places. See Memory."""

    _config: Config
    _log: Log

    def _check_open(self) -> None:
        """Raises StoreClosed when the Memory may not be used any more."""

    def backup(self, root: str | os.PathLike[str], *, verify: bool = True) -> Backup:
        """Make a backup in a new directory below `root`, while readers and writers go on.

        Each is a store of its own, which shares unchanged tables with the store and earlier backups by hard
        links; `warpmem.backups(root)` lists them, `warpmem.restore` brings one back. Writers wait for
        `pause_seconds`. It has every change that was acknowledged before the call. verify: read it back in
        full, and refuse it when anything does not agree. Nothing appears under `root` before it is whole.
        Raises NotSupported for a store in memory, StoreReadOnly, StoreCorrupt, DiskFull, InputError.
        """
        self._check_open()
        if not isinstance(root, (str, os.PathLike)):
            raise InputError(f"root must be a path, not {type(root).__name__}")
        made = self._log.backup(os.fspath(root), digests_of, verify=verify)
        events.tell(
            events.INFO, "backed up", path=made.path, items=made.items, bytes=made.bytes,
            seconds=made.seconds, pause_seconds=made.pause_seconds,
        )  # fmt: skip
        return made

    def export(
        self, file: str | os.PathLike[str] | IO[bytes], *, scope: Scope | None = None, vectors: bool = False
    ) -> int:
        """Write the items of one scope, or of all owners, as JSON lines; returns how many.

        file: a path outside of the store, which appears when it is complete; a device or pipe, which is
        written to; or a binary stream. Superseded and expired items are written; deleted ones, earlier
        versions and the change feed are not: a backup has them. vectors: each line gets its vector too, as
        the base64 of its float32. Raises InputError.
        """
        self._check_open()
        _check_file(file, "write")
        arguments.check_flag(vectors, "vectors")
        if isinstance(file, (str, os.PathLike)) and self._config.path is not None:
            store = os.path.realpath(self._config.path)
            if os.path.commonpath([store, os.path.realpath(file)]) == store:
                raise InputError(f"{os.fspath(file)!r} lies inside the store: name a file outside of it")
        return export(cast("Memory", self), self._log, file, arguments.check_scope(scope), vectors=vectors)

    def import_(
        self,
        file: str | os.PathLike[str] | IO[bytes],
        *,
        scope: Scope | None = None,
        kind: str | None = None,
        enforce_scope: bool = False,
        batch: int = 500,
        skip_errors: bool = False,
        again: bool = False,
        say: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImportReport:
        """Add every line of a file of JSON lines: exported ones, plain items, chat messages (lines.py).

        `batch` lines are one commit, or as many as have 8 MiB, each as durable as the configuration says;
        flush() waits for all. What was stored is not added again, for good: a call that was cut short, or a
        file that has grown since, goes on where it was, and an exported line is known by itself, so a later
        export of the same store adds what is new or was changed there. What was deleted here since does not
        come back, even where the exported line was changed. `again` passes that by; it, and lines without an
        id from streams that cannot seek, rely on the idempotency key of each line (7 days). scope, kind: of
        lines that name none. A refused line ends the import, what came before it is stored; with skip_errors
        it is left out, unless the model failed and fails at a fixed text, too. The next import of the file
        tries the lines again that were left out, and no other. Of a model that is overloaded or late the
        error is raised, and what came before is stored as well.

        A line that names a user, agent, run or corpus goes there, whatever `scope` says, and one with a `key`
        supersedes what that one has: of files from others ask for enforce_scope, which refuses every line
        outside `scope`. What a line says of its trust and sources is believed all the same.

        say: called with each refusal and note. progress: called with bytes and lines. Vectors are taken over
        where the line names this store's model. Raises InputError, StoreError, Overloaded, DeadlineExceeded.
        """
        self._check_open()
        _check_file(file, "readline")
        batch = arguments.check_count(batch, "batch", _MAX_BATCH)
        for flag, name in (
            (enforce_scope, "enforce_scope"), (skip_errors, "skip_errors"), (again, "again"),
        ):  # fmt: skip
            arguments.check_flag(flag, name)
        for function, name in ((say, "say"), (progress, "progress")):
            if function is not None and not callable(function):
                raise InputError(f"{name} must be a function, not {type(function).__name__}")
        scope = arguments.check_scope(scope)
        if enforce_scope and scope is None:
            raise InputError("enforce_scope is for an import with a scope")
        report = import_file(
            cast("Memory", self), self._log, file, scope, kind, enforce_scope=enforce_scope, batch=batch,
            skip_errors=skip_errors, again=again, say=_ignore if say is None else say,
            progress=_ignore if progress is None else progress,
        )  # fmt: skip
        events.tell(
            events.INFO, "imported", stored=dict(report.stored), before=report.before, skipped=report.skipped,
            stopped=report.stopped,
        )  # fmt: skip
        return report

    def training_stream(
        self,
        scopes: Sequence[Scope] | None = None,
        *,
        kinds: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        min_trust: float = 0.5,
        consent: str | None = "consent.training",
        pairs: bool = False,
        shard: tuple[int, int] = (0, 1),
        cursor: str | None = None,
    ) -> TrainingStream:
        """An iterator over what is current, as TrainingRecord: texts to train with, each once.

        scopes: None is every owner. Only items whose metadata has True under the path `consent` are given;
        None asks nobody. `kinds`, `filters`: as for search; min_trust: the least `trust`. pairs: what a user
        said and the assistant's message after it in the same scope, instead of texts. Texts that differ only
        in case, whitespace or compatibility forms are one, whoever said them; the first is given.

        shard: (number, how many): the shards of one stream share nothing, whatever is added meanwhile, and
        are everything together. cursor: of an earlier stream with the same arguments; goes on behind what
        that gave, also when it is gone by now. A stream holds about 100 bytes for each text of its shard that
        it has passed, and one that goes on reads what lies before its cursor again to know it. What is
        added to an owner that was passed is left for the next pass. Raises InputError.
        """
        self._check_open()
        return make_stream(
            cast("Memory", self), self._log.identity.salt, scopes, kinds, filters, min_trust, consent, pairs,
            shard, cursor,
        )  # fmt: skip


def _ignore(*_: Any) -> None:
    pass


def _check_file(file: Any, method: str) -> None:
    """method: what a stream has to have."""
    if not isinstance(file, (str, os.PathLike)) and not hasattr(file, method):
        raise InputError(
            f"file must be a path or a binary stream, not {type(file).__name__}, which has no {method}()"
        )
    if isinstance(file, io.TextIOBase):
        raise InputError(TEXT_STREAM)
    if getattr(file, "closed", False) is True:
        raise InputError("file is a stream that is closed")
    if not isinstance(file, (str, os.PathLike)):
        return
    try:
        path = os.fsencode(file)
    except UnicodeEncodeError:
        raise InputError(f"no file has the name {file!r}") from None
    if b"\0" in path:
        raise InputError(f"the path {os.fsdecode(file)!r} holds a NUL character")


def digests_of(salt: bytes, item: MemoryItem) -> tuple[bytes | None, bytes | None]:
    """The digests of an item in the store with this salt: of a duplicate, of its key's slot."""
    digests = Digests(salt)
    return digests.duplicate(item), digests.slot(item)
