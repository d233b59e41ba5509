"""The loop of a peer's process: a line of JSON with the name of a call and its arguments comes in, one with
the answer goes out. Needs nothing but the standard library, for it runs where each peer is installed."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(calls: Mapping[str, Callable[..., Any]]) -> None:
    """Answer until the input ends. What a peer prints goes to stderr, and no connection can be made."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(calls[request.pop("call")](**request)), file=answers, flush=True)


def offline() -> None:
    """From here on connecting to anything is an error."""

    def refuse(*_: Any) -> None:
        raise OSError("a peer must not connect to anything")

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = refuse  # type: ignore[method-assign, assignment]
