"""From a process that follows a store to the one that writes it: calls over a socket in its directory."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..errors import StoreCorrupt, WriterUnavailable
from . import wire

SOCKET_NAME: Final = "warpmem.socket"
HELLO: Final = "warpmem writer 1"

_KEPT: Final = 64
_GREETING_SECONDS: Final = 10.0


class WriterLink:
    """Implements protocols.Writer. Connections are made when they are needed, one for each call under way,
    and kept for later ones. Thread-safe.

    path: of the store. version: of this package. heard: told the number of the last change after each call
    """

    def __init__(self, path: str, version: str, heard: Callable[[int], None]) -> None:
        self._path = path
        self._version = version
        self._heard = heard
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False
        self.used = False

    def call(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """See protocols.Writer."""
        data = wire.encoded([name, list(arguments), dict(keywords)])
        connection = self._connection()
        try:
            wire.send(connection, data)
            reply = wire.receive(connection)
            if reply is None:
                raise ConnectionResetError("the other side ended")
            last, failed, value = wire.decoded(reply)
        except OSError as error:
            connection.close()
            raise WriterUnavailable(
                f"the process that writes broke off ({error.strerror or error}): whether this change was "
                "made is unknown; look, or make it again when it is back",
                sent=True,
            ) from None
        except wire.Malformed as error:
            connection.close()
            raise StoreCorrupt("the answer of the process that writes is none") from error
        except BaseException:  # an interrupt: what comes on this connection belongs to nobody
            connection.close()
            raise
        self._keep(connection)
        self.used = True
        self._heard(last)
        if failed:
            raise value
        return value

    def close(self) -> None:
        """Idempotent. Calls under way go on to their end."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection in idle:
            connection.close()

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _connection(self) -> socket.socket:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            if _alive(connection):
                return connection
            connection.close()  # of a writer that went away since

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_path(self._path) as path:
                connection.connect(path)
            connection.settimeout(_GREETING_SECONDS)
            wire.send(connection, wire.encoded([HELLO, self._version]))
            reply = wire.receive(connection)
            answer = None if reply is None else wire.decoded(reply)
            connection.settimeout(None)
        except (OSError, wire.Malformed) as error:
            connection.close()
            why = getattr(error, "strerror", None) or type(error).__name__
            raise WriterUnavailable(
                f"the store was opened with follow=True, and no process makes changes for others ({why}): "
                "have one write it, by warpmem.serve(memory) or `warpmem serve`; nothing was changed"
            ) from None
        except BaseException:
            connection.close()
            raise
        if answer != HELLO:
            connection.close()
            raise WriterUnavailable(
                answer
                if isinstance(answer, str)
                else "the process that writes takes no more connections; nothing was changed"
            )
        return connection


@contextlib.contextmanager
def socket_path(store: str) -> Iterator[str]:
    """The socket's path, short enough to name one however long the store's is. Raises OSError."""
    directory = os.open(store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    finally:
        os.close(directory)


def _alive(connection: socket.socket) -> bool:
    """Whether the other side is there; it says nothing unasked."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
