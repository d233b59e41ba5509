"""Re-embedding: the vectors of another model are made beside those in use, which then give way to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import Conflict, InputError
from ..protocols import Embedder, Log, VectorBuild
from ..records import StoreIdentity, VersionName
from ..types import MemoryItem
from .serving import Current, Serving
from .stored_texts import embed_stored
from .vectors import Vectors

Given = Literal["refuse"] | Callable[[Sequence[MemoryItem]], Any]
Progress = Callable[[int, int], None]

BATCH = 64
_TAIL = 256  # changes that the switch itself may follow
_TRIES = 8  # switches that give up for vectors that could be made outside


class Reembedding:
    """One store's changes of the embedding model, one at a time. Thread-safe."""

    def __init__(self, log: Log, current: Current) -> None:
        self._log = log
        self._current = current
        self._lock = threading.Lock()
        self._before: Serving | None = None  # whose vectors may still be there

    @property
    def running(self) -> bool:
        return self._lock.locked()

    def run(
        self,
        embedder: Embedder,
        vectors: Callable[[StoreIdentity], Vectors],
        serving: Callable[[VectorBuild], Serving],
        given: Given,
        progress: Progress | None,
        batch: int,
    ) -> int:
        """Build, switch, tidy up; returns how many vectors were made, by earlier attempts too.

        embedder: the new model. vectors: of it, in a store of this identity. serving: what works with them
        once they are in use.
        """
        with self._alone():
            if self._before is not None:  # a call that was interrupted after it had switched
                self._current.wait_unused(self._before)
            build = self._log.build_vectors(embedder.model_id, embedder.dimension)
            if build.job.done:  # a call that failed after it had switched
                return self._finish(build)
            maker = _Maker(self._log, vectors(build.identity), given)
            total = build.count() if progress is not None else 0

            def tell() -> None:
                if progress is not None:
                    progress(build.job.rows, max(total, build.job.rows))

            tell()
            self._catch_up(build, maker, batch, tell)
            old, new = self._current.now, serving(build)
            self._switch(build, maker, batch, tell, old, new)
            tell()
            self._current.wait_unused(old)
            return self._finish(build)

    def _finish(self, build: VectorBuild) -> int:
        rows = build.job.rows
        build.finish()
        self._before = None
        return rows

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(blocking=False):
            raise Conflict("this store is being re-embedded already: wait until that is done")
        try:
            yield
        finally:
            self._lock.release()

    def _catch_up(self, build: VectorBuild, maker: _Maker, batch: int, tell: Callable[[], None]) -> None:
        while (unit := build.next(batch, self._log.entries)) is not None:
            build.store(unit, maker.make(unit.lacking), maker.leave_probe)
            tell()

    def _switch(
        self,
        build: VectorBuild,
        maker: _Maker,
        batch: int,
        tell: Callable[[], None],
        old: Serving,
        new: Serving,
    ) -> None:
        ready: dict[VersionName, NDArray[np.float32]] = {}

        def applied() -> None:
            self._before = old  # here, on the committer thread, where no interrupt comes between
            self._current.replace(new)

        for attempt in range(_TRIES):
            lacking = build.switch(
                _Last(maker, ready) if attempt + 1 == _TRIES else ready,
                _TAIL if attempt + 1 < _TRIES else 1 << 62,
                old.index.discard,
                applied,
            )
            if lacking is None:
                return
            if lacking:
                ready.update(maker.make(lacking))
            else:
                self._catch_up(build, maker, batch, tell)


class _Maker:
    """Makes the vectors of stored versions, from their texts."""

    def __init__(self, log: Log, vectors: Vectors, given: Given) -> None:
        self._log = log
        self._vectors = vectors
        self._given = given
        self.leave_probe = vectors.leave_probe

    def make(self, names: Sequence[VersionName]) -> dict[VersionName, NDArray[np.float32]]:
        """By name, (dimension,) float32, normalised. Versions that are gone are left out."""
        found = embed_stored(self._log, self._vectors, names, self._instead, "reembed")
        return {name: vector for name, vector in found.items() if vector is not None}

    def _instead(self, item: MemoryItem, error: InputError) -> NDArray[np.float32]:
        if self._given == "refuse":
            raise InputError(
                f"version {item.version} of item {item.id} has no text that {self._vectors.model_id!r} "
                "can embed: pass given=, a function from such items to vectors"
            ) from error
        vector: NDArray[np.float32] = self._vectors.given(self._given([item]), 1)[0]
        return vector


class _Last(Mapping[VersionName, NDArray[np.float32]]):
    """Vectors that are made where they are asked for: for a store that is written faster than one can follow,
    whose writers have to wait for that in the end."""

    def __init__(self, maker: _Maker, ready: Mapping[VersionName, NDArray[np.float32]]) -> None:
        self._maker = maker
        self._ready = dict(ready)

    def __getitem__(self, name: VersionName) -> NDArray[np.float32]:
        if name not in self._ready:
            self._ready.update(self._maker.make([name]))
        return self._ready[name]

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[VersionName]:
        return iter(self._ready)

    def __len__(self) -> int:
        return len(self._ready)
