"""Virtual environments of their own for real packages, whose pins would not go together with ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import local_servers
import warpmem

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No telemetry, no downloads of models, one thread."""


def environment(root: Path, name: str, packages: Sequence[str], alone: Sequence[str] = ()) -> Path:
    """The Python of the environment `name` under `root` with `packages`, and those in `alone` without what
    they ask for; made when it is not there yet."""
    folder = root / name
    python = folder / "bin" / "python"
    done = folder / "packages.txt"
    wanted = "\n".join((*packages, *alone))
    if not done.is_file() or done.read_text().strip() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *packages], check=True, timeout=1800)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True, timeout=1800)
        done.write_text(wanted)
    return python


def variables() -> dict[str, str]:
    """The environment for a program of such an environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return {**kept, **QUIET}


def with_warpmem(folder: Path) -> dict[str, str]:
    """The same for a program that imports this warpmem, without what is installed beside it."""
    (folder / "path").mkdir()
    (folder / "path" / "warpmem").symlink_to(Path(warpmem.__file__).parent)
    return {**variables(), "PYTHONPATH": str(folder / "path")}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def running(command: Sequence[object], port: int, folder: Path, *, seconds: float = 240) -> Iterator[str]:
    """A server for as long as the block runs; its URL, once it takes connections on `port`."""
    address = ("127.0.0.1", port)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=variables(), stdout=output, stderr=output
        )
        local_servers.started.add(address)
        try:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    socket.create_connection(address, timeout=1).close()
                    break
                except OSError:
                    ended = process.poll() is not None
                    if ended or time.monotonic() > deadline:
                        raise AssertionError(log.read_text(errors="replace")[-4000:]) from None
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            local_servers.started.discard(address)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
