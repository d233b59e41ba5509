"""What the end of the log tells of the whole: counters, and when the newest key was made."""

from __future__ import annotations

import itertools

from ..errors import StoreCorrupt
from ..ops.ids import key_time
from ..protocols import Engine
from ..records import LogEntry
from . import codec
from .transaction import LogState
from .values import decode

_KEY_SEARCH = 4096
_NEWEST = 1024


def decode_entry(key: bytes, stored: bytes) -> LogEntry:
    """A log entry as it is stored under a key. Raises StoreCorrupt."""
    entry = decode(codec.unseal("log", key, stored), LogEntry)
    if codec.log_key(entry.sequence) != key:
        raise StoreCorrupt(f"log entry {entry.sequence} stands at key {key.hex()}")
    return entry


def load_state(engine: Engine) -> LogState:
    """The counters that the last log entry and the last owner number give."""
    state = LogState()
    for key, stored in engine.scan("log", b"", b"\xff" * 9, reverse=True):
        entry = decode_entry(key, stored)
        state.sequence, state.at, state.items = entry.sequence, entry.at, entry.items
        break
    start, stop = codec.prefix_range(codec.owner_state_key(0)[:1])
    for key, _ in engine.scan("owners", start, stop, reverse=True):
        state.owners = int.from_bytes(key[1:], "big")
        break
    return state


def last_key_time(engine: Engine) -> int:
    """When the newest item key was made: later than any clock said when that stood still or went back."""
    for key, stored in itertools.islice(engine.scan("log", b"", b"\xff" * 9, reverse=True), _KEY_SEARCH):
        entry = decode_entry(key, stored)
        if entry.operation == "add":
            return key_time(entry.key)
    return 0


def check_unbroken(engine: Engine) -> None:
    """Refuse a store whose newest changes do not follow one another. Changes that wait together are synced
    together, and between two of them RocksDB may begin a file: after a power loss the second can be there
    without the first. Nobody was told that either is stored, but the second counts the first. Raises
    StoreCorrupt."""
    newest = itertools.islice(engine.scan("log", b"", b"\xff" * 9, reverse=True), _NEWEST)
    numbers = [codec.read_log_key(key) for key, _ in newest]
    for later, number in itertools.pairwise(numbers):
        if later - number != 1:
            raise StoreCorrupt(
                f"change {later - 1} is missing, and change {later} is there, as after a loss of power; "
                "restore the directory from a backup, or salvage it with `warpmem repair`"
            )
