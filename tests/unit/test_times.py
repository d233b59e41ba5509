"""Datetimes as microseconds, by the plain formula."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from warpmem.errors import InvalidTime
from warpmem.ops.clock import to_datetime, to_micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


class Later(datetime):
    """As pandas and pendulum make them."""


def test_what_was_asked_for_last_is_not_taken_for_another() -> None:
    rng = random.Random(4)
    times = [to_datetime(rng.randrange(-(10**16), 10**16)) for _ in range(50)]
    zones = [timezone(timedelta(minutes=rng.randrange(-720, 720))) for _ in range(50)]
    times += [one.astimezone(zone) for one, zone in zip(times, zones, strict=True)]
    times += [EPOCH, LAST, datetime.min.replace(tzinfo=UTC), Later(2026, 1, 2, tzinfo=UTC)]
    for _ in range(1000):
        one = rng.choice(times)
        assert to_micros(one, "when") == (one - EPOCH) // timedelta(microseconds=1)
        if rng.random() < 0.5:
            assert to_micros(one, "when") == (one - EPOCH) // timedelta(microseconds=1)
        with pytest.raises(InvalidTime, match="when is a naive"):
            to_micros(one.replace(tzinfo=None), "when")


def test_the_ends_of_time() -> None:
    assert to_datetime(to_micros(LAST, "when")) == LAST
    with pytest.raises(InvalidTime, match="outside"):
        to_micros(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "when")
