"""What the durable log stands on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Engine(Protocol):
    """An ordered key-value store with named families: bytes in, bytes out, no meaning.

    Reads are thread-safe. Writes come from one thread at a time. All errors are StoreError.
    """

    @property
    def absent(self) -> Sequence[str]:
        """Families that the store of an older format, opened read-only, does not have. They are empty."""
        ...

    def get(self, family: str, key: bytes) -> bytes | None: ...
    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(
        self, family: str, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, ascending (descending when reverse), from one moment in time.

        A damaged block raises StoreCorrupt; the iteration never ends early in silence.
        """
        ...

    def chunks(
        self, family: str, start: bytes, stop: bytes, size: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """What scan gives, as (keys, values) of up to `size` entries: for many entries, in less time. Of what
        is written meanwhile behind the last of them, some may come too."""
        ...

    def write(self, operations: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """Apply (family, key, value) in order, all or nothing; value None deletes. Survives the death of the
        process, not a power loss until sync(). DiskFull before the attempt means nothing was applied; after
        a failed attempt (DiskFull, StoreReadOnly) all or nothing of it is found at the next open."""
        ...

    def clear(self, family: str) -> None:
        """Remove every entry of a family; a write like any other."""
        ...

    def sync(self) -> None:
        """Make every earlier write durable. After a failure the engine refuses all writes."""
        ...

    def require_room(self, size: int) -> None:
        """Raise DiskFull unless a file of `size` bytes fits beside the database above the low-water mark.
        On the thread of write."""
        ...

    def compact(self, ranges: Sequence[tuple[str, bytes, bytes]], *, frees: bool = True) -> int:
        """Write the files that hold these ranges (family, start, stop) anew, without what was deleted or
        replaced in them. On any thread; reads and writes go on. Returns how many files were replaced.
        frees: it is there to make room, and until it has it may use what lies below the low-water mark.
        Raises DiskFull when there is no room for what must be written anew."""
        ...

    def renew(self) -> None:
        """Leave no file behind that holds what compact() removed, and no trace of it in those that record
        the others. On the thread of write; reads wait, scans go on in the state of now. Waits for a
        compact() that another thread is at."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes on disk and in memory, by part."""
        ...

    def close(self) -> None:
        """Flush and release; idempotent."""
        ...
