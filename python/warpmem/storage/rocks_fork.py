"""RocksDB in a forked child: what it cannot do there, said at once, and an end without a crash.

What is odd about it, and why:

* RocksDB's background threads are started by the first open and stay for good. A child has none of them, but
  its copy of RocksDB believes that they are there: a flush waits for ever, and with it the write that needs
  it. Reading needs none of them.
* A database that the parent had open must be neither used nor closed: its mutexes may be held.
* RocksDB joins its threads in a destructor when the process exits, by the memory of their stacks, which the
  child's C library may have given back. So the child leaves just before that, as os._exit does: handlers of
  libraries that were loaded before the fork do not run in it. Python's own end and all it does come earlier.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from ..errors import StoreError

# Looked up here and not in the child, where another thread of the parent may have held the loader's lock.
_c: Final = ctypes.pythonapi
_exit: Final = getattr(_c, "_exit", None)
_on_exit: Final = getattr(_c, "on_exit", None)
_at_exit: Final = getattr(_c, "__cxa_atexit", None)
_flush: Final = getattr(_c, "fflush", None)
_add_reference: Final = _c.Py_IncRef

_opened = False
_lacks_threads = False


def note_open() -> None:
    """RocksDB is about to be opened in this process."""
    global _opened
    _opened = True


def check_threads() -> None:
    """Raise StoreError where RocksDB could not write: in a fork of a process that had opened it."""
    if _lacks_threads:
        raise StoreError(
            f"process {os.getpid()} is a fork of one that had opened a store, and RocksDB's threads stayed "
            "there: a change would wait for them for ever. Write in a process that is started by spawn, "
            "forkserver or exec, or fork before a store is opened; this one may open stores with "
            "read_only=True or follow=True"
        )


def keep_for_ever(what: object) -> None:
    """Never destroy it, not even when the interpreter ends."""
    _add_reference(ctypes.py_object(what))


def _after_fork_in_child() -> None:
    global _lacks_threads
    if not _opened or _lacks_threads:
        return
    _lacks_threads = True
    if all((_exit, _on_exit, _at_exit, _flush)):  # not in every C library
        # The last that is registered runs first.
        _on_exit(_exit, None)  # type: ignore[misc]  # is given the exit status
        _at_exit(_flush, None, None)  # type: ignore[misc]  # every stream of C


os.register_at_fork(after_in_child=_after_fork_in_child)
