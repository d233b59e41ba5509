"""What is believed of how fast batches are served."""

from __future__ import annotations

import pytest

from warpmem.ops.speed import Speed


def seen(*batches: tuple[int, float]) -> Speed:
    speed = Speed(1e6)
    for tokens, seconds in batches:
        speed.seen(tokens, seconds)
    return speed


def test_what_is_expected_until_something_is_served() -> None:
    speed = Speed(1000.0)
    assert not speed.measured
    assert (speed.best, speed.seconds(500, 100), speed.within(0.1)) == (1000.0, 0.5, 100.0)


def test_a_size_that_was_never_served_is_hoped_to_take_no_longer_than_a_smaller_one() -> None:
    speed = seen((10, 0.05))
    assert speed.seconds(10, 10_000) == pytest.approx(0.05)
    assert speed.seconds(1000, 10_000) == pytest.approx(0.05, rel=1.0)
    assert speed.seconds(1000, 10) == pytest.approx(5.0), "a hundred batches of ten"
    speed.seen(1000, 5.0)
    assert speed.seconds(1000, 10_000) == pytest.approx(5.0)


def test_smaller_sizes_than_were_served_go_by_the_token() -> None:
    assert seen((1000, 1.0)).seconds(10, 1000) == pytest.approx(0.01)


def test_a_large_batch_that_was_slow_once_is_not_held_to_be_slower_than_many_small_ones() -> None:
    assert seen((1000, 60.0), (100, 0.1)).seconds(1000, 1000) == pytest.approx(1.0)


def test_a_batch_for_so_long() -> None:
    linear = seen((10, 0.01), (100, 0.1), (1000, 1.0))
    assert linear.within(0.1) == pytest.approx(100)
    assert seen((10, 0.001)).within(0.1) == pytest.approx(1000)
    flat = seen((10, 0.05))
    assert flat.within(0.02) > 10, "at least what a short text takes twice"
    assert flat.within(1.0) >= 4 * 16, "and larger ones are tried while these take no time"


def test_a_server_that_takes_long_whatever_it_is_asked_gets_more_each_time() -> None:
    """It got one text at a time for ever: a longer batch was held to take longer than it may, and never
    tried."""
    speed, sizes = Speed(20_000.0), [7]
    for _ in range(6):
        speed.seen(sizes[-1], 0.15)
        sizes.append(int(speed.within(0.1)) // 7 * 7)
    assert sizes == sorted(sizes) and sizes[-1] >= 32 * sizes[0]


def test_one_slow_batch_is_not_believed_at_once() -> None:
    speed = seen(*[(100, 0.1)] * 10, (100, 10.0))
    assert 700 < speed.best < 1000


def test_what_a_size_showed_once_is_not_believed_for_ever() -> None:
    """A lucky batch, or one from before the device was shared, was the best rate for as long as it ran."""
    speed = seen((1000, 0.001), *[(100, 0.1)] * 200)
    assert speed.best == pytest.approx(1e6)
    for _ in range(400):
        speed.seen(100, 0.1)
    assert speed.best == pytest.approx(1000)
    assert speed.within(1.0) == pytest.approx(1000)


def test_a_size_that_was_slow_long_ago_is_hoped_to_be_fast_again() -> None:
    speed = seen((1000, 60.0), *[(100, 0.1)] * 200)
    assert speed.seconds(1000, 1000) == pytest.approx(1.0)
    for _ in range(400):
        speed.seen(100, 0.1)
    assert speed.seconds(1000, 1000) < 0.2
