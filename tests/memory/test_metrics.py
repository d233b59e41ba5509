"""metrics() and stats() as an operator reads them."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from queued import START
from warpmem import Memory, Scope
from warpmem.cli import main
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, Overloaded
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?(?:[0-9.e+-]+|Inf|NaN))$')
CANARY = "zyxwvut"


def read(text: str) -> dict[str, float]:
    """Samples by name and labels; every line is checked."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            assert re.match(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))$", line), line
            continue
        matched = LINE.match(line)
        assert matched, line
        name = matched[1] + (f"{{{matched[2]}}}" if matched[2] else "")
        assert name not in found, name
        found[name] = float(matched[3])
    return found


class Refusing:
    model_id = "refusing"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        raise Overloaded("too much", 1.0)


def used() -> Memory:
    memory = warpmem.open(None, embedder="hashing")
    memory.add([f"{CANARY} {n}" for n in range(5)], user_id=CANARY, metadata={CANARY: CANARY}, kind=CANARY)
    memory.add(f"{CANARY} 1", user_id=CANARY, metadata={CANARY: CANARY}, kind=CANARY)
    for _ in range(3):
        memory.search(f"{CANARY} 1", user_id=CANARY)
    wanted = {f"metadata.{CANARY}": CANARY}
    memory.search_many([CANARY, CANARY], scopes=[Scope(user_id=CANARY)] * 2, filters=wanted)
    memory.search(CANARY, user_id=CANARY, rerank=Refusing())
    with pytest.raises(InputError):
        memory.search(CANARY, user_id=CANARY, k=0)
    with pytest.raises(InputError):
        memory.add("", user_id=CANARY)
    return memory


def test_what_was_done_is_counted() -> None:
    with used() as memory:
        found = read(memory.metrics())
    assert found["warpmem_searches_total"] == 6
    for stage, calls in (("prepare", 5), ("scan", 5), ("fetch", 5), ("rerank", 1), ("all", 5)):
        assert found[f'warpmem_search_seconds_count{{stage="{stage}"}}'] == calls
        assert found[f'warpmem_search_seconds_bucket{{stage="{stage}",le="+Inf"}}'] == calls
    parts = sum(found[f'warpmem_search_seconds_sum{{stage="{s}"}}'] for s in ("prepare", "scan", "fetch"))
    assert 0 < parts <= found['warpmem_search_seconds_sum{stage="all"}']
    assert found['warpmem_degraded_total{part="rerank"}'] == 1
    assert found['warpmem_errors_total{call="search",error="InputError"}'] == 1
    assert found['warpmem_errors_total{call="add",error="InvalidText"}'] == 1
    assert found['warpmem_added_total{action="added"}'] == 5
    assert found['warpmem_added_total{action="touched"}'] == 1
    assert found["warpmem_add_seconds_count"] == 2
    assert found["warpmem_commits_total"] == 2
    assert found["warpmem_items"] == 5
    assert found['warpmem_lane_served_total{model="embedder",lane="interactive"}'] >= 2
    assert found['warpmem_lane_waiting{model="embedder",lane="background"}'] == 0
    assert found['warpmem_batches_total{model="embedder"}'] >= 2
    assert found['warpmem_busy_seconds_total{model="embedder"}'] > 0
    assert found['warpmem_cache_hits_total{cache="vectors"}'] >= 2
    assert found['warpmem_cache_misses_total{cache="items"}'] == 5


def test_documents_are_counted_too() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add_document("one\n\ntwo", name="a", user_id="a")
        memory.add_document("one\n\nthree", name="a", user_id="a")
        with pytest.raises(InputError):
            memory.add_document("", name="a", user_id="a")
        found = read(memory.metrics())
    assert found["warpmem_add_seconds_count"] == 2
    assert found['warpmem_added_total{action="added"}'] == 1
    assert found['warpmem_added_total{action="superseded"}'] == 1


def test_what_waits_to_be_done_is_a_gauge() -> None:
    clock = FixedClock(START)
    options: dict[str, Any] = {"language_model": ScriptedLanguageModel([]), "background_work": False}
    with warpmem.open(None, embedder="hashing", clock=clock, **options) as memory:

        def pending(name: str) -> list[float]:
            found = read(memory.metrics())
            return [found[f'warpmem_pending_{name}{{kind="{kind}"}}'] for kind in ("embed", "extract")]

        assert [pending(name) for name in ("waiting", "refused", "oldest_seconds")] == [[0, 0]] * 3
        memory.add(["one", "two"], user_id="a", embed="later")
        clock.advance(timedelta(seconds=90))
        memory.add({"role": "user", "content": "three"}, user_id="a", infer="llm")
        assert [pending(name) for name in ("waiting", "oldest_seconds")] == [[2, 1], [90, 0]]
        memory.embed_pending()
        assert pending("waiting") == [0, 1]


def test_no_label_names_anybody_or_anything_of_theirs() -> None:
    with used() as memory:
        text = memory.metrics()
        assert CANARY not in text
        assert memory.search(CANARY, user_id=CANARY)[0].item.text.startswith(CANARY)


def test_prometheus_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with used() as memory:
        text = memory.metrics()
    families = list(parser.text_string_to_metric_families(text))
    kinds = {family.name: family.type for family in families}
    assert kinds["warpmem_search_seconds"] == "histogram"
    assert kinds["warpmem_searches"] == "counter"
    assert kinds["warpmem_items"] == "gauge"
    assert len(kinds) == len(families), "a family stands in one place"
    samples = {
        sample.name + str(sample.labels): sample.value for family in families for sample in family.samples
    }
    assert len(samples) == len(read(text))


def test_refused_and_dropped_are_told_by_lane() -> None:
    class Held:
        model_id, dimension = "held", 8

        def __init__(self) -> None:
            self.gate, self.inside = threading.Event(), threading.Event()

        def embed(self, texts: Sequence[str], *, role: Any) -> NDArray[np.float32]:
            self.inside.set()
            assert self.gate.wait(10)
            return HashingEmbedder(8).embed(texts, role=role)

    model = Held()
    with warpmem.open(None, embedder=model) as memory, ThreadPoolExecutor(1) as pool:
        first = pool.submit(memory.search, "one", user_id="a")
        assert model.inside.wait(5)
        with pytest.raises(warpmem.errors.DeadlineExceeded):
            memory.search("two", user_id="a", deadline=0.05, mode="dense")
        found = read(memory.metrics())
        assert found['warpmem_lane_dropped_total{model="embedder",lane="interactive"}'] == 1
        assert found['warpmem_lane_dropped_total{model="embedder",lane="ingest"}'] == 0
        assert found['warpmem_errors_total{call="search",error="DeadlineExceeded"}'] == 1
        model.gate.set()
        first.result()


def test_what_lies_on_a_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        assert memory.stats().device == {}
        assert "warpmem_device" not in memory.metrics()
        told = {"device": 0, "failure": None, "pages": 7, "hits": 3, "launches": 2}
        monkeypatch.setattr(memory._current.now.index, "tiers", lambda: told)
        assert memory.stats().device == told
        found = read(memory.metrics())
        assert found["warpmem_device_pages"] == 7
        assert found["warpmem_device_hits_total"] == 3
        assert not any("failure" in name or "device_device" in name for name in found)


def test_shares_of_hits() -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        assert memory.stats().item_cache["hit_rate"] == memory.stats().models["cache"]["hit_rate"] == 0.0
        memory.add("a text", user_id="a")
        for _ in range(4):
            memory.search("a text", user_id="a")
        assert memory.stats().item_cache["hit_rate"] == 0.75
        assert memory.stats().models["cache"]["hit_rate"] == pytest.approx(3 / 5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.add("a text", user_id="a")
    capsys.readouterr()
    assert main(["stats", "--store", str(tmp_path / "store"), "--prometheus"]) == 0
    found = read(capsys.readouterr().out)
    assert (found["warpmem_items"], found["warpmem_read_only"]) == (1, 1)
    assert found['warpmem_storage_bytes{part="tables"}'] >= 0
