"""Servers as programs of their own on this machine, which can be killed and started again."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import environments

import local_servers
from warpmem.errors import DeadlineExceeded, ModelUnavailable, Overloaded

NOT_THERE = (ModelUnavailable, Overloaded, DeadlineExceeded)
"""What a server that is gone is to its callers."""

_WITH_PARENT = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""PR_SET_PDEATHSIG: the server does not outlive the tests, however these end."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def healed(call: Callable[[], Any], seconds: float = 60) -> Any:
    """What a call gives once its server is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except NOT_THERE:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Program:
    """A server that runs while the context does; tests may connect to `ports` until its end, whether it runs
    or not.

    command   its first word is the path of a program; it binds 127.0.0.1
    ports     the first is that of HTTP
    health    a path that answers 200 when the server is ready
    folder    where it runs, and its output is kept
    """

    def __init__(
        self,
        command: Sequence[object],
        ports: Sequence[int],
        folder: Path,
        *,
        health: str,
        extra: Mapping[str, str] | None = None,
        seconds: float = 240,
    ) -> None:
        self._command = [sys.executable, "-c", _WITH_PARENT, *map(str, command)]
        self._addresses = [("127.0.0.1", port) for port in ports]
        self._folder = folder
        self._log = folder / "server.log"
        self._health = health
        self._variables = {**environments.variables(), **(extra or {})}
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def ports(self) -> list[int]:
        return [port for _, port in self._addresses]

    def __enter__(self) -> Program:
        local_servers.started.update(self._addresses)
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        local_servers.started.difference_update(self._addresses)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        self.kill()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._variables, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + self._seconds
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self._log.read_text(errors="replace")[-4000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, with all that it started, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(*self._addresses[0], timeout=5)
        try:
            connection.request("GET", self._health)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
