"""Where VectorIndex finds approximate search, in the builds that have it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import NotSupported
from ..protocols import RowPool
from .clustering import Training


class Approximate(Protocol):
    """What index/ivf.py offers. Metrics are those of a pool: "dot" or "l2"."""

    def build_ivf(
        self,
        pool: RowPool,
        *,
        recall: float,
        storage: str,
        metric: str,
        threads: int,
        seed: int,
        training: Training,
    ) -> RowPool | None:
        """A pool of the same rows whose searches reach `recall`; None when there are too few to gain by it.

        Rows may leave `pool` meanwhile and others come: whoever changes it tells the new pool afterwards.
        """
        ...

    def training_rows(self, dim: int) -> int:
        """How many vectors `train_pq` needs."""
        ...

    def train_pq(
        self,
        vectors: NDArray[np.float32],
        *,
        n_columns: int,
        metric: str,
        threads: int,
        seed: int,
        training: Training,
    ) -> RowPool:
        """An empty pool that keeps codes only, with codebooks from these vectors."""
        ...

    def open_ivf(self, pool: Any, sections: dict[str, Any], *, metric: str, threads: int) -> RowPool:
        """The pool that wrote `sections` with its own `save(path, sections)`, from these and the native pool
        in the file."""
        ...


def approximate() -> Approximate:
    """The module. Raises NotSupported where this build has none."""
    if find_spec(f"{__package__}.ivf") is None:
        raise NotSupported('this build has no approximate search; use recall=1 and storage other than "pq"')
    return cast(Approximate, import_module(".ivf", __package__))


def measured(pool: RowPool) -> dict[str, Any]:
    """What tuning found for the owners that are searched approximately; nothing for an exact pool.

    recall: the lowest of theirs. tuned: by owner, its cells, n_probes, refine and recall.
    """
    owners = getattr(pool, "owners", None)
    if not owners:
        return {}
    tuned = {
        owner: {
            "cells": cells.n_cells,
            "n_probes": cells.n_probes,
            "refine": cells.refine,
            "recall": cells.recall,
        }
        for owner, cells in owners.items()
    }
    return {"recall": min(entry["recall"] for entry in tuned.values()), "tuned": tuned}
