"""A real store asked for twice of what its embedder can do, by one owner who asks for most of it."""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import DeadlineExceeded, Overloaded

SECONDS_A_TOKEN = 2.5e-4
TOKENS = 40
CAPACITY = 1 / (SECONDS_A_TOKEN * TOKENS)
"""Searches a second."""
DEADLINE = 1.0
SMALL = tuple(f"small {n}" for n in range(9))


class Slowed:
    """The hashing embedder, which takes as long as a larger model would: so long for each token."""

    model_id, dimension = "slowed", 32

    def __init__(self) -> None:
        self._made = HashingEmbedder(32)

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        rows = self._made.embed(texts, role=role)
        time.sleep(SECONDS_A_TOKEN * sum(len(text) // 4 for text in texts))
        return rows


Load = Callable[[float], float]
"""What is asked for at a moment, as a multiple of the capacity."""


@pytest.fixture(autouse=True)
def _nothing_of_others() -> Iterator[None]:
    """Else Python may look through all that thousands of tests before left, in the midst of a run: that stops
    every thread for a third of a second, as nothing in a service does that has not such a heap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@dataclass
class Run:
    """What became of the searches of the small ones and of the noisy one, and what was left out of those that
    were answered. took: of the small ones, (when it was asked, seconds until its answer)."""

    small: Counter[str] = field(default_factory=Counter)
    noisy: Counter[str] = field(default_factory=Counter)
    degraded: Counter[tuple[str, ...]] = field(default_factory=Counter)
    took: list[tuple[float, float]] = field(default_factory=list)

    def p99(self, begin: float, end: float) -> float:
        took = sorted(seconds for asked, seconds in self.took if begin <= asked < end)
        return took[int(0.99 * (len(took) - 1))]


def arrivals(seed: int, load: Load, seconds: float) -> Iterator[tuple[float, str]]:
    """(when, who): the small ones ask for half the capacity together, the noisy one for the rest of the
    load."""
    rng = random.Random(seed)
    now = 0.0
    while now < seconds:
        now += rng.expovariate(load(now) * CAPACITY)
        yield now, rng.choice(SMALL) if rng.random() < 0.5 / load(now) else "noisy"


def run(
    load: Load, seconds: float, *, alike: bool = False, mode: Literal["dense", "hybrid"] = "dense"
) -> Run:
    """Searches of nine small tenants and a noisy one for so long. alike: in the name of one user."""
    found = Run()
    with warpmem.open(None, embedder=Slowed()) as memory, ThreadPoolExecutor(600) as pool:
        for user in (*SMALL, "noisy"):
            memory.add(f"about {user}", user_id=user)
        began = time.monotonic() + 0.1

        def search(number: int, when: float, user: str) -> tuple[str, float, tuple[str, ...] | None]:
            text = f"{user} asks {number} ".ljust(4 * TOKENS, "x")
            owner = "noisy" if alike else user
            try:
                result = memory.search(text, user_id=owner, deadline=DEADLINE, mode=mode)
            except Overloaded:
                return "refused", 0.0, None
            except DeadlineExceeded:
                return "dropped", 0.0, None
            seconds = time.monotonic() - began - when
            return "in time" if seconds <= DEADLINE else "late", seconds, result.degraded

        waiting = []
        for number, (when, user) in enumerate(arrivals(1, load, seconds)):
            time.sleep(max(0.0, began + when - time.monotonic()))
            waiting.append((user, when, pool.submit(search, number, when, user)))
        for user, when, future in waiting:
            outcome, took, degraded = future.result()
            (found.noisy if user == "noisy" else found.small)[outcome] += 1
            if degraded is not None:
                found.degraded[degraded] += 1
                if user != "noisy":
                    found.took.append((when, took))
        stats = memory.stats().models["embedder"]
        if mode == "dense":
            assert stats["refused"]["interactive"] == found.small["refused"] + found.noisy["refused"]
        assert stats["waiting"] == {"interactive": 0, "ingest": 0, "background": 0}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("load", "seconds"), [(0.8, 4.0), (1.2, 4.0), (2.0, 6.0)])
def test_small_tenants_are_answered_in_time_beside_a_noisy_one(load: float, seconds: float) -> None:
    found = run(lambda now: load, seconds)
    small, noisy = found.small, found.noisy
    assert small["in time"] >= 0.99 * small.total(), found
    served = small["in time"] + noisy["in time"]
    assert served >= 0.7 * min(1.0, load) * CAPACITY * seconds, "what can be done is done"
    if load == 2.0:
        assert noisy["refused"] + noisy["dropped"] >= 0.3 * noisy.total(), "more than that it cannot have"


@pytest.mark.slow
def test_a_burst_of_ten_times_is_over_two_seconds_after_it() -> None:
    """How near it comes to what it was before, is measured in virtual time: tests/unit/test_fair_queue.py."""
    found = run(lambda now: 10.0 if 3.0 <= now < 3.5 else 0.8, 8.5)
    assert found.small["in time"] >= 0.99 * found.small.total(), found
    assert found.p99(5.5, 8.5) <= 1.5 * found.p99(0.0, 3.0) + 0.15


@pytest.mark.slow
def test_by_meaning_and_words_everybody_is_answered_in_time() -> None:
    found = run(lambda now: 2.0, 4.0, mode="hybrid")
    everybody = found.small + found.noisy
    assert everybody["in time"] >= 0.99 * everybody.total(), found
    assert set(found.degraded) == {(), ("dense",)}
    assert found.degraded["dense",] >= 0.2 * everybody.total(), "whoever the model had no time for"


@pytest.mark.slow
def test_without_owners_they_would_not_be() -> None:
    """The control: the same load in the name of one user."""
    small = run(lambda now: 2.0, 6.0, alike=True).small
    assert small["in time"] <= 0.9 * small.total(), small
