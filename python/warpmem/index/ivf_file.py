"""An IvfPool in a file: that of its rows in cells, with more sections.

ivf              JSON: owners with cells, by the cells' first id, and how each is searched
ivf_centroids    float32 (cells, dim), of one owner after another
ivf_plain        the file of the pool of the other owners
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import IndexCorrupt
from .ivf_cells import F32, CellStore
from .ivf_plan import Cells

META, CENTROIDS, PLAIN = "ivf", "ivf_centroids", "ivf_plain"


class OwnerCells(msgspec.Struct, frozen=True):
    """An owner and its `Cells`."""

    owner: int
    first: int
    cells: int
    spherical: bool
    n_probes: int
    refine: int
    recall: float | None
    recall_rows: float | None


def save(path: Any, sections: Mapping[str, Any], cells: CellStore, plain: Any) -> None:
    """Write the rows in cells, the centroids, and the native pool of the other owners. Raises StoreError."""
    known = []
    for owner, found in sorted(cells.owners.items(), key=lambda item: item[1].first):
        measured = [None if np.isnan(value) else float(value) for value in (found.recall, found.recall_rows)]
        shape = (owner, found.first, found.n_cells, found.spherical, found.n_probes, found.refine)
        known.append(OwnerCells(*shape, *measured))
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))
    centroids = [cells.centroids(entry.owner) for entry in known] or [np.zeros(0, np.float32)]
    with tempfile.TemporaryDirectory(
        prefix=".warpmem-", dir=folder
    ) as room:  # read back through the page cache
        beside = os.path.join(room, "plain")
        plain.save(beside, {})
        parts = {
            META: msgspec.json.encode(known),
            CENTROIDS: np.ascontiguousarray(np.concatenate(centroids)).view(np.uint8).ravel(),
            PLAIN: np.memmap(beside, np.uint8, mode="r"),
        }
        cells.rows.save(path, {**sections, **parts})


def read_owners(pool: Any, sections: Mapping[str, NDArray[np.uint8]]) -> dict[int, tuple[Cells, F32]]:
    """The owners in the sections of an opened file, with their centroids. Raises IndexCorrupt when they do
    not fit its rows."""
    try:
        known = msgspec.json.decode(bytes(sections[META]), type=list[OwnerCells])
        centroids = np.array(sections[CENTROIDS]).view(np.float32).reshape(-1, pool.dim)
    except (KeyError, ValueError) as error:
        raise IndexCorrupt("an index file's cells are not what was written; restore a copy") from error
    owners: dict[int, tuple[Cells, F32]] = {}
    at = 0
    for entry in known:
        nan = float("nan")
        measured = [nan if value is None else value for value in (entry.recall, entry.recall_rows)]
        mine = np.ascontiguousarray(centroids[at : at + entry.cells])
        shape = (entry.cells, entry.first, entry.spherical, entry.n_probes, entry.refine)
        owners[entry.owner] = Cells(*shape, *measured), mine
        at += entry.cells
    held = np.concatenate([cells.ids for cells, _ in owners.values()] or [np.zeros(0, np.int64)])
    sound = at == len(centroids) and bool(np.isfinite(centroids).all()) and len(np.unique(held)) == len(held)
    sound = sound and all(0 <= e.first < 1 << 40 and e.cells > 0 and e.n_probes > 0 for e in known)
    sound = sound and all(0 < e.refine <= 4096 for e in known)
    if not sound or not np.isin(pool.lists(), held).all():
        raise IndexCorrupt(f"an index file has {len(held)} cells that do not fit its rows; restore a copy")
    return owners
