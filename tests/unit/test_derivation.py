"""What comes to items through each other, against a definition that goes by steps."""

from __future__ import annotations

import random

import pytest

from warpmem.ops.derivation import Derived, reaching


def by_steps(items: dict[bytes, Derived]) -> dict[bytes, float]:
    """From nothing, each item again and again until none has more."""
    found = dict.fromkeys(items, 0.0)
    while True:
        more = {
            key: min(item.most, max([item.held, *(found[source] for source in item.sources)]))
            for key, item in items.items()
        }
        if more == found:
            return found
        found = more


@pytest.mark.parametrize("seed", range(50))
def test_it_is_what_steps_come_to(seed: int) -> None:
    rng = random.Random(seed)
    keys = [bytes([n]) for n in range(rng.randrange(1, 40))]
    items = {
        key: Derived(
            rng.random(),
            rng.random() if rng.random() < 0.2 else 0.0,
            rng.sample(keys, min(len(keys), rng.randrange(4))),
        )
        for key in keys
    }
    assert reaching(items) == by_steps(items)


def test_a_circle_has_what_comes_to_it_from_elsewhere() -> None:
    circle = {b"a": Derived(1.0, 0.0, [b"b"]), b"b": Derived(0.75, 0.0, [b"a", b"b"])}
    assert reaching(circle) == {b"a": 0.0, b"b": 0.0}
    circle[b"a"] = Derived(1.0, 0.875, [b"b"])
    assert reaching(circle) == {b"a": 0.875, b"b": 0.75}
