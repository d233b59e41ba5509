"""Embedders behind servers that are overloaded, down, slow or replaced: against real ones on this machine."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
import warpmem
from local_servers import Handler, serving, vectors
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.named import make_embedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    InputError,
    ModelMismatch,
    ModelUnavailable,
    Overloaded,
)


def tei(url: str, **options: Any) -> TEIEmbedder:
    return TEIEmbedder(url, "hashing-48-v1", **{"dimension": 48, "check_seconds": 1e9, **options})


class Crowded:
    """Answers so many requests at a time, each in 10 ms, and says 429 to all others."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.lock = threading.Lock()
        self.inside = self.answered = self.refused = 0

    def __call__(self, handler: Handler, payload: Any) -> None:
        with self.lock:
            admitted = self.inside < self.most
            self.inside += admitted
            self.answered += admitted
            self.refused += not admitted
        if not admitted:
            handler.reply(b"{}", 429, Retry_After="0.02")
            return
        time.sleep(0.01)
        with self.lock:
            self.inside -= 1
        local_servers.tei(handler, payload)


def failing(handler: Handler, payload: Any) -> None:
    handler.reply(b"{}", 500)


def silent(handler: Handler, payload: Any) -> None:
    time.sleep(0.6)
    handler.close_connection = True


def test_as_many_requests_at_a_time_as_the_server_can_do() -> None:
    crowded = Crowded(3)
    with serving(crowded) as server:
        scheduled = ScheduledEmbedder(tei(server.url, parallel=32))
        lost = 0

        def work(number: int) -> int:
            refused = 0
            for n in range(12):
                try:
                    scheduled.embed([f"text {number} {n}"], "query", lane="interactive", owner=number)
                except Overloaded:
                    refused += 1
            return refused

        with ThreadPoolExecutor(24) as pool:
            lost = sum(pool.map(work, range(24)))
    assert crowded.answered > 20
    assert crowded.refused < 0.5 * crowded.answered, (crowded.refused, crowded.answered)
    assert lost < 0.3 * 24 * 12, lost
    assert 1 <= scheduled._embedder.parallel <= 6  # type: ignore[attr-defined]


def test_a_hiccup_is_not_noticed_and_a_failure_is_not_multiplied() -> None:
    with serving(local_servers.tei) as server:
        embedder = tei(server.url)
        for n in range(20):
            embedder.embed([f"text {n}"], role="query")

        def once(handler: Handler, payload: Any) -> None:
            server.answer = local_servers.tei
            failing(handler, payload)

        server.answer = once
        assert embedder.embed(["a"], role="query").shape == (1, 48)
        before = len(server.requests)
        server.answer = failing
        for _ in range(4):
            with pytest.raises(ModelUnavailable):
                embedder.embed(["a"], role="query")
        assert len(server.requests) - before <= 5


def test_a_server_that_failed_is_left_alone_and_found_again() -> None:
    with serving(local_servers.tei) as server, warpmem.open(None, embedder=tei(server.url)) as memory:
        memory.add("kept", user_id="u")
        server.answer = failing
        for n in range(5):
            with pytest.raises(ModelUnavailable):
                memory.add(f"lost {n}", user_id="u")
        asked = len(server.requests)
        server.answer = local_servers.tei
        with pytest.raises(Overloaded, match="failed 5 times in a row") as caught:
            memory.search("sought", user_id="u", mode="dense")
        assert 0 < caught.value.retry_after <= 1.0
        with pytest.raises(Overloaded):
            memory.add("lost 5", user_id="u")
        assert len(server.requests) == asked
        time.sleep(caught.value.retry_after)
        assert memory.search("sought", user_id="u", mode="dense")[0].item.text == "kept"
        assert memory.count(user_id="u") == 1


def test_how_long_a_server_wants_to_be_left_alone_holds_for_all_who_ask_it() -> None:
    def full(handler: Handler, payload: Any) -> None:
        handler.reply(b"{}", 503, Retry_After="30")

    with serving(full) as server:
        embedders = [tei(server.url) for _ in range(40)]
        for embedder in embedders:
            with pytest.raises(Overloaded) as caught:
                embedder.embed(["a"], role="query")
        assert 29 < caught.value.retry_after <= 30
        assert len(server.requests) == 1


def test_a_search_is_not_longer_than_its_deadline_when_the_server_says_nothing() -> None:
    with serving(silent) as server, warpmem.open(None, embedder=tei(server.url)) as memory:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            memory.search("sought", user_id="u", deadline=0.15, mode="dense")
        assert 0.1 < time.monotonic() - began < 0.5


@pytest.mark.parametrize("fault", ["down", "failing", "overloaded", "silent"])
def test_another_answers_in_its_place(fault: str) -> None:
    def full(handler: Handler, payload: Any) -> None:
        handler.reply(b"{}", 503, Retry_After="30")

    faults = {"failing": failing, "overloaded": full, "silent": silent, "down": failing}
    with serving(local_servers.tei) as second:
        with serving(faults[fault]) as first:
            url = first.url
            embedder = tei(url, timeout=0.3, fallback=[tei(second.url), HashingEmbedder(48)])
            if fault != "down":
                found = embedder.embed(["a", "b"], role="document")
        if fault == "down":
            local_servers.started.add(("127.0.0.1", int(url.rsplit(":", 1)[1])))
            found = embedder.embed(["a", "b"], role="document")
        assert found.tobytes() == vectors(["a", "b"]).tobytes()
        assert len(second.requests) == 1
        second.answer = failing
        with serving(faults[fault]) as first:
            embedder = tei(first.url, timeout=0.3, fallback=[tei(second.url), HashingEmbedder(48)])
            assert embedder.embed(["c"], role="document").tobytes() == vectors(["c"]).tobytes()


def test_when_all_fail_the_first_ones_error_is_told() -> None:
    with serving(failing) as first, serving(silent) as second:
        embedder = tei(first.url, fallback=[tei(second.url, timeout=0.1)])
        with pytest.raises(ModelUnavailable, match=str(first.server_port)):
            embedder.embed(["a"], role="query")
        began = time.monotonic()
        with pytest.raises(ModelUnavailable):
            tei(first.url, fallback=[tei(second.url)]).embed(["a"], role="query", timeout=0.2)
        assert time.monotonic() - began < 0.5, "the time that is left is that of all of them together"


def test_what_the_first_one_refuses_no_other_is_asked() -> None:
    with serving(lambda h, p: h.reply(b"{}", 413)) as first, serving(local_servers.tei) as second:
        with pytest.raises(warpmem.errors.ModelError, match="413"):
            tei(first.url, fallback=[tei(second.url)]).embed(["a"], role="query")
        assert second.requests == []


@pytest.mark.parametrize("status", [401, 404, 200])
def test_a_fallback_that_refuses_hides_no_other(status: int) -> None:
    with serving(failing) as first, serving(lambda h, p: h.reply(b"{}", status)) as second:
        embedder = tei(first.url, fallback=[tei(second.url), HashingEmbedder(48)])
        assert embedder.embed(["a"], role="query").tobytes() == vectors(["a"]).tobytes()
        assert len(second.requests) == 1
        with pytest.raises(ModelUnavailable, match=str(first.server_port)):
            tei(first.url, fallback=[tei(second.url)]).embed(["a"], role="query")


def test_another_model_is_no_fallback() -> None:
    with serving(local_servers.tei) as server:
        for other in (HashingEmbedder(64), TEIEmbedder(server.url, "other", dimension=48)):
            with pytest.raises(ModelMismatch, match="would not go together"):
                tei(server.url, fallback=[other])
        for wrong in ("tei", [7], 3, [HashingEmbedder]):
            with pytest.raises(InputError, match="list of embedders"):
                tei(server.url, fallback=wrong)


def test_a_fallback_with_other_weights_under_the_same_name() -> None:
    def rolled(handler: Handler, payload: Any) -> None:
        body = np.roll(vectors(payload["inputs"]), 7, axis=1).tolist()
        handler.reply(json.dumps(body).encode())

    with serving(local_servers.tei) as first, serving(rolled) as second:
        embedder = tei(first.url, fallback=[tei(second.url)])
        embedder.embed(["a"], role="query")
        first.answer = failing
        with pytest.raises(ModelMismatch, match="other weights"):
            embedder.embed(["a"], role="query")
        asked = tei(second.url, dimension=None)
        first.answer = local_servers.tei
        with pytest.raises(ModelMismatch, match="other weights"):
            tei(first.url, dimension=None, fallback=[asked])


def test_a_fallback_by_configuration_file(tmp_path: Path) -> None:
    with serving(failing) as first, serving(local_servers.openai) as second:
        file = tmp_path / "warpmem.toml"
        file.write_text(
            f'embedder = "openai"\n[embedder_options]\nurl = "{first.url}/v1"\nmodel = "m"\ndimension = 48\n'
            f'parallel = 3\n[[embedder_options.fallback]]\nurl = "{second.url}/v1"\n'
        )
        with warpmem.open(tmp_path / "store", config=file) as memory:
            memory.add("Nadia moved to Porto.", user_id="nadia")
            assert memory.stats().model_id == "openai:m"
        assert [payload["model"] for _, payload, _ in second.requests] == ["m"]
    options = {"url": "http://127.0.0.1:9", "model_id": "hashing-48-v1", "dimension": 48}
    made = make_embedder("tei", {**options, "fallback": [{"embedder": "hashing", "dimension": 48}]})
    assert isinstance(made._fallback[0].embedder, HashingEmbedder)  # type: ignore[attr-defined]
    for table, words in (
        ({"embedder": "gpt"}, "'gpt', which there is not"),
        ({"embedder": "hashing", "size": 3}, "'hashing': got an unexpected"),
        ("hashing", "list of embedders"),
    ):
        with pytest.raises(InputError, match=words):
            make_embedder("tei", {**options, "fallback": [table]})


def test_an_erasure_reaches_what_a_fallback_remembers() -> None:
    forgotten: list[int] = []

    class Remembering(HashingEmbedder):
        def forget(self) -> None:
            forgotten.append(1)

    with serving(local_servers.tei) as server:
        tei(server.url, fallback=[Remembering(48)]).forget()
        tei(server.url).forget()
    assert forgotten == [1]


@pytest.mark.parametrize("parallel", [0, True, 2.5])
def test_parallel_is_a_count(parallel: Any) -> None:
    with pytest.raises(InputError, match="parallel must be an integer from 1 to 1024"):
        tei("http://127.0.0.1:9", parallel=parallel)
