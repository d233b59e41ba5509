"""The native CPU backend: a thin adapter over the compiled module `_cpu`."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..protocols import RowPool


def _load() -> tuple[ModuleType | None, str | None]:
    """The compiled module, or the reason it cannot be used."""
    try:
        from .. import _cpu
    except ImportError as error:
        return None, f"the compiled module warpmem._cpu cannot be imported ({error})"
    return _cpu, None


def make_postings() -> Any:
    """An empty `_cpu.Postings`. Raises BackendUnavailable without the compiled module."""
    module, reason = _load()
    if module is None:
        raise BackendUnavailable(f"search by words and neighbours: {reason}")
    return module.Postings()


class CpuBackend:
    """Exact scan in C++. Thread-safe; long scans and changes run without the GIL.

    isa: "auto" for the best instruction set of this machine, or one of `isas()` to force it. One that is not
    supported here makes the backend unavailable; nothing else is run in its place.
    """

    name = "cpu"
    capabilities = frozenset({"scan", "filter", "ranking", "added", "file"})

    def __init__(self, isa: str = "auto") -> None:
        self._isa = isa
        self._module, self._reason = _load()
        if self._module is not None and isa != "auto" and isa not in self._module.isas():
            known = ", ".join(self._module.isas())
            self._reason = f"instruction set {isa!r} is not supported here; choose auto or one of {known}"

    def available(self) -> str | None:
        """None when usable here, else the reason and the remedy."""
        return self._reason

    def isas(self) -> list[str]:
        """Instruction sets of this machine that this build can use, best first; empty without the module."""
        return list(self._module.isas()) if self._module is not None else []

    def build_info(self) -> dict[str, str]:
        """compiler, version, arch of the compiled module; empty without it."""
        return dict(self._module.build_info()) if self._module is not None else {}

    def pool(
        self,
        dim: int,
        n_columns: int,
        *,
        storage: str = "f32",
        metric: str = "dot",
        screen: str = "auto",
        threads: int = 1,
    ) -> RowPool:
        """A new, empty pool. ValueError outside dim 1..65536, n_columns 0..1024 or threads 1..1024, or for an
        unknown name.

        storage: how rows are kept, "f32", "f16" or "int8" (a scale a row, codes -127..127). metric: "dot", or
        "l2", whose similarity is the negated squared distance. screen: "int8" keeps int8 images beside float
        rows (a quarter or half of the memory more; scans read as little, with the same results), "none" does
        not, "auto" does where it pays: from 64 dimensions on, but not for f32 with the instruction set
        "serial". threads: how many a large scan may use.
        """
        pool: RowPool = self._usable().Pool(
            dim, n_columns, isa=self._isa, storage=storage, metric=metric, screen=screen, threads=threads
        )
        return pool

    def save_pool(self, pool: RowPool, path: str, sections: Mapping[str, bytes]) -> None:
        """Write a pool and named sections to one file (FORMATS.md), in place of what stands there.

        The file appears whole or not at all. Raises DiskFull, StoreReadOnly, StoreError, IndexCorrupt.
        """
        native: Any = pool
        native.save(path, dict(sections))

    def open_pool(self, path: str, *, threads: int = 1) -> tuple[RowPool, Mapping[str, bytes]]:
        """The pool and the sections of a file that save_pool wrote; mapped, so that it costs little.

        Raises IndexCorrupt, FormatError, FileNotFoundError. Pages are checked when first touched: a damaged
        one raises IndexCorrupt then.
        """
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        found: tuple[RowPool, Mapping[str, bytes]] = self._usable().open_pool(
            path, isa=self._isa, threads=threads
        )
        return found

    def normalize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim) float32 to unit length. ValueError naming the first row that is zero or not finite."""
        unit: NDArray[np.float32] = self._usable().normalize(x)
        return unit

    def _usable(self) -> ModuleType:
        if self._module is None or self._reason is not None:
            raise BackendUnavailable(
                f"backend cpu cannot run here: {self._reason}; reinstall warpmem for this platform"
            )
        return self._module
