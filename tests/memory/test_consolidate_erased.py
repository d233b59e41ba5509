"""Consolidation and erasure: no summary keeps or brings back what is erased."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from jobs_lives import NOW, START, live, opened
from warpmem import NewItem
from warpmem.config import Consolidation
from warpmem.ops.clock import FixedClock
from warpmem.ops.ids import parse_id
from warpmem.storage.codec import FAMILIES, KEYS_END


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def test_erasing_takes_its_words_out_of_summaries_of_summaries(tmp_path: Path, clock: FixedClock) -> None:
    """The words of one event stayed in them, or those of all others went too."""
    options = Consolidation(
        kinds=("event", "summary"), min_events=2, lines_per_summary=2, outliers=0, older_than_days=1
    )
    with opened(tmp_path / "store", clock, consolidation=options) as memory:
        ids = []
        for n in range(6):
            when = START + timedelta(hours=n)
            ids.append(memory.add(f"canary{n}", user_id="ann", kind="event", valid_from=when).id)  # type: ignore[union-attr]
        while len(live(memory)) > 1:
            memory.run_jobs()
        for erased, left in ((2, {0, 1, 3, 4, 5}), (4, {0, 1, 3, 5})):
            memory.erase([ids[erased]])
            told = "\n".join(item.text for item in live(memory))
            assert [told.count(f"canary{n}") for n in range(6)] == [int(n in left) for n in range(6)]
            word = f"canary{erased}".encode()
            for file in (tmp_path / "store").rglob("*"):
                assert not file.is_file() or word not in file.read_bytes()
        for item in live(memory):
            memory.delete(item.id)
        memory.erase([ids[1]])
        assert not live(memory), "what was deleted stays so"


def test_what_passes_for_a_summary_brings_nothing_of_an_erased_owner_back(clock: FixedClock) -> None:
    with opened(None, clock) as memory:
        """It was made anew with his words."""
        ids = {user: memory.add(f"canary of {user}", user_id=user).id for user in ("ann", "bob")}  # type: ignore[union-attr]
        forged = NewItem(
            text="of both",
            kind="summary",
            sources=tuple(ids.values()),
            metadata={"consolidated": {"by": "model"}},
        )
        memory.add(forged, user_id="ann")
        memory.erase(user_id="bob")
        assert {item.text for item in live(memory)} == {"canary of ann"}
        (summary,) = [item for item in live(memory) if item.kind == "summary"]
        assert summary.sources == (ids["ann"],)


@pytest.mark.parametrize("derived", ["erase", "keep"])
@pytest.mark.parametrize("erased", ["a summary", "an event", "both"])
def test_history_names_no_summary_that_was_erased(
    tmp_path: Path, clock: FixedClock, erased: str, derived: Any
) -> None:
    """Events said for ever that they were summarised in it, by its id."""
    options = Consolidation(lines_per_summary=9, outliers=0)
    with opened(tmp_path / "store", clock, consolidation=options) as memory:
        ids = [
            memory.add(f"event {n}", user_id="ann", kind="event", valid_from=START + timedelta(n)).id
            for n in range(20)
        ]
        memory.run_jobs()
        other, summary = sorted(live(memory), key=lambda item: len(item.sources))[-2:]
        assert len(summary.sources) > 2
        chosen = {"a summary": [summary.id], "an event": summary.sources[:1]}
        memory.erase(chosen.get(erased, [summary.id, summary.sources[0]]), derived=derived)
        gone = summary.id not in {item.id for item in live(memory)}
        assert gone or (erased, derived) == ("an event", "keep")
        for source in summary.sources[1:]:
            reason = memory.history(source)[-1].reason
            assert reason == f"summarised in {'an item that was erased' if gone else summary.id}"
        assert memory.history(other.sources[0])[-1].reason == f"summarised in {other.id}"
        engine: Any = memory._log._engine  # type: ignore[attr-defined]
        for family in FAMILIES if gone else ():
            for key, value in engine.scan(family, b"", KEYS_END):
                assert summary.id.encode() not in value and parse_id(summary.id) not in key
    for file in (tmp_path / "store").rglob("*") if gone else ():
        assert not file.is_file() or summary.id.encode() not in file.read_bytes()
    assert warpmem.verify(tmp_path / "store").ok
    assert set(ids) >= set(summary.sources)


def test_what_is_kept_of_a_summary_names_no_erased_event(clock: FixedClock) -> None:
    """Its metadata named the first one by id."""
    with opened(None, clock, consolidation=Consolidation(lines_per_summary=9, outliers=0)) as memory:
        ids = [
            memory.add(f"event {n}", user_id="ann", kind="event", valid_from=START + timedelta(n)).id
            for n in range(20)
        ]
        memory.run_jobs()
        summaries = live(memory)
        assert len({item.metadata["consolidated"]["first"] for item in summaries}) == len(summaries) > 1
        memory.erase(ids, derived="keep")
        kept = [version for item in summaries for version in memory.history(item.id)]
        assert kept and not [name for name in ids if name in repr(kept)]


def test_erasing_waits_for_a_summary_that_is_being_stored(clock: FixedClock, monkeypatch: Any) -> None:
    """An erasure that had looked for what was derived left its words in the summary that came then."""
    from warpmem.jobs.consolidate import _Exchange

    with opened(None, clock, consolidation=Consolidation(min_events=2)) as memory:
        ids = [
            memory.add(f"event {n} canary{n}", user_id="ann", kind="event", valid_from=START).id
            for n in range(4)
        ]
        run, erased = _Exchange.run, threading.Thread(target=lambda: memory.erase([ids[2]], user_id="ann"))

        def slow(self: Any, serving: Any) -> int:
            erased.start()
            erased.join(0.3)
            assert erased.is_alive()
            return run(self, serving)

        monkeypatch.setattr(_Exchange, "run", slow)
        memory.run_jobs()
        erased.join(10)
        (summary,) = live(memory)
        assert "canary2" not in summary.text and "canary3" in summary.text


def test_an_erasure_is_not_refused_for_a_summary(clock: FixedClock) -> None:
    """One without a model, one whose summary somebody has corrected, one to which he gave a source."""
    working = [True]

    def embed(texts: Any) -> Any:
        if not working[0]:
            raise OSError("down")
        return [[float(len(text)), 1.0] for text in texts]

    options: dict[str, Any] = {"dimension": 2, "model_id": "m", "consolidation": Consolidation(min_events=2)}
    with warpmem.open(None, embedder=embed, clock=clock, durability="os", **options) as memory:
        ids = {}
        for run in ("down", "corrected", "named"):
            ids[run] = [
                memory.add(f"{run} {n}", user_id="ann", run_id=run, kind="event", valid_from=START).id
                for n in range(3)
            ]
        memory.run_jobs()
        by_run = {item.scope.run_id: item for item in live(memory)}
        memory.update(by_run["corrected"].id, text="what somebody made of it")
        named = by_run["named"]
        memory.update(named.id, sources=[*named.sources, "reviewed"])
        assert by_run["corrected"].id in memory.erase([ids["corrected"][0]]).kept
        assert named.id in memory.erase([ids["named"][0]]).derived
        (named,) = [item for item in live(memory) if item.scope.run_id == "named"]
        assert named.sources == (*ids["named"][1:], "reviewed") and "named 0" not in named.text
        working[0] = False
        receipt = memory.erase([ids["down"][0]])
        assert receipt.items + receipt.history > 0 and by_run["down"].id in (*receipt.derived, *receipt.kept)


def test_erasing_a_source_takes_its_words_out_of_the_summary(tmp_path: Path, clock: FixedClock) -> None:
    options = Consolidation(min_events=3)
    with opened(tmp_path / "store", clock, consolidation=options) as memory:
        ids = [
            memory.add(f"event {n} canary{n}", user_id="ann", kind="event", valid_from=START).id
            for n in range(4)
        ]
        memory.run_jobs()
        (summary,) = live(memory)
        memory.add(NewItem(text="profile", kind="summary", sources=(summary.id,)), user_id="ann")
        receipt = memory.erase([ids[2]], user_id="ann")
        assert summary.id in receipt.derived and not receipt.kept
        (new,) = live(memory)
        assert new.sources == (ids[0], ids[1], ids[3]) and "canary2" not in new.text and "canary3" in new.text
        assert not [
            file
            for file in (tmp_path / "store").rglob("*")
            if file.is_file() and b"canary2" in file.read_bytes()
        ]
        memory.erase(user_id="ann")
        assert not live(memory)
