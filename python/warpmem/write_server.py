"""A store's writing process takes changes from the processes that follow it.

    with warpmem.open("memory.db") as memory, warpmem.serve(memory):
        ...                                                # or, as a process of its own: warpmem serve

    memory = warpmem.open("memory.db", follow=True)        # in any other process of this host
    memory.add("Nadia moved to Porto.", user_id="nadia")   # made by the one above

A stream socket in the store's directory, which only the user of this process may connect to. One thread for
each connection makes one call after the other, so that changes of many share a sync as those of threads do.
ops/wire.py has the bytes: [hello, version], answered by hello or by what is wrong, then calls [method,
arguments, keywords], each answered by [number of the last change, whether it failed, value or error].
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from types import TracebackType
from typing import Any, Final, Self

from .config import VERSION
from .errors import InputError, StoreClosed, StoreError, WarpmemError, WriterUnavailable
from .memory import Memory
from .memory.by_writer import NAMES
from .memory.facade import check_memory
from .ops import events, wire
from .ops.writer_link import HELLO, SOCKET_NAME, socket_path

_MOST: Final = 1024
_BACKLOG: Final = 256
_PATIENCE: Final = 30.0
_METHODS: Final = {*NAMES, "flush"}


class WriteServer:
    """Takes changes from other processes until close(), or until the Memory is closed. A context manager.

    connections: how many there are
    """

    def __init__(self, memory: Memory) -> None:
        check_memory(memory)
        memory._check_open()
        path = memory._config.path
        if path is None or memory._log.read_only:
            raise InputError("serve takes the Memory that writes a store on disk")
        self._memory = memory
        self._path = path
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        self._socket = _listening(path)
        self._thread = threading.Thread(target=self._accept, name="warpmem-serve", daemon=True)
        self._thread.start()
        _servers.add(self)
        events.tell(events.INFO, "serving", path=path)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        """Take no more calls, and return when those under way are answered. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            there = dict(self._connections)
        with contextlib.suppress(OSError), socket_path(self._path) as path:
            os.unlink(path)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
        self._socket.close()
        self._thread.join(_PATIENCE)
        for connection in there:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # whoever reads sees the end, whoever answers goes on
        for thread in there.values():
            thread.join(_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ----------------------------------------------------------------------------------- threads

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                threading.Event().wait(0.05)  # no more descriptors, as it is then: later there are
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="warpmem-serve-one", daemon=True
            )
            with self._lock:
                taken = not self._closed and len(self._connections) < _MOST
                if taken:
                    self._connections[connection] = thread
            try:
                if not taken:
                    connection.close()
                    continue
                thread.start()
            except RuntimeError:  # no more threads
                self._end(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, wire.Malformed):
                if self._greeted(connection):
                    while (data := wire.receive(connection)) is not None:
                        wire.send(connection, self._answer(wire.decoded(data)))
        finally:
            self._end(connection)

    def _greeted(self, connection: socket.socket) -> bool:
        data = wire.receive(connection)
        given = None if data is None else wire.decoded(data)
        if given == [HELLO, VERSION]:
            wire.send(connection, wire.encoded(HELLO))
            return True
        if isinstance(given, list) and given[:1] == [HELLO]:
            said = f"the process that writes has warpmem {VERSION}, and this is {given[1]}: upgrade one"
            wire.send(connection, wire.encoded(said))
        return False

    def _answer(self, call: Any) -> bytes:
        """Raises Malformed for what is no call."""
        if not (isinstance(call, list) and len(call) == 3):
            raise wire.Malformed("no call")
        name, arguments, keywords = call
        right = isinstance(name, str) and isinstance(arguments, list) and isinstance(keywords, dict)
        if not right or name not in _METHODS:
            raise wire.Malformed("no such call")
        failed, value = False, None
        try:
            value = getattr(Memory, name)(self._memory, *arguments, **keywords)
        except StoreClosed:
            failed = True
            value = WriterUnavailable("the process that writes has closed the store; nothing was changed")
        except Exception as error:  # noqa: BLE001  it belongs to who called
            if not isinstance(error, (WarpmemError, TypeError)):
                events.tell(events.ERROR, "call failed", call=name, error=type(error).__name__)
            failed, value = True, wire.error_of(error)
        last = self._memory._log.totals()["sequence"]
        try:
            return wire.encoded([last, failed, value])
        except InputError as error:
            return wire.encoded([last, True, error])

    def _end(self, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._connections.pop(connection, None)

    def _forked(self) -> None:
        """In a forked child: the connections are the parent's, and would outlive it here."""
        self._closed = True
        for connection in (self._socket, *self._connections):
            connection.close()


def serve(memory: Memory) -> WriteServer:
    """Take changes from the processes of this host that follow a store: `memory` is open for writing, and
    they have it open with follow=True. Their `add`, `update`, `delete` and other changes are made here, with
    this Memory's models and configuration, and are as durable when they return as they would be here; their
    next read shows them. Other users of the host are refused.

    Raises InputError for a Memory that does not write a store on disk, or is served already; StoreError.
    """
    return WriteServer(memory)


def _listening(path: str) -> socket.socket:
    """A socket in the store's directory. What a process that died left there is removed: only who writes the
    store makes one."""
    for server in list(_servers):
        if not server._closed and server._path == path:
            raise InputError("this store is served already")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_path(path) as place:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)
            listening.bind(place)
            os.chmod(place, 0o600)  # nobody connects before listen()
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise StoreError(f"cannot make the socket {SOCKET_NAME} in {path!r}: {error.strerror}") from error
    except BaseException:
        listening.close()
        raise
    return listening


_servers: Final[weakref.WeakSet[WriteServer]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
