"""What a Memory does to believe no more, and to forget for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from ..records import ErasureReceipt
from ..types import Scope
from . import arguments
from .by_writer import Follower, by_writer

if TYPE_CHECKING:
    from .eraser import Eraser
    from .serving import Current


class Erasable(Follower):
    """The part of Memory that erases. See Memory."""

    _current: Current
    _eraser: Eraser
    _check_open: Callable[[], None]

    @by_writer
    def revoke(self, source: str) -> int:
        """Believe a source no more: every item of the store that names it in `sources` goes into quarantine,
        and what has nothing but items as its sources is trusted no more than the most trusted of them then.
        So is what comes later.

        How many items lost trust by this call. They are changed some at a time; a call that did not end is
        made again. Takes as long as reading the store's items and history twice, four times where older items
        come from newer ones; holds the key and the sources of each item that comes from there, and in that
        case 48 bytes for each source of any. `reinstate` undoes it. A search with `known_at` shows what was
        known before. It is many changes, each as durable as the configuration says; flush() waits for all.
        Raises InputError.
        """
        self._check_open()
        return self._current.now.revocations.revoke(arguments.check_name(source, "source"))

    @by_writer
    def reinstate(self, source: str) -> int:
        """Believe a source again: what lost trust by its sources gets it back, as far as they leave it that,
        but for what names another revoked source. How many items. Takes as long as reading the store's items
        twice, and holds as much as revoke() for each item that was trusted more before. It is as durable
        as that."""
        self._check_open()
        return self._current.now.revocations.reinstate(arguments.check_name(source, "source"))

    def revoked(self) -> tuple[str, ...]:
        """The sources that are revoked, oldest first; those that were erased meanwhile are not named."""
        self._check_open()
        return self._current.now.revocations.names()

    @by_writer
    def erase(
        self,
        ids: Sequence[str] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        derived: Literal["erase", "keep"] = "erase",
    ) -> ErasureReceipt:
        """Remove items for good, from every record, file and cache; unlike `delete`, which keeps history.

        `ids`: these items, deleted ones too; with a scope, NotFound if any is another's. Without `ids`: all
        that the scope covers; when it is a whole owner, its name goes too. All versions go; entries of the
        change feed become "erase" entries; of the items whose `sources` name what is erased, those without
        another source go too with derived="erase", and of the others earlier versions that had no other;
        all the rest keeps its text and loses the id. An origin that what is erased has too is no other
        source. When it returns, no file of the store holds what was erased and nothing was kept in memory,
        but by read-only processes until they refresh, by results that were handed out, and by backups and
        other copies, which the receipt lists; a backup under way holds it in the store's own directory too,
        in `warpmem.snapshot`, until it is made. What a process that died has left of a copy is removed.
        Takes as long as reading the store, once more where older items come from newer ones, and where
        earlier versions go; in the first case 48 bytes for each source of any item, and room for the tables
        it writes anew. A large erasure disappears piece by piece; after
        a crash the next open finishes it, or the same call. Raises NotFound, InputError, DiskFull.
        """
        self._check_open()
        whose = arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id)
        return self._eraser.erase(ids, whose, derived)
