"""What was spent on models, by owner and purpose: complete, durable, gone with who is erased, and bounded."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from cost_stores import ALL, MODEL, kept, ledger, open_store, settled, user
from warpmem import Budget, NewItem, Price, Scope
from warpmem.cli import main
from warpmem.errors import InputError, InvalidTime, StoreClosed
from warpmem.ops.clock import FixedClock
from warpmem.ops.costs import cost_key


def test_each_owner_and_purpose_is_told_apart(clock: FixedClock) -> None:
    prices = {MODEL: Price(per_million_tokens=3.0, per_device_second=0.5)}
    with open_store(None, clock, prices=prices) as memory:
        memory.add("twelve bytes", user_id="a")
        memory.search("twelve bytes!", user_id="a")
        memory.search("twelve bytes!", user_id="a")
        memory.add("größe", agent_id="b")
        memory.search("who am I", user_id="stranger")
        rows = memory.costs(by=ALL)
        told = [(r.scope, r.lane, r.job, r.tokens, r.bytes, r.calls, r.cache_hits) for r in rows]
        assert told == [
            (None, "interactive", "search", 2, 8, 1, 0),
            (user("a"), "ingest", "add", 3, 12, 1, 0),
            (user("a"), "interactive", "search", 3, 13, 1, 1),
            (Scope(agent_id="b"), "ingest", "add", 1, 7, 1, 0),
        ]
        assert {(r.day, r.model) for r in rows} == {(date(2026, 1, 1), MODEL)}
        for row in rows:
            assert row.device_ms > 0
            assert row.money == pytest.approx(3.0 * row.tokens / 1e6 + 0.5 * row.device_ms / 1e3)
        whole = memory.costs(by=())
        assert len(whole) == 1
        assert (whole[0].tokens, whole[0].calls, whole[0].scope) == (9, 4, None)
        assert [r.job for r in memory.costs(user("a"), by="job")] == ["add", "search"]
        assert memory.costs(user_id="a") == memory.costs(user("a"), by="scope")
        assert memory.costs(user_id="unknown") == ()


def test_the_ledger_has_all_of_the_models_time(tmp_path: Path, clock: FixedClock) -> None:
    with open_store(tmp_path / "store", clock, embedding_cache_bytes=0) as memory:

        def work(thread: int) -> None:
            rng = random.Random(thread)
            for n in range(25):
                whose = f"user {rng.randrange(6)}"
                memory.add([f"note {thread} {n} {i}" for i in range(rng.randrange(1, 6))], user_id=whose)
                memory.search(f"question {thread} {n} " + "x" * rng.randrange(200), user_id=whose)
                if n % 10 == 0:
                    memory.flush()

        with ThreadPoolExecutor(6) as pool:
            for future in [pool.submit(work, thread) for thread in range(6)]:
                future.result()
        stats = memory.stats().models["embedder"]
        (whole,) = memory.costs(by=())
        assert whole.device_ms == pytest.approx(stats["busy_seconds"] * 1e3, rel=0.01)
        assert whole.tokens == sum(stats["tokens"].values())
        by_lane = {row.lane: row.tokens for row in memory.costs(by="lane")}
        assert by_lane == {lane: tokens for lane, tokens in stats["tokens"].items() if tokens}


def test_a_list_of_several_owners_is_shared_among_them(clock: FixedClock) -> None:
    with open_store(None, clock) as memory:
        items = [NewItem(text=f"{name} " * 40, scope=user(name)) for name in ("aaa", "bbb")]
        memory.add_many([*items, NewItem(text="ccc", scope=user("c"))])
        a, b, c = (memory.costs(user(name))[0] for name in ("aaa", "bbb", "c"))
        assert abs(a.tokens - b.tokens) <= 1 and a.tokens > 10 * c.tokens
        assert sum(row.tokens for row in (a, b, c)) == memory.stats().models["embedder"]["tokens"]["ingest"]
        assert a.device_ms == pytest.approx(b.device_ms, rel=0.1)


def test_a_reranker_is_paid_for_by_who_searches(clock: FixedClock) -> None:
    with open_store(None, clock, reranker="overlap") as memory:
        memory.add(["one two", "three"], user_id="a")
        memory.search("one", user_id="a", rerank=True)
        (row,) = (row for row in memory.costs(by=("job", "model", "lane")) if row.job == "rerank")
        assert (row.lane, row.calls, row.bytes) == ("interactive", 1, 15)
        assert row.device_ms > 0 and row.tokens > 0
        assert row.model == memory._reasoning.reranker().model_id


# ------------------------------------------------------------------------------------------- durable


def test_totals_are_there_after_closing(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
        memory.flush()
        memory.add("two", user_id="a")
        memory.search("who", user_id="nobody")
        first = memory.costs(by=ALL)
    with open_store(path, clock) as memory:
        assert memory.costs(by=ALL) == first
        clock.advance(timedelta(days=1))
        memory.add("three", user_id="a")
        days = {row.day: row.calls for row in memory.costs(user("a"), by="day")}
        assert days == {date(2026, 1, 1): 2, date(2026, 1, 2): 1}
        assert memory.costs(since=date(2026, 1, 2), by=())[0].calls == 1
        assert memory.costs(since=datetime(2026, 1, 1, 23, 59, tzinfo=UTC), by=())[0].calls == 4
        assert memory.costs(since=date(2026, 1, 3)) == ()
    assert warpmem.verify(path).ok
    assert len(kept(path)) == 3


def test_days_are_kept_for_so_long(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    for day in range(5):
        with open_store(path, clock, cost_days=2) as memory:
            memory.add(f"note {day}", user_id="a")
            memory.flush()
            assert memory.costs(by=())[0].calls == min(day + 1, 3)
        clock.advance(timedelta(days=1))
    with open_store(path, clock, cost_days=0) as memory:
        memory.add("another", user_id="a")
        memory.flush()
        assert memory.costs(by=())[0].calls == 4
    assert len(kept(path)) == 3, "a store that keeps none adds none"


def test_it_is_stored_once_a_minute_at_most_and_by_nobody_who_searches(clock: FixedClock) -> None:
    with open_store(None, clock) as memory:
        memory.add("a", user_id="a")
        times = [0.0]
        costs, log = ledger(memory, times)
        purpose = (warpmem.Owner("user", "a"), "interactive", "search", "m")
        for second in range(60):
            times[0] = float(second)
            costs.spend(purpose, 1, 0.5, 3, 1)
        assert log.changes == 0
        for minute in range(1, 4):
            times[0] = 60.5 + 61.0 * (minute - 1)
            for _ in range(100):
                costs.spend(purpose, 1, 0.5, 3, 1)
            settled(costs, log, minute)
        costs.store()
        settled(costs, log, 4)
        costs.store()
        assert log.changes == 4, "there was nothing to store"
        (line,) = [line for _, _, line in costs.lines(0, None) if line.model == "m"]
        assert line.amounts.tokens == 360


def test_what_cannot_be_stored_stays_in_memory(clock: FixedClock) -> None:
    with open_store(None, clock) as memory:
        memory.add("a", user_id="a")
        costs, log = ledger(memory, [0.0])
        costs.spend((warpmem.Owner("user", "a"), "interactive", "search", "m"), 7, 0.5, 3, 1)
        log.refuses = True
        assert not costs.store()
        costs.spend((warpmem.Owner("user", "a"), "interactive", "search", "m"), 2)
        log.refuses = False
        assert costs.store()
        (line,) = [line for _, _, line in costs.lines(0, None) if line.model == "m"]
        assert (line.amounts.tokens, line.amounts.calls) == (9, 1)


def test_more_owners_than_there_is_room_for_are_counted_together(
    clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warpmem.memory.costs._MOST", 5)
    with open_store(None, clock) as memory:
        costs, _ = ledger(memory, [0.0])
        for n in range(50):
            costs.spend((warpmem.Owner("user", f"{n}"), "interactive", "search", "m"), 1)
        assert len(costs._new) == 6
        assert sum(line.amounts.tokens for _, _, line in costs.lines(0, None)) == 50


@pytest.mark.parametrize("how", ["read_only", "follow"])
def test_who_only_reads_keeps_his_own_in_memory(tmp_path: Path, clock: FixedClock, how: str) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
    with open_store(path, clock, **{how: True}) as reader:
        reader.search("one two", user_id="a")
        assert [(row.job, row.calls) for row in reader.costs(by="job")] == [("add", 1), ("search", 1)]
        reader.flush()
    with open_store(path, clock) as memory:
        assert [row.job for row in memory.costs(by="job")] == ["add"]


def test_a_follower_sees_what_the_writer_stored(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="a")
        with open_store(path, clock, follow=True, follow_ms=0) as reader:
            memory.flush()
            memory.add("two", user_id="a")
            reader.refresh()
            assert reader.costs(by=())[0].calls == 1


def test_a_batch_of_others_does_not_fail_for_a_store_that_is_closed(
    tmp_path: Path, clock: FixedClock
) -> None:
    """What a batch took is told to every store that had a text in it, by whichever thread served it."""
    memory = open_store(tmp_path / "store", clock, owner_limit=Budget(money=1e6))
    memory.close()
    with pytest.raises(StoreClosed):
        memory._log.kept(cost_key(20_454, 1))
    memory._costs.spend((warpmem.Owner("user", "late"), "interactive", "search", "m"), 1, 0.5, 3, 1)
    assert sum(amounts.tokens for amounts in memory._costs._new.values()) == 1


# ---------------------------------------------------------------------------------------------- asking


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"by": "week"}, InputError, "by must name some of 'day', 'scope'"),
        ({"by": ("day", 1)}, InputError, "by must name"),
        ({"by": 3}, InputError, "by must name"),
        ({"since": "2026-01-01"}, InputError, "since must be a date or an aware datetime, not str"),
        ({"since": datetime(2026, 1, 1)}, InvalidTime, "since is a naive datetime"),
        ({"user_id": "a", "run_id": "r"}, InputError, "costs are kept by owner"),
    ],
)
def test_bad_questions(clock: FixedClock, arguments: Any, error: type[Exception], match: str) -> None:
    with open_store(None, clock) as memory, pytest.raises(error, match=match):
        memory.costs(**arguments)


def test_the_command(tmp_path: Path, clock: FixedClock, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    with open_store(path, clock) as memory:
        memory.add("one", user_id="ada")
        memory.search("twelve bytes", user_id="ada")

    def out(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["costs", "--store", str(path), *arguments]) == 0
        return capsys.readouterr().out

    assert out().startswith("user_id=ada ") and "4 tokens, 15 bytes, 2 calls, 0 cache hits, 0" in out()
    assert [line.split()[:2] for line in out("--by", "day,job").splitlines()] == [
        ["2026-01-01", "add"], ["2026-01-01", "search"],
    ]  # fmt: skip
    assert '"tokens":4' in out("--json", "--user", "ada", "--since", "2026-01-01")
    assert out("--since", "2026-01-02") == ""
    assert main(["costs", "--store", str(path), "--since", "monday"]) == 2
