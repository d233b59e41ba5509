"""Kill -9 on a store that is being written: children to kill, and what must hold afterwards.

A cycle is: a child opens the store at a path, changes it for ever and acknowledges what is durable; the
parent kills it at a random moment, opens the store itself and checks it. To spend a cycle's time on the store
and not on imports, one server process imports the child's module once and forks a child per cycle.

A new level (the facade, for example) needs one function `child(path, seed, acknowledge)` in a module of this
folder, one function `check(path, acknowledged)`, and a call of `run_kills`.
"""

from __future__ import annotations

import importlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

_TIMEOUT = 30.0


class Child(Protocol):
    """Opens the store at `path`, changes it until killed, calls acknowledge(token) after each durable change.

    `acknowledge` is thread-safe; a token is bytes without a newline, at most 200 of them.
    """

    def __call__(self, path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None: ...


def run_script(script: str, *arguments: str, **environment: str) -> str:
    """Run Python code in a process of its own, whose assertions are the test; what it wrote."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class ForkServer:
    """Forks children that run `target`, for example "durability.changes:child", and kills them."""

    def __init__(self, target: str, environment: Mapping[str, str] | None = None) -> None:
        environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._commands = self._process.stdin
        self._answers = self._process.stdout.fileno()
        self._buffer = b""
        assert self._line() == b"ready"

    def run(self, path: str, seed: int, seconds: float | None, *, opened: bool = False) -> list[bytes]:
        """Let a child run for `seconds` from its first instruction (opened: from its first acknowledgement),
        kill it, return what it acknowledged. seconds None: let it end by itself."""
        self._commands.write(f"{seed} {path}\n".encode())
        self._commands.flush()
        pid = int(self._line().removeprefix(b"pid "))
        acknowledged = []
        try:
            if opened:
                acknowledged.append(self._line())
                assert acknowledged[0].startswith(b"ack "), f"the child failed: {acknowledged[0]!r}"
            if seconds is not None:
                deadline = time.monotonic() + seconds
                while (left := deadline - time.monotonic()) > 0:
                    if b"\n" in self._buffer or select.select([self._answers], [], [], left)[0]:
                        acknowledged.append(self._line())
        finally:
            if seconds is not None:
                # Not reaped yet: the server waits for it, so the id is still its own.
                os.kill(pid, signal.SIGKILL)
        while (line := self._line()) != b"killed":
            acknowledged.append(line)
        for line in acknowledged:
            assert line.startswith(b"ack "), f"the child failed: {line!r}"
        return [line.removeprefix(b"ack ") for line in acknowledged]

    def close(self) -> None:
        self._commands.close()
        self._process.wait(_TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            assert select.select([self._answers], [], [], _TIMEOUT)[0], "no answer from the fork server"
            part = os.read(self._answers, 1 << 16)
            assert part, "the fork server died"
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line


def run_kills(
    target: str,
    check: Callable[[str, Sequence[bytes]], None],
    folder: Path,
    *,
    kills: int,
    seed: int,
    fresh_every: int = 20,
    longest: float = 0.12,
    environment: Mapping[str, str] | None = None,
    at_work: float = 0.67,
) -> int:
    """Kill `kills` children at random moments, `check` after each; returns the number of acknowledgements.

    check(path, acknowledged) gets everything that was ever acknowledged at that path. Every `fresh_every`
    kills the store begins anew, so that creation is hit too. environment: additions for the children.
    at_work: share of the children that are killed only once they have acknowledged something."""
    rng = random.Random(seed)
    server = ForkServer(target, environment)
    total = 0
    try:
        acknowledged: list[bytes] = []
        path = ""
        for kill in range(kills):
            if kill % fresh_every == 0:
                if path and os.path.exists(path):  # a power loss may take the whole folder
                    shutil.rmtree(path)
                path = str(folder / f"store-{kill}")
                acknowledged = []
            # These get to work, however slow the machine is; the others may be hit while they open.
            new = server.run(
                path, rng.randrange(1 << 30), rng.uniform(0.0, longest), opened=rng.random() < at_work
            )
            total += len(new)
            acknowledged += new
            try:
                check(path, acknowledged)
            except BaseException:
                print(f"after kill {kill} of seed {seed}")
                raise
    finally:
        server.close()
    return total


# ------------------------------------------------------------------------------------- fork server


def _serve(target: str) -> None:
    module, function = target.split(":")
    child: Child = getattr(importlib.import_module(module), function)
    for name in ("rocksdict", "warpmem.compose"):  # what each child would load by itself
        importlib.import_module(name)
    os.write(1, b"ready\n")
    for command in sys.stdin.buffer:
        seed, path = command.decode().rstrip("\n").split(" ", 1)
        pid = os.fork()
        if pid == 0:
            _be_child(child, path, int(seed))
        os.waitpid(pid, 0)
        os.write(1, b"killed\n")


def _be_child(child: Child, path: str, seed: int) -> None:
    # One write(2) of less than PIPE_BUF bytes each: a kill cannot tear a line, threads cannot mix them.
    os.write(1, b"pid %d\n" % os.getpid())
    try:
        child(path, seed, lambda token: (os.write(1, b"ack " + token + b"\n"), None)[1])
    except BaseException as error:  # noqa: BLE001  the parent fails the test with it
        os.write(1, f"{type(error).__name__}: {error}".replace("\n", " ")[:400].encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
