"""Opening the store that a command names, and the scope that it is about."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from .. import compose
from ..memory import Memory
from ..types import Owner, Scope

_FEED_PAGE = 10_000


def store_path(args: argparse.Namespace) -> str | None:
    """The directory given by --store or WARPMEM_STORE; None when neither is."""
    return args.store or os.environ.get("WARPMEM_STORE") or None


def open_store(args: argparse.Namespace, *, read_only: bool) -> Memory:
    """Open the command's store. Reading takes no lock and creates nothing. Raises StoreError, InputError."""
    path = store_path(args)
    if path is None:
        raise argparse.ArgumentError(None, "which store? give --store PATH or set WARPMEM_STORE")
    return compose.open(path, read_only=read_only)


def scope_of(args: argparse.Namespace) -> Scope | None:
    """The scope given by --user, --agent, --run and --corpus; None when none is. Raises InvalidScope."""
    ids = (args.user, args.agent, args.run_id, args.corpus)
    if all(value is None for value in ids):
        return None
    user, agent, run, corpus = ids
    return Scope(user_id=user, agent_id=agent, run_id=run, corpus_id=corpus)


def owner_scope(owner: Owner) -> Scope:
    """The scope that sees everything of an owner."""
    ids = {f"{owner.type}_id": owner.id}
    return Scope(**ids)


def all_owners(memory: Memory) -> Iterator[Scope]:
    """A scope for every owner that ever had an item, in the order of their first items.

    The store has no listing of owners, so this reads the change feed once, from its beginning: time in
    proportion to all changes ever made, memory in proportion to the owners.
    """
    seen: set[Owner] = set()
    cursor = 0
    while True:
        page = memory.changes(cursor, limit=_FEED_PAGE)
        for change in page:
            owner = change.scope.owner
            if owner not in seen:
                seen.add(owner)
                yield owner_scope(owner)
        if len(page) < _FEED_PAGE:
            return
        cursor = page[-1].cursor
