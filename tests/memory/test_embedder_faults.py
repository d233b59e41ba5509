"""A store behind a server that fails in every way known: typed errors, nothing by halves, others served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
import warpmem
from local_servers import Handler, Server, serving
from unit.test_http import CHUNKED, LENGTH, SECRET, SOUND, make, raw, rows, spoil, status
from warpmem import Memory
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
    Overloaded,
)


def slow(handler: Handler, payload: Any) -> None:
    time.sleep(0.6)
    handler.close_connection = True


FAULTS: dict[str, tuple[local_servers.Answer, type[Exception]]] = {
    "breaks off": (raw(b""), ModelUnavailable),
    "slow": (slow, DeadlineExceeded),
    "an error of its own": (status(500), ModelUnavailable),
    "another dimension": (rows(lambda v: v[:, :32]), EmbeddingError),
    "wrong JSON": (lambda h, p: h.reply(b'{"x": 1}'), ModelError),
    "no JSON": (lambda h, p: h.reply(b"<html>"), ModelError),
    "half a body": (raw(LENGTH + b'{"da'), ModelUnavailable),
    "half a chunked body": (raw(CHUNKED + b'ff\r\n{"da'), ModelUnavailable),
    "429 with Retry-After": (status(429, Retry_After="0"), Overloaded),
    "503 with Retry-After": (status(503, Retry_After="0"), Overloaded),
    "NaN in a vector": (rows(lambda v: spoil(v, np.nan)), ModelError),
    "infinity in a vector": (rows(lambda v: spoil(v, np.inf)), ModelError),
    "a vector of zeros": (rows(lambda v: v * 0), EmbeddingError),
    "a truncated batch": (rows(lambda v: v[:-1]), EmbeddingError),
}


OF_THE_ENDPOINT = (DeadlineExceeded, Overloaded)
"""Errors that say that it has too much to do: whoever is asked for in the same batch is told so as well."""


@pytest.fixture(params=SOUND)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[Server]:
    with serving(SOUND[kind]) as running:
        yield running


def opened(path: Path, kind: str, server: Server, **options: Any) -> Memory:
    """No text is remembered, so that every one of them reaches the server."""
    embedder = make(kind, server.url, timeout=0.3, **options)
    return warpmem.open(path, embedder=embedder, embedding_cache_bytes=0, durability="os")


def only_for_secrets(fault: local_servers.Answer, sound: local_servers.Answer) -> local_servers.Answer:
    def answer(handler: Handler, payload: Any) -> None:
        (fault if SECRET in str(payload) else sound)(handler, payload)

    return answer


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_typed_stores_nothing_and_touches_no_other_request(
    kind: str, server: Server, fault: str, tmp_path: Path
) -> None:
    answer, error = FAULTS[fault]
    with opened(tmp_path / "store", kind, server) as memory:
        kept = memory.add("kept", user_id="ann")
        assert isinstance(kept, warpmem.AddResult)
        before = memory.stats()
        server.answer = only_for_secrets(answer, SOUND[kind])
        failed: list[BaseException] = []
        stop = threading.Event()
        served = 0

        def others() -> None:
            nonlocal served
            try:
                while not stop.is_set():
                    try:
                        assert memory.search("kept", user_id="ann", k=1)[0].item.text == "kept"
                        served += 1
                    except OF_THE_ENDPOINT as told:
                        if not isinstance(told, error):
                            raise
            except BaseException as wrong:  # noqa: BLE001  raised by the test
                failed.append(wrong)

        thread = threading.Thread(target=others)
        thread.start()
        try:
            with pytest.raises(error) as caught:
                memory.add([f"{SECRET} {n}" for n in range(3)], user_id="bob")
            assert SECRET not in "".join(map(str, (caught.value, caught.value.__cause__ or "")))
            with pytest.raises(error):
                memory.update(kept.id, text=f"{SECRET} anew")
            with pytest.raises(error):
                memory.search(f"{SECRET} ?", user_id="ann", mode="dense")
        finally:
            stop.set()
            thread.join()
        assert failed == [] and served
        after = memory.stats()
        assert (after.sequence, after.items, after.owners) == (before.sequence, 1, before.owners)
        assert after.pending["embed"].waiting == 0 and memory.get(kept.id).version == 1
        results = memory.add([f"{SECRET} {n}" for n in range(3)], user_id="bob", embed="auto")
        assert isinstance(results, tuple) and {result.action for result in results} == {"queued"}
        server.answer = SOUND[kind]
        assert memory._pending.wait(20) and memory.stats().pending["embed"].waiting == 0
        assert len(memory.search(SECRET, user_id="bob")) == 3
    assert warpmem.verify(tmp_path / "store").ok


def test_a_model_swapped_under_the_same_name(kind: str, server: Server, tmp_path: Path) -> None:
    with opened(tmp_path / "store", kind, server, check_seconds=0) as memory:
        memory.add("kept", user_id="ann")
        before = memory.stats().sequence
        server.answer = rows(lambda v: np.roll(v, 7, axis=1))
        for when in (None, "auto"):
            with pytest.raises(ModelMismatch):
                memory.add("lost", user_id="ann", embed=when)  # type: ignore[arg-type]
        assert memory.stats().sequence == before
        server.answer = SOUND[kind]
        assert memory.search("kept", user_id="ann")[0].item.text == "kept"


@pytest.mark.parametrize("how", ["down", "without TLS"])
def test_a_store_whose_server_cannot_be_reached(
    kind: str, server: Server, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store", kind, server) as memory:
        kept = memory.add("kept", user_id="ann")
        assert isinstance(kept, warpmem.AddResult)
    url = server.url.replace("http:", "https:")
    if how == "down":
        with serving(SOUND[kind]) as gone:
            url = gone.url
        monkeypatch.setattr(
            local_servers, "started", {*local_servers.started, ("127.0.0.1", gone.server_port)}
        )
    with warpmem.open(tmp_path / "store", embedder=make(kind, url), background_work=False) as memory:
        for call in (lambda: memory.add("lost", user_id="ann"), lambda: memory.search("kept", user_id="ann")):
            with pytest.raises(ModelUnavailable):
                call()
        assert memory.stats().items == 1 and memory.get(kept.id).text == "kept"
        assert memory.search("kept", user_id="ann", mode="lexical")[0].item.id == kept.id
        assert memory.add("waits", user_id="ann", embed="auto").action == "queued"  # type: ignore[union-attr]
    with opened(tmp_path / "store", kind, server) as memory:
        assert memory._pending.wait(20)
        assert {hit.item.text for hit in memory.search("waits", user_id="ann")} == {"kept", "waits"}
