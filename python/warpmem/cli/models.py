"""The commands that change a store's embedding model, and have models do what waits for them."""

from __future__ import annotations

import argparse
import sys

from .. import compose
from .progress import Progress
from .stores import open_store


def reembed(args: argparse.Namespace) -> int:
    """Re-embed the store. Its present model is not needed, so it may be any."""
    with open_store(args, read_only=True) as memory:
        before = memory.stats()
    shown: Progress | None = None
    done = 0

    def progress(vectors: int, total: int) -> None:
        nonlocal shown, done
        if shown is None:
            enabled = args.progress or sys.stderr.isatty()
            shown = Progress("reembed", total, enabled=enabled, unit="vectors")
        done = vectors
        shown.update(done, done)

    with compose.open(before.path, dimension=before.dimension, model_id=before.model_id) as memory:
        try:
            made = memory.reembed(args.embedder, batch=args.batch, progress=progress)
        finally:
            if shown is not None:
                shown.finish(done, done)
        after = memory.stats()
    print(
        f"{made} vectors: {before.model_id} ({before.dimension} dimensions) -> "
        f"{after.model_id} ({after.dimension})",
        file=sys.stderr,
    )
    return 0


def embed_pending(args: argparse.Namespace) -> int:
    """Embed what was stored to be embedded later."""
    with open_store(args, read_only=False, background_work=False) as memory:
        made = memory.embed_pending()
        left = memory.stats().pending["embed"].waiting
    print(f"{made} embedded" + (f", {left} that the model refuses" if left else ""))
    return 0


def extract_pending(args: argparse.Namespace) -> int:
    """Make memories of messages that wait for the language model."""
    with open_store(args, read_only=False, background_work=False) as memory:
        made = memory.extract_pending()
        left = memory.stats().pending["extract"].waiting
    print(f"{made} read" + (f", {left} that the model gave no answer to" if left else ""))
    return 0
