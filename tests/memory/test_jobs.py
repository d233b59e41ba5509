"""Forgetting, and runs of jobs: by rule, with reasons, resumable."""

from __future__ import annotations

import gc
import json
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import warpmem
from jobs_lives import NOW, START, fill, live, opened, run_with_stops, stop_early
from warpmem import Memory, NewItem, Scope
from warpmem.config import Consolidation, Forgetting, Reflection
from warpmem.errors import Conflict, InputError, StoreCorrupt, StoreReadOnly
from warpmem.jobs.citations import Citations
from warpmem.jobs.consolidate import Consolidate
from warpmem.jobs.reflect import Reflect
from warpmem.jobs.tools import Stopped, Turn
from warpmem.ops.clock import FixedClock
from warpmem.ops.ids import parse_id
from warpmem.reason.fakes import ScriptedLanguageModel


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with opened(None, clock) as made:
        yield made


def test_what_expired_long_ago_goes_and_its_history_says_why(memory: Memory, clock: FixedClock) -> None:
    old = memory.add("old", user_id="ann", expires_at=NOW + timedelta(days=1)).id
    young = memory.add("young", user_id="ann", expires_at=NOW + timedelta(days=20)).id
    kept = memory.add("kept", user_id="ann").id
    clock.advance(timedelta(days=32))
    (report,) = memory.run_jobs(["forget"])
    assert report.job == "forget" and report.finished and report.done == {"expired": 1} and report.owners == 1
    assert {item.id for item in live(memory)} == {young, kept}
    assert [(v.operation, v.reason) for v in memory.history(old)] == [("add", None), ("delete", "expired")]
    assert memory.run_jobs(["forget"])[0].done == {}


def test_what_faded_or_is_too_much_goes_but_not_what_is_cited_keyed_or_kept(clock: FixedClock) -> None:
    rules = Forgetting(min_retention=0.05, half_life_days=10, max_items=3, keep_kinds=("procedure",))
    with opened(None, clock, forgetting=rules) as memory:
        cited = memory.add("cited", user_id="ann", priority=0.0).id
        memory.add("keyed", user_id="ann", priority=0.0, key="k")
        memory.add("kept", user_id="ann", priority=0.0, kind="procedure")
        faded = memory.add("faded", user_id="ann", priority=0.1).id
        clock.advance(timedelta(days=20))
        crowd = [memory.add(f"crowd {n}", user_id="ann", priority=0.5 + n / 10).id for n in range(4)]
        memory.add(NewItem(text="summary", kind="summary", sources=(cited,), priority=0.9), user_id="ann")
        memory.add("another's", user_id="bob", priority=0.0)
        (report,) = memory.run_jobs()
        assert report.done == {"faded": 2, "crowded": 2}
        texts = {item.text for item in live(memory)}
        assert texts == {"cited", "keyed", "kept", "crowd 2", "crowd 3", "summary"}
        assert memory.history(faded)[-1].reason == "faded: retention 0.0250 below 0.05"
        assert memory.history(crowd[0])[-1].reason == "crowded: 5 items, 3 are kept"


def test_what_others_cite_stays(clock: FixedClock) -> None:
    """Only an owner's own items were asked for their sources: those of a summary of several owners went."""
    rules = Forgetting(min_retention=0.05, half_life_days=10)
    with opened(None, clock, forgetting=rules) as memory:
        ids = {
            (text, user): memory.add(f"{text} {user}", user_id=user, priority=0.1).id
            for user in ("ann", "bob")
            for text in ("cited", "told", "faded")
        }
        memory.add("both", corpus_id="team", sources=[ids["cited", "ann"], "tool", ids["cited", "bob"]])
        memory.delete(memory.add("all", corpus_id="team", sources=list(ids.values())).id)
        clock.advance(timedelta(days=20))
        memory.add("telling", user_id="ann", sources=[ids["told", "bob"]])
        assert memory.run_jobs(["forget"])[0].done == {"faded": 3}
        left = {item.text for user in ("ann", "bob") for item in live(memory, user)}
        assert left == {"cited ann", "telling", "cited bob", "told bob"}
        memory.delete_all(corpus_id="team")
        assert memory.run_jobs(["forget"])[0].done == {"faded": 2}, "another pass looks again"


class Short(Turn):
    """A turn that ends when it is asked for the `left`th time."""

    def __init__(self, left: int) -> None:
        super().__init__(None, threading.Event())
        self.left = left

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Stopped


def test_citations_go_on_where_a_turn_ended_and_keep_up(memory: Memory) -> None:
    """In another process they began anew, so with little time the job never came to its end."""
    mine = [memory.add(f"mine {n}", user_id="ann").id for n in range(3)]
    for user in ("bob", "cy"):
        memory.add("told", user_id=user, sources=[*mine[:1], "crm"])
    tools = memory._jobs._tools
    with pytest.raises(Stopped):
        Citations().among(tools, mine, Short(2))
    citations = Citations()  # as another process does
    assert citations.among(tools, mine, Short(2)) == {mine[0]}
    stored = memory._log.kept(b"citations")
    assert stored is not None and mine[0].encode() not in stored and parse_id(mine[0]) not in stored
    memory.add("later", user_id="dee", sources=mine[1:2])
    memory.add("his own", user_id="ann", sources=mine[2:])
    for known in (citations, Citations()):
        assert known.among(tools, mine, Short(2)) == set(mine[:2])
    citations.begin_anew(tools)
    assert memory._log.kept(b"citations") is None


def test_citations_of_another_state_of_the_log_are_not_believed(memory: Memory) -> None:
    """As after a loss of power that took the end of the log along."""
    mine = memory.add("mine", user_id="ann").id
    memory.add("told", user_id="bob", sources=[mine])
    payload = msgspec.msgpack.encode([2, 100, b""])
    memory._log.transact(lambda transaction: transaction.keep(b"citations", payload))
    assert Citations().among(memory._jobs._tools, [mine], Short(9)) == {mine}
    memory._log.transact(lambda transaction: transaction.keep(b"citations", b"\xc1"))
    with pytest.raises(StoreCorrupt):
        Citations().among(memory._jobs._tools, [mine], Short(9))


def test_forgetting_gets_further_in_each_process_however_little_time_it_has(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def made() -> Memory:
        return opened(tmp_path / "store", FixedClock(NOW), forgetting=Forgetting(max_items=3))

    with made() as memory:
        for user in range(8):
            memory.add_many([f"note {n} of {user}" for n in range(6)], user_id=f"user {user}")
        memory.add("all", corpus_id="team", sources=[live(memory, "user 7")[0].id])
    with monkeypatch.context() as patched:
        stop_early(patched)
        for _ in range(60):
            with made() as memory:
                (report,) = memory.run_jobs()
            if report.finished:
                break
    assert report.finished and report.done == {"crowded": 8 * 3 - 1}
    with made() as memory:
        assert memory.run_jobs()[0].done == {} and memory._log.kept(b"citations") is None


def test_what_is_touched_while_it_is_being_forgotten_stays(clock: FixedClock, monkeypatch: Any) -> None:
    from warpmem.jobs import forget

    with opened(None, clock, forgetting=Forgetting(max_items=1)) as memory:
        memory.add("one", user_id="ann", priority=0.1)
        memory.add("two", user_id="ann", priority=0.2)
        chosen = forget.to_forget

        def slow(*arguments: Any) -> Any:
            found = chosen(*arguments)
            clock.advance(timedelta(seconds=1))
            memory.add("one", user_id="ann", priority=0.1)
            return found

        monkeypatch.setattr(forget, "to_forget", slow)
        assert memory.run_jobs()[0].done == {}
        assert {item.text for item in live(memory)} == {"one", "two"}


def test_a_run_that_is_stopped_or_killed_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: Any) -> None:
    both: dict[str, Any] = {"consolidation": Consolidation(), "forgetting": Forgetting(max_items=40)}

    def contents(memory: Memory) -> list[Any]:
        return sorted(
            (user, item.kind, item.text, len(item.sources), item.valid_from)
            for user in ("ann", "bob", "cem")
            for item in live(memory, user)
        )

    def make(path: Path) -> Memory:
        memory = opened(path, FixedClock(NOW), **both)
        for user in ("ann", "bob", "cem"):
            fill(memory, random.Random(user), 100, user)
        return memory

    with make(tmp_path / "whole") as memory:
        memory.run_jobs()
        whole = contents(memory)
    make(tmp_path / "stopped").close()
    stops = run_with_stops(
        lambda: opened(tmp_path / "stopped", FixedClock(NOW), **both), ["consolidate"], random.Random(5),
        monkeypatch,
    )  # fmt: skip
    assert stops >= 5
    with opened(tmp_path / "stopped", FixedClock(NOW), **both) as memory:
        memory.run_jobs()
        assert contents(memory) == whole
    assert warpmem.verify(tmp_path / "stopped").ok


def test_seconds_stop_a_run_which_says_so_and_goes_on(clock: FixedClock) -> None:
    with opened(None, clock, consolidation=Consolidation()) as memory:
        for user in ("ann", "bob"):
            fill(memory, random.Random(2), 40, user)
        (report,) = memory.run_jobs(seconds=1e-9)
        assert not report.finished and report.owners == 0
        (report,) = memory.run_jobs()
        assert report.finished and report.owners == 2
        assert memory.run_jobs(seconds=timedelta(hours=1))[0].done == {}


def test_a_job_that_takes_all_the_time_leaves_the_next_run_to_others(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.add("a", user_id="ann")
    left = most = 10**6

    def check(turn: Turn) -> None:
        nonlocal left
        if left == 0:
            raise Stopped
        left -= 1

    monkeypatch.setattr(Turn, "check", check)
    jobs = ["forget", "deduplicate"]
    memory.run_jobs(jobs)
    left = most
    memory.run_jobs(jobs[:1])
    enough = most - left
    for finished in ([True, False], [False, True]):
        left = enough
        reports = memory.run_jobs(jobs)
        assert [report.job for report in reports] == jobs
        assert [report.finished for report in reports] == finished


class Reading:
    """Stands for the module time: reading an item takes a second, and a model's call as long."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def slow(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*args: Any, **options: Any) -> Any:
            self.now += 1.0
            return call(*args, **options)

        return slowed


@pytest.mark.parametrize("seconds", [2.0, 53.5])
@pytest.mark.parametrize("by", ["extract", "model"])
@pytest.mark.parametrize("job", ["consolidate", "reflect"])
def test_a_run_gets_further_however_long_an_owner_takes_to_read(
    clock: FixedClock, monkeypatch: Any, job: str, by: Any, seconds: float
) -> None:
    """The time was over before the first change, and the next run read the same owner again; a model's
    answers were paid for and lost."""
    reading = Reading()
    monkeypatch.setattr("warpmem.jobs.tools.time", reading)
    monkeypatch.setattr(Consolidate, "_may_go", reading.slow(Consolidate._may_go))
    monkeypatch.setattr(Reflect, "_tells", reading.slow(Reflect._tells))
    model = ScriptedLanguageModel([json.dumps({"summary": "Tea."})] * 99)
    monkeypatch.setattr(model, "complete", reading.slow(model.complete))
    options: dict[str, Any] = {
        "consolidation": Consolidation(by=by, max_events=4, outliers=0),
        "reflection": Reflection(by=by),
        "language_model": model,
    }
    with opened(None, clock, **options) as memory:
        for user in ("ann", "bob"):
            for n in range(24):
                at = START + timedelta(days=31 * (n % 2))
                memory.add(f"note {n}", user_id=user, kind="event", valid_from=at)
                memory.add(f"fact {n}", user_id=user, agent_id=f"agent{n % 2}")
        reports = memory.run_jobs([job], seconds=seconds)
        while not reports[-1].finished and len(reports) < 9:
            reports += memory.run_jobs([job], seconds=seconds)
        report = reports[-1]
        assert report.finished and (len(reports) > 4 or seconds > 2.0), "four months, or four profiles"
        if job == "consolidate":
            assert report.done["events"] == 48
            several = sum(len(item.sources) > 1 for user in ("ann", "bob") for item in live(memory, user))
        else:
            assert report.done == {"profiles": 4}
            several = 4
        assert len(model.calls) == (several if by == "model" else 0), "nothing is paid for twice"


def test_a_thread_runs_what_is_configured_and_ends_with_the_store(
    clock: FixedClock, monkeypatch: Any
) -> None:
    from warpmem.jobs import runner
    from warpmem.jobs.runner import Jobs

    ran = threading.Event()
    run = Jobs.run

    def seen(self: Jobs, names: Any, seconds: Any) -> Any:
        try:
            return run(self, names, seconds)
        finally:
            ran.set()

    repeat = runner._repeat
    monkeypatch.setattr(runner, "_repeat", lambda found, closing, pause: repeat(found, closing, 0.01))
    monkeypatch.setattr(Jobs, "run", seen)
    with opened(None, clock, forgetting=Forgetting(grace_days=0), jobs_minutes=1) as memory:
        memory.add("gone", user_id="ann", expires_at=NOW + timedelta(seconds=1))
        clock.advance(timedelta(seconds=2))
        assert ran.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "warpmem-jobs"]


def test_a_store_that_is_dropped_leaves_no_thread_of_jobs(clock: FixedClock) -> None:
    """It kept index and log until it had run jobs the next time, in vain."""
    memory = opened(None, clock, forgetting=Forgetting(), jobs_minutes=60)
    memory.add("a fact", user_id="ann")
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "warpmem-jobs")
    log = weakref.ref(memory._log)
    del memory
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    gc.collect()
    assert log() is None


def test_refusals(tmp_path: Path, clock: FixedClock) -> None:
    with opened(tmp_path / "store", clock) as memory:
        assert memory.run_jobs() == ()
        for wrong in ("forget", 3, ["sleep"], ["forget", 3]):
            with pytest.raises(InputError):
                memory.run_jobs(wrong)  # type: ignore[arg-type]
        for seconds in (0, -1, True, "1", float("nan")):
            with pytest.raises(InputError, match="seconds"):
                memory.run_jobs(["forget"], seconds=seconds)  # type: ignore[arg-type]
        with memory._jobs._running, pytest.raises(Conflict):  # type: ignore[attr-defined]
            memory.run_jobs(["forget"])
    with opened(tmp_path / "store", clock, read_only=True) as memory, pytest.raises(StoreReadOnly):
        memory.run_jobs(["forget"])
    bad: list[dict[str, Any]] = [
        {"forgetting": {"half_life_days": 0}}, {"forgetting": {"min_retention": 2}}, {"jobs_minutes": -1},
        {"forgetting": {"max_items": 0}}, {"forgetting": {"grace": 1}}, {"consolidation": {"min_events": 1}},
        {"consolidation": {"max_events": 999}}, {"consolidation": {"outliers": -0.1}},
        {"consolidation": {"outliers": 1.1}}, {"consolidation": {"outliers": float("nan")}},
        {"consolidation": {"by": "magic"}}, {"consolidation": {"older_than_days": -1}},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(InputError):
            opened(None, clock, **options)


def test_a_file_configures_them(tmp_path: Path, clock: FixedClock) -> None:
    (tmp_path / "warpmem.toml").write_text(
        'embedder = "hashing"\n[forgetting]\nmax_items = 1\n[consolidation]\nkinds = ["event"]\n'
    )
    with warpmem.open(None, config=tmp_path / "warpmem.toml", clock=clock) as memory:
        memory.add("one", user_id="ann")
        memory.add("two", user_id="ann")
        assert [report.job for report in memory.run_jobs()] == ["consolidate", "forget"]
        assert len(live(memory)) == 1
        assert memory.count(scope=Scope(user_id="ann")) == 1
