"""What the cuda backend is told of its device, as Config and VectorIndex take it."""

from __future__ import annotations

import threading
import weakref
from typing import Any, NamedTuple

from ..ops import host_memory
from . import inputs

LEAST_VRAM = 1 << 20
_SHARE_OF_HOST = 8
_MAX_DEVICE = 1 << 16


class PinnedPromise:
    """Bytes of pinned host memory that a pool may take. Where nobody said how many, they are kept from the
    other pools of the process as long as this lives."""

    __slots__ = ("__weakref__", "bytes")

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes


_promised: weakref.WeakSet[PinnedPromise] = weakref.WeakSet()
_promising = threading.Lock()


class DeviceOptions(NamedTuple):
    """device: its number. vram_bytes: of its memory that a pool may take, all in all; None is half of what is
    free when the pool is made. pinned_bytes: of host memory, for the rows of lists that find no whole place
    there, whose codes then lie on the device; None is half of what other pools of the process leave of an
    eighth of what the host has available when the pool is made, and 0 leaves such lists to the CPU.
    rebuild_ms: milliseconds after which a device that failed is tried again; 0 leaves that to rebuild()."""

    device: int = 0
    vram_bytes: int | None = None
    pinned_bytes: int | None = None
    rebuild_ms: int = 1000

    def checked(self) -> DeviceOptions:
        """These, of whatever type they came. Raises InputError."""
        return DeviceOptions(
            inputs.integer(self.device, "device", 0, _MAX_DEVICE),
            _bytes(self.vram_bytes, "vram_bytes", LEAST_VRAM),
            _bytes(self.pinned_bytes, "pinned_bytes", 0),
            inputs.integer(self.rebuild_ms, "rebuild_ms", 0, inputs.MAX_ID),
        )

    def pinned(self, share: int = 1) -> PinnedPromise:
        """The limit of pinned host memory of one of `share` pools that are one index."""
        if self.pinned_bytes is not None:
            return PinnedPromise(self.pinned_bytes // share)
        with _promising:
            most = host_memory.available() // _SHARE_OF_HOST
            left = max(0, most - sum(promise.bytes for promise in _promised))
            promise = PinnedPromise(left // 2 // share)
            _promised.add(promise)
        return promise


def _bytes(value: Any, what: str, least: int) -> int | None:
    return None if value is None else inputs.integer(value, what, least, inputs.MAX_ID)
