"""The command serve."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import Any

from ..write_server import serve as serve_memory
from .output import path_text
from .stores import open_store, required_path


def serve(args: argparse.Namespace) -> int:
    """Write the store, and look after it, until SIGTERM or SIGINT; prints where when others may come."""
    path = required_path(args)
    stop = threading.Event()

    def stopped(*_: Any) -> None:
        stop.set()

    handlers = [(number, signal.signal(number, stopped)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with open_store(args, read_only=False) as memory, serve_memory(memory):
            print(f"taking changes for {path_text(path)}", flush=True)
            print("stop it by Ctrl-C or SIGTERM", file=sys.stderr)
            stop.wait()
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    return 0
