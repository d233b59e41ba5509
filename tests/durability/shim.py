"""The shim between a store and its disk (shim.c), seen from Python.

It is preloaded into a process of its own: `environment(build(folder))` for that process, and `begin(...)` in
it when the store's folder is to be watched."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

OPERATIONS = ("open", "write", "fsync", "rename", "unlink", "truncate")


class Unavailable(RuntimeError):
    """There is no C compiler, or no way to preload."""


@functools.cache
def build() -> Path:
    """The shared object, compiled once a process. Raises Unavailable."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("needs a C compiler for the shim between the store and its disk")
    folder = Path(tempfile.mkdtemp(prefix="warpmem-shim-"))
    shim = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    done = subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Unavailable(f"the shim does not compile here: {done.stderr}")
    return shim


def environment() -> dict[str, str]:
    """What a process needs in its environment to have the shim."""
    return {"LD_PRELOAD": str(build())}


def begin(
    root: str,
    *,
    trace: str | None = None,
    keep: str | None = None,
    fail: str | None = None,
    at: int = 0,
    number: int = errno.EIO,
    half: bool = False,
    ever: bool = False,
) -> None:
    """Watch everything below `root` from now on, in a process that has the shim.

    trace: a file that notes every call. keep: a folder for what is replaced or removed. fail: an operation
    whose `at`-th call (from 1 on) fails with the errno `number`; half: a failing write leaves half of its
    bytes; ever: the calls after it fail as well."""
    library = ctypes.CDLL(None)
    encoded = [None if text is None else os.fsencode(text) for text in (root, trace, keep, fail)]
    done: int = library.shim_begin(*encoded, ctypes.c_long(at), number, int(half) | int(ever) << 1)
    if done != 0:
        raise OSError(done, os.strerror(done))
