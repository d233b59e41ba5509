"""Costs: a batch's time shared among those who were in it, and how totals are stored."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gated_devices import gated, occupy, wait_for
from warpmem.errors import (
    DeadlineExceeded,
    InputError,
    ModelError,
    ModelUnavailable,
    Overloaded,
    StoreCorrupt,
)
from warpmem.ops.costs import (
    Amounts,
    CostLine,
    cost_key,
    merged,
    read_cost_key,
    read_lines,
    shares,
    spender,
    write_lines,
)
from warpmem.ops.scheduler import Scheduler
from warpmem.types import Budget, Price


class Bills:
    """Tokens and seconds by who asked."""

    def __init__(self) -> None:
        self.tokens: dict[Hashable, int] = defaultdict(int)
        self.seconds: dict[Hashable, float] = defaultdict(float)
        self._lock = threading.Lock()

    def of(self, who: Hashable) -> Callable[[int, float], None]:
        def charge(tokens: int, seconds: float) -> None:
            with self._lock:
                self.tokens[who] += tokens
                self.seconds[who] += seconds

        return charge


def agrees(bills: Bills, scheduler: Scheduler) -> None:
    """Within 1 %, which leaves room for nothing but the adding of floats."""
    stats = scheduler.stats()
    assert sum(bills.tokens.values()) == sum(stats["tokens"].values())
    assert sum(bills.seconds.values()) == pytest.approx(stats["busy_seconds"], rel=0.01)


@pytest.mark.parametrize("parallel", [1, 3])
def test_all_of_the_time_is_somebodys(parallel: int) -> None:
    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        time.sleep(0.0005)
        if "broken" in works:
            raise ModelError("broken")
        return list(works)

    scheduler, bills = Scheduler(run, parallel=lambda: parallel, batch_tokens=40), Bills()

    def work(thread: int) -> None:
        rng = random.Random(thread)
        for n in range(40):
            values: list[Any] = [rng.randrange(1000) for _ in range(rng.randrange(1, 8))]
            if n % 10 == 3:
                values[0] = "broken"
            tokens = [rng.randrange(1, 10) for _ in values]
            with contextlib.suppress(ModelError, DeadlineExceeded, Overloaded):
                scheduler.submit(
                    values, tokens, owner=thread, lane=rng.choice(("interactive", "ingest", "background")),
                    timeout=rng.choice((None, 0.003)), charge=bills.of(thread),
                )  # fmt: skip

    with ThreadPoolExecutor(10) as pool:
        for future in [pool.submit(work, thread) for thread in range(10)]:
            future.result(timeout=60)
    assert scheduler.stats()["batches"] < sum(scheduler.stats()["served"].values())
    agrees(bills, scheduler)


def test_a_batch_is_shared_by_tokens_in_virtual_time() -> None:
    now = 0.0

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        nonlocal now
        device_run(kind, works)
        now += 6.0
        return list(works)

    device, scheduler = gated(clock=lambda: now)
    device_run, scheduler._run, bills = device.run, run, Bills()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(scheduler.submit, [0], [100], charge=bills.of("first"))
        wait_for_serving(scheduler)
        later = [pool.submit(scheduler.submit, [n], [n], owner=n, charge=bills.of(n)) for n in (1, 2)] + [
            pool.submit(scheduler.submit, [3, 4], [1, 2], owner=3, charge=bills.of(3))
        ]
        wait_for(scheduler, 4)
        device.open()
        for future in (first, *later):
            future.result(timeout=5)
    assert dict(bills.tokens) == {"first": 100, 1: 1, 2: 2, 3: 3}
    assert bills.seconds["first"] == 6.0
    assert [bills.seconds[n] for n in (1, 2, 3)] == pytest.approx([1.0, 2.0, 3.0])
    agrees(bills, scheduler)


def wait_for_serving(scheduler: Scheduler) -> None:
    while not scheduler._serving:
        time.sleep(0.001)


def test_who_gave_up_pays_for_what_was_done_for_him() -> None:
    device, scheduler = gated()
    bills = Bills()
    with ThreadPoolExecutor(4) as pool:
        first = occupy(pool, scheduler, 100_000)
        served = pool.submit(scheduler.submit, [1], [10], kind="k", charge=bills.of("served"))
        wait_for(scheduler, 1)
        late = pool.submit(scheduler.submit, [2], [30], kind="k", timeout=0.2, charge=bills.of("gave up"))
        wait_for(scheduler, 2)
        device.gate, slow = threading.Event(), device.gate
        assert slow is not None
        slow.set()
        first.result(timeout=5)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout=5)
        device.open()
        served.result(timeout=5)
    assert dict(bills.tokens) == {"served": 10, "gave up": 30}
    assert bills.seconds["gave up"] == pytest.approx(3 * bills.seconds["served"])


def test_failed_work_is_paid_for_too() -> None:
    now = 0.0

    def run(kind: Hashable, works: Sequence[Any]) -> list[Any]:
        nonlocal now
        now += 2.0
        raise ModelUnavailable("down")

    scheduler, bills = Scheduler(run, clock=lambda: now), Bills()
    for works in ([1], [1, 2]):
        with pytest.raises(ModelUnavailable):
            scheduler.submit(works, [5] * len(works), charge=bills.of("a"))
    assert bills.seconds["a"] == 4.0
    agrees(bills, scheduler)


# ------------------------------------------------------------------------------------------- records


def test_keys_and_values_are_read_back() -> None:
    key = cost_key(20_000, 7)
    assert key == b"cost\x00\x00\x4e\x20\x00\x00\x00\x07"
    assert read_cost_key(key) == (20_000, 7)
    assert (spender(key), spender(b"import" + bytes(16)), spender(b"costly")) == (7, None, None)
    with pytest.raises(StoreCorrupt, match="has 4 bytes, expected 12"):
        read_cost_key(b"cost")
    lines = [CostLine("interactive", "search", "m", Amounts(0.5, 3, 12, 1, 2, 0.25))]
    assert read_lines(write_lines(lines)) == lines
    assert write_lines(lines).hex() == (
        "9194ab696e746572616374697665a6736561726368a16d96cb3fe0000000000000030c0102cb3fd0000000000000"
    )
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        read_lines(b"\x91\x01")


def test_lines_of_one_purpose_become_one() -> None:
    one = CostLine("a", "b", "c", Amounts(1.0, 1, 1, 1, 1, 1.0))
    other = CostLine("a", "b", "d", Amounts(tokens=9))
    found = merged([one, other, one, one])
    assert found == [CostLine("a", "b", "c", Amounts(3.0, 3, 3, 3, 3, 3.0)), other]
    assert one.amounts.tokens == 1, "what was given stays as it was"


def test_shares_lose_no_token() -> None:
    rng = random.Random(1)
    for _ in range(200):
        weights = [rng.randrange(1, 50) for _ in range(rng.randrange(1, 9))]
        tokens = rng.randrange(0, 10_000)
        found = shares(weights, tokens)
        assert sum(found) == tokens
        assert all(
            abs(got - tokens * weight / sum(weights)) <= 1 for got, weight in zip(found, weights, strict=True)
        )


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), True, "1"])
def test_amounts_are_numbers(wrong: Any) -> None:
    with pytest.raises(InputError, match="money must be a number from 0"):
        Budget(money=wrong)
    with pytest.raises(InputError, match="per_device_second must be a number from 0"):
        Price(per_device_second=wrong)
