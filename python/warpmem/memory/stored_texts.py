"""The vectors of texts that are stored already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..protocols import Log
from ..records import VersionName
from ..types import MemoryItem
from .vectors import Vectors, background

F32 = NDArray[np.float32]
Instead = Callable[[MemoryItem, InputError], "F32 | None"]
"""(item whose text the model cannot embed, why) -> its vector, (dim,) float32; None: it gets none."""


def embed_stored(
    log: Log, vectors: Vectors, names: Sequence[VersionName], instead: Instead, job: str
) -> dict[VersionName, F32 | None]:
    """By name, (dim,) float32, normalised, or None as `instead` says; in the background lane. Versions that
    are gone are left out. job: whose cost it is. Raises as Vectors.embed, but not InputError."""
    items = {name: record.item for name in names if (record := log.get_version(*name)) is not None}
    if not items:
        return {}
    owners = [(item.scope.owner,) for item in items.values()]
    with background(job):
        try:
            rows = list(vectors.embed([item.text for item in items.values()], "document", owners))
        except InputError:
            rows = [_one(vectors, item, instead) for item in items.values()]
    return {
        name: None if row is None else vectors.normalize(row.reshape(1, -1))[0]
        for name, row in zip(items, rows, strict=True)
    }


def _one(vectors: Vectors, item: MemoryItem, instead: Instead) -> F32 | None:
    try:
        found: F32 = vectors.embed([item.text], "document", [(item.scope.owner,)])[0]
    except InputError as error:
        return instead(item, error)
    return found
