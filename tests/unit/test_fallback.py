"""Embedders that are asked in a server's place: how many calls each gets at a time, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import local_servers
from local_servers import Handler, serving, vectors
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import ModelUnavailable


class Fake:
    """The servers' model here, which says nothing of how many calls it serves at a time."""

    model_id = "hashing-48-v1"
    dimension = 48

    def embed(self, texts: Sequence[str], *, role: Any) -> Any:
        return vectors(list(texts))


class Counted(Fake):
    """Holds each call until so many are inside, for a moment at most, and knows how many there were."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._changed = threading.Condition()
        self.inside = self.most = 0

    def embed(self, texts: Sequence[str], *, role: Any) -> Any:
        with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self._wanted, 0.05)
            self.inside -= 1
        return super().embed(texts, role=role)


def failing(handler: Handler, payload: Any) -> None:
    handler.reply(b"{}", 500)


def tei(url: str, **options: Any) -> TEIEmbedder:
    return TEIEmbedder(url, "hashing-48-v1", dimension=48, check_seconds=1e9, **options)


@pytest.mark.parametrize(("parallel", "most"), [(None, 1), (3, 3)])
def test_a_fallback_serves_as_many_calls_at_a_time_as_it_says(parallel: int | None, most: int) -> None:
    """It got as many as the server would have, or were there callers."""
    local: Any = Counted(most + 1)
    if parallel is not None:
        local.parallel = parallel
    with serving(failing) as server, ThreadPoolExecutor(8) as pool:
        embedder = tei(server.url, parallel=8, fallback=[local])
        found = list(pool.map(lambda n: embedder.embed([f"text {n}"], role="query"), range(16)))
    assert local.most == most
    assert [rows.tobytes() for rows in found] == [vectors([f"text {n}"]).tobytes() for n in range(16)]


def test_while_the_server_is_not_asked_its_limit_is_not_that_of_the_fallback() -> None:
    local: Any = Counted(6)
    local.parallel = 6
    with serving(failing) as server:
        embedder = tei(server.url, parallel=1, fallback=[local])
        assert embedder.parallel == 1
        for _ in range(5):
            embedder.embed(["a"], role="query")
        assert embedder.parallel == 6
        scheduled = ScheduledEmbedder(embedder)
        with ThreadPoolExecutor(12) as pool:
            asked = [
                pool.submit(scheduled.embed, [str(n)], "query", lane="interactive", owner=n)
                for n in range(48)
            ]
        assert all(len(call.result()) == 1 for call in asked)
        assert 1 < local.most <= 6
        server.answer = local_servers.tei
        time.sleep(1.05)
        embedder.embed(["a"], role="query")
        assert embedder.parallel == 1


def test_the_limit_is_that_of_the_first_fallback_that_is_asked() -> None:
    with serving(failing) as first, serving(failing) as second:
        chain = [tei(second.url, parallel=2), Fake()]
        embedder = tei(first.url, parallel=7, fallback=chain)
        assert embedder.parallel == 4, "as it begins"
        for _ in range(5):
            chain[0]._guard._failures = 0  # type: ignore[union-attr]
            embedder.embed(["a"], role="query")
        chain[0]._guard._failures = 0  # type: ignore[union-attr]
        assert embedder.parallel == 2
        for _ in range(5):
            embedder.embed(["a"], role="query")
        assert embedder.parallel == 1
        alone = tei(first.url, parallel=7, fallback=[chain[0]])
        assert alone.parallel == 4, "nobody is asked"


def test_who_waits_for_a_fallback_waits_no_longer_than_the_deadline() -> None:
    gate, begun = threading.Event(), threading.Event()

    class Held(Fake):
        def embed(self, texts: Sequence[str], *, role: Any) -> Any:
            begun.set()
            assert gate.wait(10)
            return super().embed(texts, role=role)

    with serving(failing) as server, ThreadPoolExecutor(1) as pool:
        embedder = tei(server.url, fallback=[Held()])
        first = pool.submit(embedder.embed, ["a"], role="query")
        assert begun.wait(10)
        began = time.monotonic()
        with pytest.raises(ModelUnavailable):
            embedder.embed(["b"], role="query", timeout=0.2)
        assert 0.1 < time.monotonic() - began < 2
        gate.set()
        assert first.result(10).tobytes() == vectors(["a"]).tobytes()
