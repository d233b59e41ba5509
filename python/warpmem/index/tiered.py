"""A native pool of which a CUDA device keeps a copy of the lists that are asked for.

The host is the truth: every change and every read goes to the native pool. A scan takes one snapshot of it;
the device answers for the lists that it holds in that very version, the host for the others, at the same
time. So results, and what a scan sees of a change, are those of the native pool, bit for bit, whatever the
device does, and nothing is lost when it fails. Of a pool with product-quantisation codes the device answers
only scans of which it holds every list: a query's shortlist is of all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable
from .device_loader import DeviceLoader
from .device_recovery import DeviceRecovery

if TYPE_CHECKING:
    from ..records import Segment, SegmentTable

_CUDA, _CUDA_MANAGED = 2, 13  # kinds of devices, in DLPack


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Rows on a pool's device, for its scan. host: a copy, (n, dim) float32. port: where they are."""

    host: NDArray[np.float32]
    port: Any

    def __len__(self) -> int:
        return len(self.host)


class TieredPool:
    """RowPool over a native pool and a cache of its lists on a device. Thread-safe.

    pool: of `_cpu`. open_cache: makes the `_cuda.PageCache` of the pool whose port it
    gets; where it raises BackendUnavailable the host answers alone. loader: loads the lists that wait, for a
    cache without a thread of its own. recovery: the device's, which tries it again when it has failed. pause:
    seconds before it does so for this pool at first; 0: rebuild() alone does.
    """

    def __init__(
        self,
        pool: Any,
        open_cache: Callable[[Any], Any],
        loader: DeviceLoader | None = None,
        recovery: DeviceRecovery | None = None,
        pause: float = 0.0,
    ) -> None:
        self._pool = pool
        self._open_cache = open_cache
        self._loader = loader
        self._recovery = DeviceRecovery() if recovery is None else recovery
        self.pause = min(pause, threading.TIMEOUT_MAX)
        self._rebuilding = threading.RLock()  # who is told of it may ask for it
        self._cache: Any = None
        self._port: Any = None
        self._reason: str | None = None
        self._open()
        self._recovery.join(self)

    @property
    def dim(self) -> int:
        return int(self._pool.dim)

    @property
    def n_columns(self) -> int:
        return int(self._pool.n_columns)

    @property
    def isa(self) -> str:
        return "cuda"

    @property
    def host_isa(self) -> str:
        """The instruction set of the host's part."""
        return str(self._pool.isa)

    @property
    def storage(self) -> str:
        return str(self._pool.storage)

    @property
    def metric(self) -> str:
        return str(self._pool.metric)

    @property
    def screen(self) -> str:
        return str(self._pool.screen)

    @property
    def threads(self) -> int:
        return int(self._pool.threads)

    @property
    def codebooks(self) -> Any:
        """(pq_dim, 16, dsub) float32, or None."""
        return self._pool.codebooks

    # ------------------------------------------------------------------------------------- changes

    def apply(
        self,
        removes: Sequence[tuple[int, int]],
        list_ids: NDArray[np.int64],
        row_ids: NDArray[np.int64],
        ordinals: NDArray[np.uint32],
        columns: NDArray[np.int64],
        vectors: NDArray[np.float32],
    ) -> None:
        """As RowPool.apply. Then brings the device's copies up to date: with the pages that changed when they
        are few, else later."""
        touched = _touched(removes, list_ids)  # made ready first: nothing may fail once the change is made
        self._pool.apply(removes, list_ids, row_ids, ordinals, columns, vectors)
        self._refresh(touched)

    def drop(self, list_ids: Sequence[int]) -> None:
        """As RowPool.drop. What the device had of the lists is overwritten with zeros."""
        touched = _ids(list_ids)
        self._pool.drop(list_ids)
        self._refresh(touched)

    def compact(self, list_id: int) -> None:
        touched = _ids([list_id])
        self._pool.compact(list_id)
        self._refresh(touched)

    def trim(self) -> None:
        """Give back memory that only changes need; they build it again."""
        self._pool.trim()

    # ------------------------------------------------------------------------------------- searches

    def scan(
        self,
        queries: Any,
        segments: Sequence[Segment] | SegmentTable,
        k: int,
        *,
        explain: bool = False,
        results: str = "host",
        **options: Any,
    ) -> Any:
        """As RowPool.scan. queries: NumPy, or an array on the device by DLPack or `__cuda_array_interface__`,
        which is used where it is, behind what its stream has yet to do; or what `fetch` made of one.

        results: "host" for NumPy arrays, "device" for arrays of `_cuda` that speak both protocols and are
        complete. With `explain` a sixth member, a dict: what the native pool counts; device_lists, how many
        lists the device answered for; device_failed, whether it failed during this scan; device_failure, why
        it answers nothing, or None. BackendUnavailable when arrays lie, or shall lie, on a device that fails;
        InputError for one whose address is not in the device's memory.
        """
        if results not in ("host", "device"):
            raise ValueError(f"results must be host or device, not {results!r}")
        port = self._port
        if not isinstance(queries, (np.ndarray, DeviceRows)) and _on_device(queries):
            queries = self.fetch(queries)
        if isinstance(queries, DeviceRows):
            queries, port = queries.host, queries.port
        found = self._pool.scan(queries, segments, k, explain=explain, device=port, **options)
        self._follow_up()
        if explain:
            found[5].setdefault("device_lists", 0)
            found[5].setdefault("device_failed", False)
            found[5]["device_failure"] = self.failure
        if results == "device":
            return (*self.put(found[:5]), *found[5:])
        return found

    def reads(self, x: Any) -> bool:
        """Whether `x` is a float32 array with two axes on this pool's device, which answers."""
        try:
            if not _on_device(x) or self.failure is not None:
                return False
            ask = getattr(x, "__dlpack_device__", None)
            if ask is not None and ask()[1] != self._cache.device:
                return False
            said = getattr(x, "__cuda_array_interface__", None)
            if said is not None:
                return said["typestr"] == "<f4" and len(said["shape"]) == 2
            return str(x.dtype).endswith("float32") and len(x.shape) == 2  # of torch it is torch.float32
        except (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError):
            return False  # as some libraries' arrays say that they cannot be handed over

    def fetch(self, x: Any, *, unit: bool = False) -> DeviceRows:
        """(n, dim) float32 on the device, for searches that use it there, until which it must not change.
        unit: brought to unit length, on the device, with the bits of the host's. Raises TypeError, ValueError
        (a row without a direction among others), BackendUnavailable."""
        try:
            return DeviceRows(*self._working().queries(x, unit))
        finally:
            self._follow_up()

    def put(self, arrays: Sequence[NDArray[Any]]) -> list[Any]:
        """Copies on the device that speak DLPack and `__cuda_array_interface__`, complete. Raises
        BackendUnavailable."""
        try:
            copies: list[Any] = self._working().put(arrays)
        finally:
            self._follow_up()
        return copies

    # -------------------------------------------------------------------------------------- reading

    def vectors(self, list_id: int, row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        stored: NDArray[np.float32] = self._pool.vectors(list_id, row_ids)
        return stored

    def lists(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._pool.lists()
        return found

    def rows(self, list_id: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
        found: tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]] = self._pool.rows(list_id)
        return found

    def stats(self) -> dict[str, int]:
        """Of the native pool; the device's are those of `tiers()`."""
        found: dict[str, int] = self._pool.stats()
        return found

    def save(self, path: Any, sections: Mapping[str, Any]) -> None:
        self._pool.save(path, sections)

    # ---------------------------------------------------------------------------------- the device

    def warm(self, list_ids: Iterable[int], *, wait: bool = False) -> int:
        """Load lists, however rarely they are asked for; those that others need more may go for them. Returns
        how many are on their way. wait: until all that waits is loaded or refused."""
        coming = 0 if self._cache is None else int(self._cache.warm(_ids(list_ids)))
        self._follow_up()
        if wait:
            self.settle()
        return coming

    def evict(self, list_ids: Iterable[int]) -> None:
        """Forget the device's copies of lists, and overwrite them with zeros."""
        if self._cache is not None:
            self._cache.evict(_ids(list_ids))

    def settle(self) -> None:
        """Wait until nothing waits to be loaded. Raises DeadlineExceeded when the caller has given up."""
        if self._loader is not None:
            self._loader.settle()
        elif self._cache is not None:
            self._cache.settle()

    def rebuild(self, *, at_a_turn: bool = False) -> bool:
        """After a failure: start anew with an empty cache. Returns whether the device answers: never in a
        fork, for it is the parent's. at_a_turn: of the device's background lane; raises Overloaded or
        DeadlineExceeded where there is none."""
        if not self._recovery.ours:
            return False
        if at_a_turn and self._loader is not None and self.failed:
            return self._loader.alone(self._anew)
        return self._anew()

    def stop(self) -> None:
        """A device that failed is not tried again for this pool by itself, and a try that waits gives up.
        Everything else is as before. Waits for nobody. Idempotent."""
        self.pause = 0.0
        self._recovery.stop(self)

    def close(self) -> None:
        """As stop, and waits, for 5 seconds at most, until a try that is under way has ended: one that hangs
        in the driver goes on. Idempotent."""
        self.pause = 0.0
        self._recovery.close(self)

    @property
    def failed(self) -> bool:
        """Whether the device answers nothing; `failure` says why. Costs nothing to ask."""
        return self._cache is None or bool(self._cache.failed)

    @property
    def device(self) -> int | None:
        """The device's number; None where it failed when it was first asked."""
        return None if self._cache is None else int(self._cache.device)

    @property
    def failure(self) -> str | None:
        """Why the device answers nothing; None while it does."""
        if self._cache is None:
            return self._reason
        found: str | None = self._cache.failure
        return found

    def tiers(self) -> dict[str, Any]:
        """What the device holds and did. device, failure; failures, and rebuilds after them, of the device
        for all its pools; lists, pages, bytes of them; codes_lists, of these with rows in host memory, and
        pinned bytes there; allocated, limit, pinned_limit (0 where rows have no codes); hits and misses of
        lists, loads, refreshes, refused, evictions, uploaded_pages, uploaded_bytes, memory_failures, waiting;
        searches, launches, replays of them, shared, fallbacks, device_ms."""
        counts = {"failures": self._recovery.failures, "rebuilds": self._recovery.rebuilds}
        held = {} if self._cache is None else self._cache.stats()
        return {"device": self.device, "failure": self.failure, **counts, **held}

    def _anew(self) -> bool:
        with self._rebuilding:
            if not self.failed:
                return True
            self._recovery.notice(self)
            answers = self._open()
            if answers:
                self._recovery.answered(self)
        return answers

    def _open(self) -> bool:
        """Have a cache that answers: a new one, or the one that there is, empty. False: the device fails."""
        if self._cache is not None:
            return bool(self._cache.rebuild())
        try:
            cache = self._open_cache(self._pool.port())
            self._port, self._cache = cache.port(), cache
        except BackendUnavailable as error:
            self._reason = str(error)
        return self._cache is not None

    def _refresh(self, touched: NDArray[np.int64]) -> None:
        if self._cache is not None:
            self._cache.refresh(touched)
        self._follow_up()

    def _follow_up(self) -> None:
        """Have the lists loaded that wait for it, or the device rebuilt."""
        if self.failed:
            self._recovery.notice(self)
        elif self._loader is not None:
            self._loader.wake(self._cache)

    def _working(self) -> Any:
        failure = self.failure
        if failure is not None:
            raise BackendUnavailable(f"arrays on the device need it, but it does not answer: {failure}")
        return self._cache


def _touched(removes: Sequence[tuple[int, int]], list_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The lists of a change. What is malformed is the pool's to refuse."""
    try:
        if len(removes) == 0 and len(list_ids) <= 1:
            return list_ids
        lists = {int(list_id) for list_id, _ in removes}
        return _ids(lists.union(np.unique(list_ids).tolist()))
    except (TypeError, ValueError, OverflowError):
        return np.zeros(0, np.int64)


def _ids(list_ids: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(list_ids, np.int64)


def _on_device(x: Any) -> bool:
    if hasattr(x, "__cuda_array_interface__"):
        return True
    ask = getattr(x, "__dlpack_device__", None)
    return ask is not None and ask()[0] in (_CUDA, _CUDA_MANAGED)
