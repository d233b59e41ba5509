"""What a Memory tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from ..config import Config
from ..ops.device_counts import added_up
from ..ops.metrics import exposition
from ..protocols import Log, SearchBackend
from ..types import Cost, Scope, Stats
from . import arguments, costing, exposing
from .costing import CostBy

if TYPE_CHECKING:
    from .browser import Browser
    from .costs import CostLedger
    from .embed_later import EmbedLater
    from .extract_later import ExtractLater
    from .pending import Runner
    from .reembed import Reembedding
    from .serving import Current
    from .spaces import Spaces
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
    _spaces: Spaces
    _embed_later: EmbedLater
    _extract_later: ExtractLater
    _pending: Runner
    _telemetry: Telemetry
    _costs: CostLedger
    _check_open: Callable[[], None]

    def stats(self) -> Stats:
        """Counters of the store, its index, its models and its caches."""
        self._check_open()
        with self._current.use() as serving:
            rows, vectors = serving.index.stats(), serving.vectors
            device = added_up([serving.index.tiers(), *self._spaces.tiers()])
        running = self._reembedding.running
        return self._browser.stats(
            self._config, vectors.identity, rows, device, self._backend.name, self._backend_reason, running,
            vectors.stats(), self._spaces.stats(),
            {
                "embed": self._embed_later.status(self._pending.failure),
                "extract": self._extract_later.status(self._pending.failure),
            },
        )  # fmt: skip

    def costs(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        since: date | datetime | None = None,
        by: CostBy | Sequence[CostBy] = "scope",
    ) -> tuple[Cost, ...]:
        """What models did and cost, added up by what `by` names: any of "day", "scope", "lane", "job" and
        "model". In order of these.

        scope: that of one owner (a user, or an agent, run or corpus that is one), else all of them. since:
        the first day, of UTC; None is all that the store keeps (`cost_days`). What happens within a minute
        before a crash may be missing; read-only processes tell what they spent themselves besides. Raises
        InputError.
        """
        self._check_open()
        whose = arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id)
        return costing.costs(self._log, self._costs, whose, since, by)

    def metrics(self) -> str:
        """Counters since the store was opened, and its state, in Prometheus' text format 0.0.4. Labels are
        names of lanes, stages and the like: never whose anything is, nor a text."""
        stats = self.stats()
        return exposition([*self._telemetry.families(), *exposing.families(stats, self._log.epoch)])
