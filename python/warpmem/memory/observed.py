"""What a Memory tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config import Config
from ..ops.metrics import exposition
from ..protocols import Log, SearchBackend
from ..types import Stats
from . import exposing

if TYPE_CHECKING:
    from .browser import Browser
    from .reembed import Reembedding
    from .serving import Current
    from .telemetry import Telemetry


class Observed:
    """The part of Memory that is about the store itself. See Memory."""

    _config: Config
    _log: Log
    _backend: SearchBackend
    _backend_reason: str
    _browser: Browser
    _current: Current
    _reembedding: Reembedding
    _telemetry: Telemetry
    _check_open: Callable[[], None]

    def stats(self) -> Stats:
        """Counters of the store, its index, its models and its caches."""
        self._check_open()
        with self._current.use() as serving:
            rows, device, vectors = serving.index.stats(), serving.index.tiers(), serving.vectors
        running = self._reembedding.running
        return self._browser.stats(
            self._config, vectors.identity, rows, device, self._backend.name, self._backend_reason, running,
            vectors.stats(),
        )  # fmt: skip

    def metrics(self) -> str:
        """Counters since the store was opened, and its state, in Prometheus' text format 0.0.4. Labels are
        names of lanes, stages and the like: never whose anything is, nor a text."""
        stats = self.stats()
        return exposition([*self._telemetry.families(), *exposing.families(stats, self._log.epoch)])
