"""The engine in memory: for stores without a path, and a fake with faults for tests."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence

from ..errors import StoreClosed, StoreError, StoreReadOnly
from .codec import FAMILIES, KEYS_END


class _Family:
    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []  # ascending
        self.values: dict[bytes, bytes] = {}


class MemoryEngine:
    """protocols.Engine on sorted lists. Nothing survives close(); all else is as on disk. Thread-safe.

    A scan copies its range when it begins, so a scan of n entries costs O(n) even if few are taken. Inserting
    a key costs O(entries of its family), by memmove.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {family: _Family() for family in FAMILIES}
        self._closed = False
        self._failure: str | None = None
        self._write_fault: tuple[int, StoreError] | None = None
        self._sync_fault: StoreError | None = None

    # ------------------------------------------------------------------------------------- faults

    def fail_after(self, n_writes: int, error: StoreError) -> None:
        """Let `n_writes` more writes pass; every later one raises `error`, until clear_faults()."""
        self._write_fault = (n_writes, error)

    def fail_sync(self, error: StoreError) -> None:
        """Raise `error` from the next sync. As on disk, every write and sync after it is refused for good."""
        self._sync_fault = error

    def clear_faults(self) -> None:
        """Forget the faults that were asked for and have not stopped the engine yet."""
        self._write_fault = None
        self._sync_fault = None

    # -------------------------------------------------------------------------------------- reads

    @property
    def absent(self) -> Sequence[str]:
        """See protocols.Engine: none."""
        return ()

    def get(self, family: str, key: bytes) -> bytes | None:
        """See protocols.Engine."""
        return self._family(family).values.get(key)

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """See protocols.Engine."""
        with self._lock:
            values = self._family(family).values
            return [values.get(key) for key in keys]

    def scan(
        self, family: str, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See protocols.Engine."""
        with self._lock:
            held = self._family(family)
            low, high = bisect.bisect_left(held.keys, start), bisect.bisect_left(held.keys, stop)
            entries = [(key, held.values[key]) for key in held.keys[low:high]]
        return self._walk(reversed(entries) if reverse else iter(entries))

    def chunks(
        self, family: str, start: bytes, stop: bytes, size: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See protocols.Engine."""
        entries = self.scan(family, start, stop)
        while part := list(itertools.islice(entries, size)):
            yield [key for key, _ in part], [value for _, value in part]

    def _walk(self, entries: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for entry in entries:
            self._check_open()
            yield entry

    def sizes(self) -> dict[str, int]:
        """Bytes: memtables (keys and values held)."""
        with self._lock:
            self._check_open()
            held = sum(
                len(key) + len(value)
                for family in self._families.values()
                for key, value in family.values.items()
            )
        return {"memtables": held}

    # ------------------------------------------------------------------------------------- writes

    def write(self, operations: Sequence[tuple[str, bytes, bytes | None]]) -> None:
        """See protocols.Engine."""
        with self._lock:
            self._check_writable()
            for family, key, value in operations:
                self._family(family)
                if not isinstance(key, bytes) or not (value is None or isinstance(value, bytes)):
                    raise TypeError(f"a key and a value of family {family} must be bytes")
            if not operations:
                return
            if self._write_fault is not None:
                left, error = self._write_fault
                if left == 0:
                    raise error
                self._write_fault = (left - 1, error)
            for family, key, value in operations:
                held = self._families[family]
                if value is not None:
                    if key not in held.values:
                        bisect.insort(held.keys, key)
                    held.values[key] = value
                elif held.values.pop(key, None) is not None:
                    del held.keys[bisect.bisect_left(held.keys, key)]

    def clear(self, family: str) -> None:
        """See protocols.Engine."""
        self.write([(family, key, None) for key, _ in self.scan(family, b"", KEYS_END)])

    def sync(self) -> None:
        """See protocols.Engine."""
        with self._lock:
            self._check_writable()
            if self._sync_fault is not None:
                error, self._sync_fault = self._sync_fault, None
                self._failure = (
                    f"writes stopped after a failed sync ({error}). What was acknowledged before is safe and "
                    "reads go on; remove the cause, then close the store and open it again"
                )
                raise error

    def require_room(self, size: int) -> None:
        """See protocols.Engine. There is no disk."""

    def compact(self, ranges: Sequence[tuple[str, bytes, bytes]], *, frees: bool = True) -> int:
        """See protocols.Engine. What is deleted here is gone."""
        self._check_writable()
        return 0

    def renew(self) -> None:
        """See protocols.Engine."""
        self._check_writable()

    def close(self) -> None:
        """See protocols.Engine."""
        with self._lock:
            self._closed = True
            self._families = {}

    def _family(self, family: str) -> _Family:
        held = self._families.get(family)
        if held is None:
            self._check_open()
            raise KeyError(f"no family {family!r}: expected one of {', '.join(FAMILIES)}")
        return held

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed: open it again")

    def _check_writable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise StoreReadOnly(self._failure)
