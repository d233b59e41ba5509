"""Vectors that were made before: of texts that are searched for or stored again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..types import Owner

_encode: Final = msgspec.msgpack.Encoder().encode
_OVERHEAD: Final = 512
"""About what an entry takes beside the numbers of its vector."""


class Key(NamedTuple):
    """Whose text, and a digest of that, the model, the role and the text. Each owner has entries of his own:
    else how fast a text is embedded would tell him that another had it too. owners: several for a query over
    scopes of several."""

    owners: tuple[Owner, ...]
    digest: bytes


def key(owners: Sequence[Owner], model_id: str, role: str, text: str) -> Key:
    """The key of a text."""
    whose = tuple(owners)
    return Key(whose, blake2b(_encode((whose, model_id, role, text)), digest_size=16).digest())


class EmbeddingCache:
    """Vectors by key in memory, `most` bytes of them at most; what was not used for longest leaves first.
    With 0 bytes it keeps nothing. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._vectors: OrderedDict[bytes, tuple[tuple[Owner, ...], NDArray[np.float32]]] = OrderedDict()
        self._bytes = 0
        self._epoch = 0
        self._hits = 0
        self._misses = 0

    @property
    def keeps(self) -> bool:
        """Whether it keeps anything at all."""
        return self._most > 0

    def get(self, keys: Sequence[Key]) -> tuple[list[NDArray[np.float32] | None], int]:
        """The vectors, which are not to be changed, or None; and the epoch, which `put` wants to know."""
        found: list[NDArray[np.float32] | None] = []
        with self._lock:
            for _, digest in keys:
                entry = self._vectors.get(digest)
                if entry is None:
                    found.append(None)
                    self._misses += 1
                else:
                    found.append(entry[1])
                    self._vectors.move_to_end(digest)
                    self._hits += 1
            return found, self._epoch

    def put(self, keys: Sequence[Key], rows: NDArray[np.float32], epoch: int) -> None:
        """Keep copies of the rows, unless somebody was forgotten since `epoch`: they may be his."""
        size = rows.shape[1] * rows.itemsize + _OVERHEAD
        copies = [row.copy() for row in rows]
        with self._lock:
            if epoch != self._epoch:
                return
            for (owners, digest), row in zip(keys, copies, strict=True):
                if digest not in self._vectors:
                    self._bytes += size
                self._vectors[digest] = owners, row
            while self._bytes > self._most:
                _, (_, oldest) = self._vectors.popitem(last=False)
                self._bytes -= oldest.nbytes + _OVERHEAD

    def forget(self, erased: Callable[[Owner], bool]) -> None:
        """Drop the entries of every owner of whom `erased` is true, those that are being made included."""
        with self._lock:
            self._epoch += 1
            known: dict[Owner, bool] = {}
            for digest, (owners, row) in list(self._vectors.items()):
                for owner in owners:
                    if owner not in known:
                        known[owner] = erased(owner)
                if any(known[owner] for owner in owners):
                    del self._vectors[digest]
                    self._bytes -= row.nbytes + _OVERHEAD

    def stats(self) -> dict[str, float]:
        """vectors, bytes, capacity, hits, misses, hit_rate."""
        with self._lock:
            return {
                "vectors": len(self._vectors),
                "bytes": self._bytes,
                "capacity": self._most,
                "hits": self._hits,
                "misses": self._misses,
                "hit_rate": self._hits / max(1, self._hits + self._misses),
            }
