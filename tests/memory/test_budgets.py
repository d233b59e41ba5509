"""What may be spent in a day, and what happens to whoever would spend more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import Budget, Memory, Price
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, Overloaded
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel


class Priced:
    """The hashing embedder under a name of its own: one token a text."""

    dimension = 16

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self._made = HashingEmbedder(16)

    def token_costs(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)

    def embed(self, texts: Sequence[str], *, role: Any) -> NDArray[np.float32]:
        return self._made.embed(texts, role=role)


def priced(clock: FixedClock, path: Path | None = None, **options: Any) -> Memory:
    """A store whose models cost one a text."""
    prices = {name: Price(per_million_tokens=1e6) for name in ("first", "second")}
    return warpmem.open(
        path, embedder=Priced("first"), clock=clock, durability="os", prices=prices, min_free_bytes=0,
        embedding_cache_bytes=0, **options,
    )  # fmt: skip


def lines(path: Path, count: int) -> Path:
    path.write_text("".join(f'{{"text": "line {n}", "user_id": "a"}}\n' for n in range(count)))
    return path


@pytest.mark.parametrize("budget", ["owner_budget", "job_budgets"])
def test_background_work_over_its_budget_waits_for_the_next_day(
    tmp_path: Path, clock: FixedClock, budget: str
) -> None:
    ten = Budget(money=10.0)
    options: dict[str, Any] = {budget: ten if budget == "owner_budget" else {"import": ten}}
    file = lines(tmp_path / "lines", 25)
    with priced(clock, tmp_path / "store", **options) as memory:
        with pytest.raises(Overloaded, match="budget of the day") as caught:
            memory.import_(file, batch=5)
        assert caught.value.retry_after == 12 * 3600.0, "until the end of the day"
        assert memory.count(user_id="a") == 10
        memory.search("line 1", user_id="a")
        memory.add("said by somebody who waits", user_id="a")
    clock.advance(timedelta(hours=11))
    with priced(clock, tmp_path / "store", **options) as memory:
        with pytest.raises(Overloaded, match="budget of the day"):
            memory.import_(file, batch=5)
        clock.advance(timedelta(hours=2))
        with pytest.raises(Overloaded, match="budget of the day"):
            memory.import_(file, batch=5)
        assert memory.count(user_id="a") == 21
        clock.advance(timedelta(days=1))
        assert memory.import_(file, batch=5).before == 20
        assert memory.count(user_id="a") == 26


def test_one_owners_budget_is_not_anothers(tmp_path: Path, clock: FixedClock) -> None:
    with priced(clock, owner_budget=Budget(money=3.0)) as memory:
        memory.add_many(["1", "2", "3"], user_id="a")
        with pytest.raises(Overloaded):
            memory.import_(lines(tmp_path / "lines", 1))
        other = tmp_path / "others"
        other.write_text('{"text": "of b", "user_id": "b"}\n')
        assert memory.import_(other).stored == {"added": 1}


@pytest.mark.parametrize(
    ("job", "kind", "made"), [("consolidate", "event", "summaries"), ("reflect", "fact", "profiles")]
)
def test_jobs_go_on_to_others_when_an_owner_has_spent_his_budget(
    clock: FixedClock, job: str, kind: str, made: str
) -> None:
    """One owner over his own budget stopped the job for everybody, every day that he was."""
    model = ScriptedLanguageModel([json.dumps({"summary": "Two."})] * 9)
    with priced(clock, owner_budget=Budget(money=10.0), language_model=model) as memory:
        for user in ("a", "b", "c"):
            memory.add_many([f"{user} {n}" for n in range(8)], user_id=user, kind=kind)
        clock.advance(timedelta(days=90))
        for n in range(10):
            memory.search(f"question {n}", user_id="a")
        (report,) = memory.run_jobs([job])
        assert report.finished and report.owners == 3 and report.failure is None
        assert report.done["owners that wait"] == 1 and not memory.count(
            user_id="a", kinds=["summary", "profile"]
        )
        before = report.done[made]
        clock.advance(timedelta(days=1))
        (report,) = memory.run_jobs([job])
        assert report.finished and report.done[made] == before / 2, "a day later he has a budget again"


def test_a_new_model_is_paused_and_goes_on(clock: FixedClock) -> None:
    with priced(clock, job_budgets={"reembed": Budget(money=4.0)}) as memory:
        memory.add_many([f"note {n}" for n in range(10)], user_id="a")
        for day in range(3):
            if day < 2:
                with pytest.raises(Overloaded, match="'reembed'"):
                    memory.reembed(Priced("second"), batch=2)
                assert memory.stats().model_id == "first"
                clock.advance(timedelta(days=1))
            else:
                assert memory.reembed(Priced("second"), batch=2) == 10
        assert memory.stats().model_id == "second"
        rows = {(row.job, row.model): row.tokens for row in memory.costs(by=("job", "model"))}
        assert rows["reembed", "second"] == 10


def test_a_limit_stops_searches_too_and_words_still_answer(tmp_path: Path, clock: FixedClock) -> None:
    options: dict[str, Any] = {"owner_limit": Budget(money=2.0)}
    with priced(clock, tmp_path / "store", **options) as memory:
        memory.add(["one", "two"], user_id="a")
        memory.add("of b", user_id="b")
        with pytest.raises(Overloaded, match="limit of the day is spent"):
            memory.add("three", user_id="a")
        with pytest.raises(Overloaded, match="limit of the day is spent"):
            memory.search("one", user_id="a", mode="dense")
        result = memory.search("one", user_id="a")
        assert (result.degraded, [hit.item.text for hit in result]) == (("dense",), ["one"])
        assert len(memory.search("of", user_id="b")) == 1
    with priced(clock, tmp_path / "store", **options) as memory:
        with pytest.raises(Overloaded):
            memory.search("one", user_id="a", mode="dense")
        clock.advance(timedelta(hours=12))
        assert len(memory.search("one", user_id="a")) == 2


def test_a_budget_of_seconds(clock: FixedClock) -> None:
    with priced(clock, owner_limit=Budget(device_seconds=1e-9)) as memory:
        memory.add("one", user_id="a")
        with pytest.raises(Overloaded):
            memory.search("one", user_id="a", mode="dense")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"job_budgets": {"search": Budget()}}, "'search' is no job in the background"),
        ({"cost_days": -1}, "cost_days must be"),
        ({"prices": {"m": {"per_call": 1.0}}}, "per_call"),
        ({"owner_budget": {"money": -1}}, "money must be a number from 0"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        warpmem.open(None, embedder="hashing", **options)


def test_prices_and_budgets_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "warpmem.toml"
    file.write_text(
        'embedder = "hashing"\n[prices."a model"]\nper_million_tokens = 0.02\n'
        "[owner_budget]\nmoney = 1.5\n[job_budgets.import]\ndevice_seconds = 60\n"
    )
    found = warpmem.load_config(file)
    assert found.prices == {"a model": Price(per_million_tokens=0.02)}
    assert (found.owner_budget, found.owner_limit) == (Budget(money=1.5), Budget())
    assert found.job_budgets == {"import": Budget(device_seconds=60)}
    warpmem.open(None, config=found).close()
