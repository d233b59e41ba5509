"""A real store asked for twice of what its embedder can do, by one owner who asks for most of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
SECONDS = 6.0
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


def arrivals(seed: int) -> list[tuple[float, str]]:
    """(when, who): the small ones ask for half the capacity together, the noisy one for one and a half."""
    rng = random.Random(seed)
    found, now = [], 0.0
    while now < SECONDS:
        now += rng.expovariate(2 * CAPACITY)
        found.append((now, rng.choice(SMALL) if rng.random() < 0.25 else "noisy"))
    return found


def outcomes(seed: int, *, alike: bool) -> dict[str, Counter[str]]:
    """What became of the searches of the small ones and of the noisy one. alike: in the name of one user."""
    found = {"small": Counter[str](), "noisy": Counter[str]()}
    with warpmem.open(None, embedder=Slowed()) as memory, ThreadPoolExecutor(400) as pool:
        for user in (*SMALL, "noisy"):
            memory.add(f"about {user}", user_id=user)
        began = time.monotonic() + 0.1

        def search(number: int, when: float, user: str) -> str:
            text = f"{user} asks {number} ".ljust(4 * TOKENS, "x")
            try:
                memory.search(text, user_id="noisy" if alike else user, deadline=DEADLINE)
            except Overloaded:
                return "refused"
            except DeadlineExceeded:
                return "dropped"
            return "in time" if time.monotonic() - began - when <= DEADLINE else "late"

        waiting = []
        for number, (when, user) in enumerate(arrivals(seed)):
            time.sleep(max(0.0, began + when - time.monotonic()))
            waiting.append((user, pool.submit(search, number, when, user)))
        for user, future in waiting:
            found["noisy" if user == "noisy" else "small"][future.result()] += 1
        stats = memory.stats().models["embedder"]
        refused = sum(counts["refused"] for counts in found.values())
        assert stats["refused"]["interactive"] == refused
        assert stats["waiting"] == {"interactive": 0, "ingest": 0, "background": 0}
    return found


@pytest.mark.slow
def test_small_tenants_are_answered_in_time_beside_a_noisy_one() -> None:
    found = outcomes(1, alike=False)
    small, noisy = found["small"], found["noisy"]
    assert small["in time"] >= 0.99 * small.total(), found
    served = small["in time"] + noisy["in time"]
    assert served >= 0.7 * CAPACITY * SECONDS, "what can be done is done"
    assert noisy["refused"] + noisy["dropped"] >= 0.3 * noisy.total(), "more than that it cannot have"


@pytest.mark.slow
def test_without_owners_they_would_not_be() -> None:
    """The control: the same load in the name of one user."""
    small = outcomes(1, alike=True)["small"]
    assert small["in time"] <= 0.9 * small.total(), small
