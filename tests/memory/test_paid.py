"""What language models and the models of other spaces cost, and who pays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import warpmem
from image_models import RED, ColourTextEmbedder, picture
from warpmem import Budget, Memory, Price, Scope
from warpmem.config import Consolidation
from warpmem.errors import ModelUnavailable, Overloaded
from warpmem.memory.vectors import background
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LONG = " ".join(f"Sentence {n} tells something of the harbour and its boats." for n in range(40))


def open_store(clock: FixedClock, *answers: Any, **options: Any) -> Memory:
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    model = ScriptedLanguageModel(texts)
    prices = {"scripted": Price(per_million_tokens=1e6)}
    return warpmem.open(None, embedder="hashing", clock=clock, language_model=model, prices=prices, **options)


def of_model(memory: Memory) -> list[warpmem.Cost]:
    rows = memory.costs(by=("scope", "lane", "job", "model"))
    return [row for row in rows if row.model == "scripted"]


def test_who_says_something_pays_for_reading_it(clock: FixedClock) -> None:
    with open_store(clock, "no JSON", {"memories": []}) as memory:
        memory.add("I live in Porto", user_id="a", infer="llm", wait=True)
        (row,) = of_model(memory)
    assert (row.scope, row.lane, row.job, row.calls) == (Scope(user_id="a"), "background", "infer", 2)
    assert row.bytes > 2 * len("I live in Porto"), "what it is asked, each time"
    assert row.money == row.tokens > 0
    assert row.device_ms > 0


def test_reading_in_the_background_has_a_budget(clock: FixedClock) -> None:
    """Its calls were told as if somebody waited for them, and the budget of the job had no effect."""
    answers = [{"memories": []}] * 3
    with open_store(clock, *answers, job_budgets={"infer": Budget(money=1.0)}) as memory:
        memory.add("I live in Porto", user_id="a")
        with background("infer"):
            (kept,) = memory.list(user_id="a")
            memory.extract([kept.id])
            with pytest.raises(Overloaded, match="'infer'"):
                memory.extract([kept.id])
        (row,) = of_model(memory)
        assert (row.lane, row.job, row.calls) == ("background", "infer", 1)
        memory.extract([kept.id])
        assert {row.lane: row.calls for row in of_model(memory)} == {"background": 1, "ingest": 1}


def test_a_model_that_fails_is_paid_for_and_one_over_its_limit_not_asked(clock: FixedClock) -> None:
    model = ScriptedLanguageModel([ModelUnavailable("gone")])
    limit = Budget(money=1.0)
    with warpmem.open(
        None, embedder="hashing", clock=clock, language_model=model, owner_limit=limit,
        prices={"scripted": Price(per_million_tokens=1e6)},
    ) as memory:  # fmt: skip
        kept = memory.add("I live in Porto", user_id="a")
        with pytest.raises(ModelUnavailable):
            memory.extract([kept.id])
        assert of_model(memory)[0].calls == 1
        with pytest.raises(Overloaded, match="limit of the day"):
            memory.extract([kept.id])
        assert len(model.calls) == 1


def test_a_context_that_a_model_shortens(clock: FixedClock) -> None:
    answer = {"passages": [{"number": 1, "sentences": [2, 1]}]}
    with open_store(clock, answer) as memory:
        memory.add(LONG, user_id="a", kind="document")
        memory.context("the harbour", user_id="a", max_tokens=300, compress="model")
        (row,) = of_model(memory)
    assert (row.scope, row.lane, row.job, row.calls) == (Scope(user_id="a"), "interactive", "context", 1)


@pytest.mark.parametrize("budget", [None, 1.0])
def test_summaries_are_work_in_the_background(clock: FixedClock, budget: float | None) -> None:
    options = Consolidation(by="model", min_events=3, lines_per_summary=3)
    jobs = {} if budget is None else {"consolidate": Budget(money=budget)}
    answers = [{"summary": "Three drinks."}] * 3
    with open_store(clock, *answers, consolidation=options, job_budgets=jobs) as memory:
        for month in range(3):
            for n in range(3):
                at = START + timedelta(days=31 * month + n)
                memory.add(f"drank {n} in {month}", user_id="a", kind="event", valid_from=at)
        clock.advance(timedelta(days=400))
        (report,) = memory.run_jobs()
        stopped = (False, "Overloaded") if budget is not None else (True, None)
        assert (report.finished, report.failure) == stopped
        (row,) = of_model(memory)
    assert (row.scope, row.lane, row.job) == (Scope(user_id="a"), "background", "consolidate")
    assert row.calls == (3 if budget is None else 1)


def test_images_are_paid_for_as_texts_are(clock: FixedClock) -> None:
    with warpmem.open(
        None, embedder="hashing", embedders={"image": ColourTextEmbedder()}, clock=clock
    ) as memory:
        data = picture(RED)
        memory.add(image=data, blob="red", user_id="a")
        memory.search("red", user_id="a")
        rows = {(row.job, row.model): row for row in memory.costs(by=("job", "model"))}
        assert rows["add", "colours-and-words-2"].bytes == len(data)
        assert rows["search", "colours-and-words-2"].calls == 1
        assert rows["search", memory.stats().model_id].calls == 1
