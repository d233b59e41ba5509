"""Native CPU search core of warpmem."""

from collections.abc import Sequence
from os import PathLike
from typing import overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, CapsuleType

from .records import SegmentTable

_Term = tuple[int, int, int, int]
_Segment = tuple[int, int, int, Sequence[_Term], Sequence[int], NDArray[np.uint64] | None]

class Pool:
    """Rows in lists, with one exact scan. Thread-safe."""

    def __init__(
        self,
        dim: int,
        n_columns: int,
        *,
        isa: str = "auto",
        storage: str = "f32",
        metric: str = "dot",
        screen: str = "auto",
        threads: int = 1,
        codebooks: NDArray[np.float32] | None = None,
    ) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def storage(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def screen(self) -> str: ...
    @property
    def codebooks(self) -> NDArray[np.float32] | None: ...
    @property
    def threads(self) -> int: ...
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
        segments: Sequence[_Segment] | SegmentTable,
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
        refine: int = 10,
        explain: bool = False,
        ranks: bool = False,
        device: CapsuleType | None = None,
        added: Sequence[NDArray[np.float32] | None] | None = None,
        unordered: bool = False,
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
    ]: ...  # with explain or ranks a sixth: dict[str, Any]; ranks: "groups", "ordinals" (q, k) uint32
    def scan_nearest(
        self,
        queries: NDArray[np.float32],
        coarse: Pool,
        owner: int,
        group: int,
        n_lists: int,
        k: int,
        refine: int = 10,
        explain: bool = False,
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
    ]: ...  # with explain a sixth: dict[str, Any]
    def port(self) -> CapsuleType: ...
    def vectors(self, list_id: int, row_ids: NDArray[np.int64]) -> NDArray[np.float32]: ...
    def lists(self) -> NDArray[np.int64]: ...
    def rows(self, list_id: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]: ...
    def save(self, path: str | PathLike[str], sections: dict[str, Buffer] = ...) -> None: ...
    def compact(self, list_id: int) -> None: ...
    def trim(self) -> None: ...
    def stats(self) -> dict[str, int]: ...

class IdMap:
    """A hash map from int64 to int64. Thread-safe; each call happens whole or not at all."""

    def __init__(self) -> None: ...
    @overload
    def put(self, keys: int, values: int) -> int: ...
    @overload
    def put(self, keys: NDArray[np.int64], values: NDArray[np.int64]) -> int: ...
    @overload
    def get(self, keys: int, default: int) -> int: ...
    @overload
    def get(self, keys: NDArray[np.int64], default: int) -> NDArray[np.int64]: ...
    @overload
    def pop(self, keys: int, default: int) -> int: ...
    @overload
    def pop(self, keys: NDArray[np.int64], default: int) -> NDArray[np.int64]: ...
    @overload
    def contains(self, keys: int) -> bool: ...
    @overload
    def contains(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]: ...
    def reserve(self, n: int) -> None: ...
    def items(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def __len__(self) -> int: ...

class Postings:
    """Which rows hold which words, scored by BM25, and which row follows which in its run. Thread-safe."""

    def __init__(self) -> None: ...
    def put(
        self,
        rows: NDArray[np.int64],
        runs: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        words: Sequence[str],
    ) -> None: ...
    def remove(self, rows: NDArray[np.int64]) -> int: ...
    def score(
        self, words: str, w_lexical: float, w_adjacent: float, most: int, also: NDArray[np.int64]
    ) -> tuple[
        int, bool, NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]
    ]: ...
    def sums(
        self, words: str, w_lexical: float, w_adjacent: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]: ...
    def ordinals(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]: ...
    def stats(self) -> dict[str, int]: ...

class Kernels:
    """select_k, k-means, product quantisation and mmr on one instruction set. Thread-safe."""

    def __init__(self, *, isa: str = "auto") -> None: ...
    @property
    def isa(self) -> str: ...
    @staticmethod
    def isas() -> list[str]: ...
    def select_k(
        self,
        scores: NDArray[np.float32],
        k: int,
        *,
        ordinals: NDArray[np.uint32] | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    def kmeans(
        self,
        x: NDArray[np.float32],
        k: int,
        *,
        iterations: int = 20,
        seed: int = 0,
        init: str = "k-means++",
        sample: int | None = None,
        spherical: bool = False,
        threads: int = 1,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], float]: ...
    def kmeans_assign(
        self,
        x: NDArray[np.float32],
        centroids: NDArray[np.float32],
        *,
        spherical: bool = False,
        threads: int = 1,
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]: ...
    def pq_train(
        self,
        x: NDArray[np.float32],
        pq_dim: int,
        pq_bits: int,
        *,
        iterations: int = 25,
        seed: int = 0,
        threads: int = 1,
    ) -> NDArray[np.float32]: ...
    def pq_encode(
        self, x: NDArray[np.float32], codebooks: NDArray[np.float32], *, threads: int = 1
    ) -> NDArray[np.uint8]: ...
    def pq_decode(
        self, codes: NDArray[np.uint8], codebooks: NDArray[np.float32], *, threads: int = 1
    ) -> NDArray[np.float32]: ...
    def pq_lut(
        self,
        queries: NDArray[np.float32],
        codebooks: NDArray[np.float32],
        *,
        metric: str = "ip",
        threads: int = 1,
    ) -> NDArray[np.float32]: ...
    def pq_quantize_lut(
        self, luts: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]: ...
    def pq_interleave(
        self, codes: NDArray[np.uint8], pq_dim: int, pq_bits: int, *, threads: int = 1
    ) -> NDArray[np.uint8]: ...
    def pq_deinterleave(
        self, blocks: NDArray[np.uint8], rows: int, *, threads: int = 1
    ) -> NDArray[np.uint8]: ...
    def pq_scan(
        self,
        codes: NDArray[np.uint8],
        luts: NDArray[np.float32],
        k: int,
        *,
        rows: int | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    def mmr(
        self,
        vectors: NDArray[np.float32],
        relevance: NDArray[np.float32],
        k: int,
        *,
        weight: float = 0.5,
        threads: int = 1,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]: ...

def open_pool(
    path: str | PathLike[str], *, isa: str = "auto", threads: int = 1
) -> tuple[Pool, dict[str, NDArray[np.uint8]]]: ...
def open_section(
    section: NDArray[np.uint8], *, isa: str = "auto", threads: int = 1
) -> tuple[Pool, dict[str, NDArray[np.uint8]]]: ...
def normalize(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def crc32c(data: Buffer, value: int = 0) -> int: ...
def open_rows(
    keys: Sequence[bytes], values: Sequence[bytes], seed: int, version: int, dimension: int
) -> tuple[int, bytes, NDArray[np.float32]]: ...
def read_bytes(data: Buffer, isa: str = "auto") -> int: ...
def isas() -> list[str]: ...
def build_info() -> dict[str, str]: ...
