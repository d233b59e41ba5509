"""Whether an embedder has the weights that made the store's vectors, whichever program made them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..embed.weights import SAME, cosine
from ..errors import ModelMismatch
from ..protocols import Embedder, Log, Transaction
from ..records import StoreIdentity, probe_key


class StoredProbe:
    """The embedder's vector of a fixed text, and the one in the store, which the first of its vectors left
    there. Does nothing with embedders that have no `probe`. Thread-safe.
    """

    def __init__(self, log: Log, identity: StoreIdentity, embedder: Embedder) -> None:
        self._log = log
        self._identity = identity
        self._embedder: Any = embedder
        self._watched = hasattr(embedder, "probe")
        self._key = probe_key(identity.vectors)
        self._lock = threading.Lock()
        self._compared: Any = None
        self._other: ModelMismatch | None = None
        self._is_stored = False

    def check(self) -> None:
        """After the embedder was asked, before what it gave is used. Raises ModelMismatch when its weights
        are not those that made the store's vectors."""
        if not self._watched:
            return
        now = self._embedder.probe
        if now is not None and now is self._compared:
            return
        with self._lock:
            if now is not None:
                self._compare(now)
            if self._other is not None:
                raise ModelMismatch(*self._other.args)

    def leave(self, transaction: Transaction) -> None:
        """Inside a change that stores vectors: keep the probe of the first of them."""
        if self._watched and not self._is_stored and (now := self._embedder.probe) is not None:
            self._is_stored = self._log.kept(self._key) is not None
            if not self._is_stored:
                transaction.keep(self._key, np.ascontiguousarray(now, "<f4").tobytes())

    def _compare(self, now: NDArray[np.float32]) -> None:
        stored = self._log.kept(self._key)
        found = 1.0
        if stored is not None and len(stored) == 4 * len(now):
            found = cosine(np.frombuffer(stored, "<f4"), now)
        if found >= SAME:
            self._compared, self._other = now, None
            return
        getattr(self._embedder, "forget_probe", int)()  # what answers next is compared again
        self._other = ModelMismatch(
            f"{self._identity.model_id!r} has other weights than those that made the store's vectors: one "
            f"text's two vectors have the cosine {found:.3f}, not at least {SAME}; let the server serve the "
            "model that made them, or change the store with reembed() to one with a model_id of its own"
        )
