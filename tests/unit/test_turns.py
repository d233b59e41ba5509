"""One at a time for each key."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from warpmem.memory.turns import Turns


def test_keys_do_not_wait_for_one_another() -> None:
    """Owners whose hashes fell on one of 64 locks did."""
    turns, together = Turns(), threading.Barrier(200, timeout=30)

    def take(key: int) -> None:
        with turns.of(key):
            together.wait()

    threads = [threading.Thread(target=take, args=(key,)) for key in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not together.broken and not turns._turns


def test_a_key_is_one_s_at_a_time_and_is_forgotten_afterwards() -> None:
    turns, inside, most = Turns(), Counter[int](), Counter[int]()

    def take(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(200):
            key = pick.randrange(3)
            with turns.of(key):
                inside[key] += 1
                most[key] = max(most[key], inside[key])
                inside[key] -= 1

    threads = [threading.Thread(target=take, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(most.values()) == {1} and not turns._turns


def test_a_failure_gives_the_turn_back() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.of("a"):
        raise KeyError
    with turns.of("a"):
        pass
    assert not turns._turns
