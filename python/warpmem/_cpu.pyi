"""Native CPU search core of warpmem."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

_Term = tuple[int, int, int, int]
_Segment = tuple[int, int, int, Sequence[_Term], Sequence[int], NDArray[np.uint64] | None]

class Pool:
    """Rows in lists, with one exact scan. Thread-safe."""

    def __init__(self, dim: int, n_columns: int, *, isa: str = "auto") -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def isa(self) -> str: ...
    def apply(
        self,
        removes: Sequence[tuple[int, int]],
        list_ids: NDArray[np.int64],
        row_ids: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        columns: NDArray[np.int64],
        vectors: NDArray[np.float32],
    ) -> None: ...
    def drop(self, list_ids: Sequence[int]) -> None: ...
    def scan(
        self,
        queries: NDArray[np.float32],
        segments: Sequence[_Segment],
        k: int,
        *,
        min_similarity: float = ...,
        w_similarity: float = 1.0,
        w_recency: float = 0.0,
        w_priority: float = 0.0,
        half_life: float = 1.0,
        recency_column: int = 0,
        priority_column: int = 0,
        now: int = 0,
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
    ]: ...
    def vectors(self, list_id: int, row_ids: NDArray[np.int64]) -> NDArray[np.float32]: ...
    def compact(self, list_id: int) -> None: ...
    def stats(self) -> dict[str, int]: ...

def normalize(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def crc32c(data: Buffer, value: int = 0) -> int: ...
def isas() -> list[str]: ...
def build_info() -> dict[str, str]: ...
