"""The value of a key, found by the key alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import warpmem
from warpmem import Memory, Scope
from warpmem.errors import InputError, InvalidScope, InvalidTime, StoreClosed
from warpmem.ops.clock import FixedClock, to_datetime
from warpmem.storage.log_reads import LogReads

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def said(memory: Memory, *args: object, **arguments: object) -> str | None:
    item = memory.value(*args, **arguments)  # type: ignore[arg-type]
    return None if item is None else item.text


def test_it_is_what_the_key_has_now_or_had_then(memory: Memory, clock: FixedClock) -> None:
    assert said(memory, "home", user_id="u") is None
    for place in ("Porto", "Lisbon", "Faro"):
        memory.add(f"Home is {place}", user_id="u", key="home")
        clock.advance(10 * DAY)
    memory.add("Home is Rome", user_id="v", key="home")
    assert said(memory, "home", user_id="u") == "Home is Faro"
    assert said(memory, "home", user_id="u", as_of=START) == "Home is Porto"
    assert said(memory, "home", user_id="u", as_of=START + 10 * DAY) == "Home is Lisbon"
    assert said(memory, "home", user_id="u", as_of=START - DAY) is None
    assert said(memory, "home", scope=Scope(user_id="v")) == "Home is Rome"
    assert said(memory, "work", user_id="u") is None
    assert said(memory, "home", user_id="nobody") is None


def test_a_key_is_that_of_exactly_its_scope(memory: Memory) -> None:
    memory.add("for all runs", user_id="u", key="tone")
    memory.add("for one run", user_id="u", run_id="r", key="tone")
    assert said(memory, "tone", user_id="u") == "for all runs"
    assert said(memory, "tone", user_id="u", run_id="r") == "for one run"
    assert said(memory, "tone", user_id="u", run_id="s") is None
    assert said(memory, "tone", run_id="r") is None


def test_what_is_deleted_expired_or_still_to_come_is_no_value(memory: Memory, clock: FixedClock) -> None:
    gone = memory.add("a mistake", user_id="u", key="gone")
    memory.delete(gone.id)
    memory.add("for a day", user_id="u", key="short", expires_at=START + DAY)
    memory.add("from tomorrow on", user_id="u", key="later", valid_from=START + DAY)
    assert said(memory, "gone", user_id="u") is None
    assert said(memory, "short", user_id="u") == "for a day"
    assert said(memory, "later", user_id="u") is None
    clock.advance(DAY)
    assert said(memory, "short", user_id="u") is None
    assert said(memory, "later", user_id="u") == "from tomorrow on"


def test_what_is_in_quarantine_is_a_value_of_its_own(memory: Memory) -> None:
    memory.add("the door is blue", user_id="u", key="door")
    memory.add("the door is red", user_id="u", key="door", trust=0.2)
    assert said(memory, "door", user_id="u") == "the door is blue"
    assert said(memory, "door", user_id="u", quarantined=True) == "the door is red"


def test_what_comes_back_can_be_changed_by_its_owner_alone(memory: Memory) -> None:
    memory.add("x", user_id="u", key="k", metadata={"list": [1]})
    first = memory.value("k", user_id="u")
    assert first is not None
    first.metadata["list"].append(2)
    again = memory.value("k", user_id="u")
    assert again is not None and again.metadata == {"list": [1]}


@pytest.mark.parametrize("seed", range(4))
def test_at_every_moment_it_is_the_one_on_the_timeline(memory: Memory, clock: FixedClock, seed: int) -> None:
    """Adds, late arrivals, corrections, deletions and updates of ends, beside what `timeline` says."""
    pick = random.Random(seed)
    ids: list[str] = []
    for n in range(60):
        clock.advance(timedelta(hours=pick.randrange(1, 30)))
        draw = pick.random()
        try:
            if draw < 0.6 or not ids:
                begins = (
                    None if draw < 0.4 else to_datetime(clock.now()) - timedelta(hours=pick.randrange(400))
                )
                key = pick.choice(["a", "b"])
                ids.append(memory.add(f"{key} {n}", user_id="u", key=key, valid_from=begins).id)
            elif draw < 0.75:
                memory.delete(ids.pop(pick.randrange(len(ids))))
            elif draw < 0.9:
                memory.update(pick.choice(ids), text=f"corrected {n}")
            else:
                memory.update(pick.choice(ids), valid_to=to_datetime(clock.now()))
        except InvalidTime:
            pass
    found = 0
    for _ in range(200):
        at = to_datetime(clock.now()) - timedelta(hours=pick.randrange(1500))
        for key in ("a", "b"):
            page = memory.timeline(user_id="u", key=key, since=at, until=at + timedelta(microseconds=1))
            expected = [item.text for item in page.items]
            assert [said(memory, key, user_id="u", as_of=at)] == (expected or [None])
            found += len(expected)
    assert found > 100


def test_it_reads_the_values_of_the_key_and_nothing_else(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.add([f"item {n}" for n in range(300)], user_id="u")
    memory.add("Home is Porto", user_id="u", key="home")

    def records(*args: object, **arguments: object) -> None:
        raise AssertionError("it goes through the owner's items")

    monkeypatch.setattr(LogReads, "records", records)
    assert said(memory, "home", user_id="u") == "Home is Porto"


def test_beside_a_writer_there_is_always_a_value(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "m", embedder="hashing", durability="os") as memory:
        memory.add("value 0", user_id="u", key="k")
        done = threading.Event()

        def write() -> None:
            try:
                for n in range(1, 300):
                    memory.add(f"value {n}", user_id="u", key="k")
            finally:
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = []
        while not done.is_set():
            item = memory.value("k", user_id="u")
            assert item is not None
            seen.append(int(item.text.removeprefix("value ")))
        writer.join()
        assert seen == sorted(seen)
        assert said(memory, "k", user_id="u") == "value 299"
    with warpmem.open(tmp_path / "m", embedder="hashing", read_only=True) as memory:
        assert said(memory, "k", user_id="u") == "value 299"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda memory: memory.value("k"), InvalidScope),
        (lambda memory: memory.value("", user_id="u"), InputError),
        (lambda memory: memory.value(7, user_id="u"), InputError),
        (lambda memory: memory.value("k", user_id="u", as_of=datetime(2026, 1, 1)), InputError),
        (lambda memory: memory.value("k", user_id="u", quarantined="no"), InputError),
    ],
)
def test_bad_input_is_refused(
    memory: Memory, call: Callable[[Memory], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(memory)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "m", embedder="hashing") as memory:
        pass
    with pytest.raises(StoreClosed):
        memory.value("k", user_id="u")
