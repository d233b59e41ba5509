"""An embedder behind the scheduler of its device or endpoint: texts of many threads go together in batches.
What protocols.Embedder says that an embedder may have, is used here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DeadlineExceeded, EmbeddingError, InputError, InvalidText
from ..ops.calls import Charge
from ..ops.devices import scheduler_of
from ..ops.scheduler import Scheduler
from ..protocols import Embedder
from .given import GivenVectors
from .keywords import takes_keyword
from .texts import estimated_tokens

Role = Literal["document", "query"]

_PART: Final = 2048
"""Tokens of the pieces that a long list is cut into: what the scheduler can put together and share."""
_WAITING: Final = 4
"""How many batches of one call wait at most: more would be no faster and take the room of others."""

_lock: Final = threading.Lock()


class _Work(NamedTuple):
    """Texts that are served together: from the `first` on of `total` that one call asked for. deadline: of
    time.monotonic()."""

    texts: Sequence[str]
    first: int
    total: int
    deadline: float | None


class _Kind(NamedTuple):
    """What works of one batch have in common. bounded: all of them have a deadline, and the embedder can
    make use of it; one that has none would take theirs away from the others."""

    embedder: Embedder
    role: Role
    bounded: bool

    def serve(self, works: Sequence[_Work]) -> list[NDArray[np.float32]]:
        try:
            return _rows(self, works)
        except InputError as error:
            work = works[0]
            if len(works) > 1 or len(work.texts) == work.total:
                raise
            again = InvalidText if isinstance(error, InvalidText) else InputError
            raise again(f"{error}, counted from text {work.first + 1} of {work.total}") from error


class ScheduledEmbedder:
    """Calls of an embedder by many threads: in batches, in lanes, fairly between owners, in time. While the
    embedder is idle, a caller's thread calls it at once. Thread-safe."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._takes_timeout = takes_keyword(embedder.embed, "timeout")
        self._costs = getattr(embedder, "token_costs", estimated_tokens)
        self._scheduler = None if isinstance(embedder, GivenVectors) else _scheduler(embedder)

    @property
    def embeds(self) -> bool:
        """False where every vector comes from the caller."""
        return self._scheduler is not None

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
        *,
        lane: str,
        owner: Hashable = None,
        timeout: float | None = None,
        charge: Charge | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimension) float32, shape and type checked, values not.

        lane, owner, timeout, charge: see ops/scheduler.py. Raises Overloaded, DeadlineExceeded, and as the
        embedder; a position in the message counts from the first of `texts`."""
        scheduler = self._scheduler
        if scheduler is None or not len(texts):
            return _checked(self._embedder.embed(texts, role=role), self._embedder, len(texts))
        kind = _Kind(self._embedder, role, self._takes_timeout and timeout is not None)
        deadline = None if timeout is None else time.monotonic() + timeout
        costs = self._costs(texts)
        if len(texts) == 1:
            (rows,) = scheduler.submit(
                (_Work(texts, 0, 1, deadline),), costs, kind=kind, lane=lane, owner=owner, timeout=timeout,
                bytes=len(texts[0]), charge=charge,
            )  # fmt: skip
            return rows  # type: ignore[no-any-return]
        found: list[NDArray[np.float32]] = []
        for works, tokens in _waves(scheduler, texts, costs, lane, deadline):
            left = None if deadline is None else deadline - time.monotonic()
            found += scheduler.submit(
                works, tokens, kind=kind, lane=lane, owner=owner, timeout=left,
                bytes=sum(len(text) for work in works for text in work.texts), charge=charge,
            )  # fmt: skip
        return found[0] if len(found) == 1 else np.concatenate(found)

    def stats(self) -> dict[str, Any]:
        """As Scheduler.stats, of all who share the device or endpoint; empty where nothing is embedded."""
        return {} if self._scheduler is None else self._scheduler.stats()


def _waves(
    scheduler: Scheduler, texts: Sequence[str], costs: Sequence[int], lane: str, deadline: float | None
) -> Iterator[tuple[list[_Work], list[int]]]:
    """The works of a long list, a few batches at a time, cut to what a batch of the lane may hold now."""
    works: list[_Work] = []
    tokens: list[int] = []
    first = 0
    while first < len(texts):
        batch = scheduler.limit(lane)
        end, total = first + 1, costs[first]
        while end < len(texts) and total + costs[end] <= min(_PART, batch):
            total += costs[end]
            end += 1
        if works and sum(tokens) + total > _WAITING * batch:
            yield works, tokens
            works, tokens = [], []
        works.append(_Work(texts[first:end], first, len(texts), deadline))
        tokens.append(total)
        first = end
    yield works, tokens


def _scheduler(embedder: Embedder) -> Scheduler:
    """The one of the embedder's device or endpoint; its own where it names none."""
    parallel = None if getattr(embedder, "parallel", None) is None else _parallel(embedder)
    return scheduler_of(getattr(embedder, "place", None) or ("object", id(embedder)), parallel)


def _parallel(embedder: Any) -> Callable[[], int]:
    return lambda: getattr(embedder, "parallel", 1)


def _rows(kind: _Kind, works: Sequence[_Work]) -> list[NDArray[np.float32]]:
    embedder, options = kind.embedder, _options(kind, works)
    if len(works) == 1 and len(works[0].texts) == 1:
        return [_checked(embedder.embed(works[0].texts, role=kind.role, **options), embedder, 1)]
    texts = [text for work in works for text in work.texts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    try:
        ordered = embedder.embed([texts[i] for i in order], role=kind.role, **options)
    except InputError:
        if len(works) == 1:
            embedder.embed(texts, role=kind.role, **options)  # in the caller's order it says which it is
        raise
    rows = np.empty((len(texts), embedder.dimension), np.float32)
    rows[order] = _checked(ordered, embedder, len(texts))
    ends = np.cumsum([len(work.texts) for work in works]).tolist()
    return [rows[end - len(work.texts) : end] for work, end in zip(works, ends, strict=True)]


def _options(kind: _Kind, works: Sequence[_Work]) -> dict[str, Any]:
    """`timeout` until the last of all deadlines, for those who can make use of it."""
    if not kind.bounded:
        return {}
    left = max(work.deadline for work in works if work.deadline is not None) - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("its turn came too late; nothing was changed")
    return {"timeout": left}


def _checked(vectors: Any, embedder: Embedder, count: int) -> NDArray[np.float32]:
    expected = (count, embedder.dimension)
    shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", None)
    if shape != expected or dtype != np.float32:
        raise EmbeddingError(
            f"expected float32 vectors of shape {expected}, not {type(vectors).__name__} of {dtype} {shape}"
        )
    return np.asarray(vectors)
