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


def offline(but_here: bool = False) -> None:
    """From here on connecting to anything is an error; with `but_here`, to anything but this machine."""
    connects = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

    def guarded(name: str) -> Callable[[socket.socket, Any], Any]:
        def connect(one: socket.socket, address: Any) -> Any:
            here = one.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
            if not (but_here and here):
                raise OSError("a peer must not connect to anything")
            return connects[name](one, address)

        return connect

    for name in connects:
        setattr(socket.socket, name, guarded(name))
