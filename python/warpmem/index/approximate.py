"""Where VectorIndex finds approximate search, in the builds that have it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import NotSupported
from ..protocols import RowPool


class Approximate(Protocol):
    """What index/ivf.py offers. Metrics are those of a pool: "dot" or "l2"."""

    def build_ivf(
        self, pool: RowPool, *, recall: float, storage: str, metric: str, threads: int, seed: int
    ) -> RowPool | None:
        """A pool of the same rows whose searches reach `recall`; None when there are too few to gain by
        it."""
        ...

    def training_rows(self, dim: int) -> int:
        """How many vectors `train_pq` needs."""
        ...

    def train_pq(
        self, vectors: NDArray[np.float32], *, n_columns: int, metric: str, threads: int, seed: int
    ) -> RowPool:
        """An empty pool that keeps codes only, with codebooks from these vectors."""
        ...

    def open_ivf(self, pool: Any, sections: dict[str, Any], *, metric: str, threads: int) -> RowPool:
        """The pool that `save` of one of the pools above wrote, from the native pool and the sections
        found."""
        ...


def approximate() -> Approximate:
    """The module. Raises NotSupported where this build has none."""
    if find_spec(f"{__package__}.ivf") is None:
        raise NotSupported('this build has no approximate search; use recall=1 and storage other than "pq"')
    return cast(Approximate, import_module(".ivf", __package__))
