"""Re-embedding: the vectors of another model are made beside those in use, which then give way to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import Conflict, InputError
from ..protocols import Log, VectorBuild
from ..records import VersionName
from ..types import MemoryItem
from .serving import Current, Serving
from .vectors import Vectors, background

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
        vectors: Vectors,
        serving: Callable[[VectorBuild], Serving],
        given: Given,
        progress: Progress | None,
        batch: int,
    ) -> int:
        """Build, switch, tidy up; returns how many vectors were made, by earlier attempts too.

        vectors: of the new model. serving: what works with them once they are in use.
        """
        with self._alone():
            if self._before is not None:  # a call that was interrupted after it had switched
                self._current.wait_unused(self._before)
            build = self._log.build_vectors(vectors.model_id, vectors.dimension)
            if build.job.done:  # a call that failed after it had switched
                return self._finish(build)
            maker = _Maker(self._log, vectors, given)
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
            build.store(unit, maker.make(unit.lacking))
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

    def make(self, names: Sequence[VersionName]) -> dict[VersionName, NDArray[np.float32]]:
        """By name, (dimension,) float32, normalised. Versions that are gone are left out."""
        items = {name: record.item for name in names if (record := self._log.get_version(*name)) is not None}
        if not items:
            return {}
        texts = [item.text for item in items.values()]
        owners = [(item.scope.owner,) for item in items.values()]
        with background("reembed"):
            try:
                rows = self._vectors.embed(texts, "document", owners)
            except InputError:
                rows = np.stack([self._one(item) for item in items.values()])
        return dict(zip(items, self._vectors.normalize(rows), strict=True))

    def _one(self, item: MemoryItem) -> NDArray[np.float32]:
        found: NDArray[np.float32]
        try:
            found = self._vectors.embed([item.text], "document", [(item.scope.owner,)])[0]
        except InputError as error:
            if self._given == "refuse":
                raise InputError(
                    f"version {item.version} of item {item.id} has no text that {self._vectors.model_id!r} "
                    "can embed: pass given=, a function from such items to vectors"
                ) from error
            found = self._vectors.given(self._given([item]), 1)[0]
        return found


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
