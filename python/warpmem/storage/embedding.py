"""A change that may bring vectors which were waited for."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import StoreCorrupt
from ..records import Record
from . import codec
from .transaction import StoreTransaction
from .values import HistoryValue, decode, make_record


class EmbeddingTransaction(StoreTransaction):
    """Implements protocols.Transaction."""

    def embed(self, key: bytes, version: int, vector: NDArray[np.float32]) -> bool:
        if self._work("embed", key, version) is None:
            return False
        self._dequeue(key, version, "embed")
        waiting = self._row(key, version)
        record = self._version(key, version)
        self._remove_row(key, version)
        item = record.item
        self._put_row(msgspec.structs.replace(waiting, vector=vector, metadata=item.metadata, text=item.text))
        self._log("embed", record)
        return True

    def _version(self, key: bytes, version: int) -> Record:
        current = self.get(key)
        if current is not None and current.item.version == version:
            return current
        stored = self._read("history", codec.history_key(key, version))
        past = None if stored is None else decode(stored, HistoryValue).item
        if past is None:
            raise StoreCorrupt(f"version {version} of key {key.hex()} is missing; run a restore from backup")
        return make_record(key, past)
