"""Opening the store that a command names, and the scope that it is about."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .. import compose
from ..errors import InputError
from ..memory import Memory
from ..types import Scope
from .progress import show_task
from .values import is_text


def store_path(args: argparse.Namespace) -> str | None:
    """The directory given by --store or WARPMEM_STORE; None when neither is. Raises InputError."""
    path: str | None = args.store or os.environ.get("WARPMEM_STORE") or None
    if path is not None and not is_text(path):
        raise InputError("the path of the store holds bytes that are not UTF-8; rename its directory")
    return path


def required_path(args: argparse.Namespace) -> str:
    """As store_path; a command that needs a store ends here without one."""
    path = store_path(args)
    if path is None:
        raise argparse.ArgumentError(None, "which store? give --store PATH or set WARPMEM_STORE")
    return path


def open_store(args: argparse.Namespace, *, read_only: bool, **options: Any) -> Memory:
    """Open the command's store, by the configuration file where the command takes one and it is given.
    Reading takes no lock and creates nothing. options: as compose.open. Raises StoreError, InputError."""
    return compose.open(
        required_path(args),
        config=getattr(args, "config", None),
        read_only=read_only,
        progress=show_task if sys.stderr.isatty() else None,
        **options,
    )


def open_existing(args: argparse.Namespace, **options: Any) -> Memory:
    """As open_store, to change what is there: a directory that is not is refused as for reading, not made."""
    path = store_path(args)
    return open_store(args, read_only=path is not None and not os.path.isdir(path), **options)


def scope_of(args: argparse.Namespace) -> Scope | None:
    """The scope given by --user, --agent, --run and --corpus; None when none is. Raises InvalidScope."""
    ids = (args.user, args.agent, args.run_id, args.corpus)
    if all(value is None for value in ids):
        return None
    user, agent, run, corpus = ids
    return Scope(user_id=user, agent_id=agent, run_id=run, corpus_id=corpus)


def ids_or_all(args: argparse.Namespace) -> None:
    """Either ids or --all: a shell's variable that is empty must not stand for everything."""
    if bool(args.ids) == args.all:
        raise argparse.ArgumentError(None, "name ids, or --all for everything of the scope")
    for option in ("kinds", "filter"):
        if args.ids and getattr(args, option, None) is not None:
            raise argparse.ArgumentError(None, f"--{option} goes with --all, not with ids")
