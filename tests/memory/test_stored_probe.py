"""A model that is exchanged under the same name between two runs of a program is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
import warpmem
from local_servers import Handler, Server, serving, vectors
from reembedding import Hooked
from warpmem import Memory
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import EmbeddingError, ModelMismatch
from warpmem.records import probe_key

MISMATCH = "other weights than those that made the store's vectors"


def other_weights(handler: Handler, payload: Any) -> None:
    handler.reply(json.dumps(np.roll(vectors(payload["inputs"]), 7, axis=1).tolist()).encode())


def other_precision(handler: Handler, payload: Any) -> None:
    rows = vectors(payload["inputs"]).astype(np.float16).astype(np.float32)
    handler.reply(json.dumps((rows * 3).tolist()).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(local_servers.tei) as running:
        yield running


def embedder(server: Server, model_id: str = "m", **options: Any) -> TEIEmbedder:
    return TEIEmbedder(server.url, model_id, **{"dimension": 48, "check_seconds": 1e9, **options})


def opened(path: Path, server: Server, model_id: str = "m", **options: Any) -> Memory:
    return warpmem.open(path, embedder=embedder(server, model_id), durability="os", **options)


@pytest.fixture
def store(tmp_path: Path, server: Server) -> Path:
    with opened(tmp_path / "store", server) as memory:
        memory.add("kept", user_id="ann")
    return tmp_path / "store"


@pytest.mark.parametrize("dimension", [48, None], ids=["given", "asked for"])
def test_other_weights_in_another_run(store: Path, server: Server, dimension: int | None) -> None:
    server.answer = other_weights
    with warpmem.open(store, embedder=embedder(server, dimension=dimension), durability="os") as memory:
        before = memory.stats().sequence
        item = memory.list(user_id="ann").items[0]
        for _ in range(2):
            with pytest.raises(ModelMismatch, match=MISMATCH):
                memory.add("lost", user_id="ann")
            with pytest.raises(ModelMismatch, match=MISMATCH):
                memory.add("lost", user_id="ann", embed="auto")
            with pytest.raises(ModelMismatch, match=MISMATCH):
                memory.update(item.id, text="lost")
            with pytest.raises(ModelMismatch, match=MISMATCH):
                memory.search("kept", user_id="ann")
        assert memory.stats().sequence == before and memory.get(item.id).text == "kept"
        server.answer = local_servers.tei
        assert memory.search("kept", user_id="ann")[0].item.text == "kept"
        assert memory.add("stored", user_id="ann").action == "added"


def test_the_same_weights_in_another_precision(store: Path, server: Server) -> None:
    server.answer = other_precision
    with opened(store, server) as memory:
        assert memory.search("kept", user_id="ann")[0].item.text == "kept"


def test_the_first_vectors_of_a_store_leave_it_and_a_search_does_not(tmp_path: Path, server: Server) -> None:
    with opened(tmp_path / "store", server) as memory:
        memory.search("nothing", user_id="ann")
        memory.add("given", user_id="ann", vector=np.ones(48), key="k")
        key = probe_key("vectors")
        assert memory._log.kept(key) is not None, (
            "an embedder that was asked had made the store's first vectors"
        )
    with opened(tmp_path / "other", server) as memory:
        memory.add("given", user_id="ann", vector=np.ones(48))
        memory.search("nothing", user_id="ann")
        assert memory._log.kept(key) is None
        memory.add("made", user_id="ann")
        kept = memory._log.kept(key)
        assert kept is not None and len(kept) == 4 * 48
        memory.add("more", user_id="ann")
        assert memory._log.kept(key) == kept


@pytest.mark.parametrize("how", ["read_only", "follow"])
def test_who_only_reads_is_told_too(store: Path, server: Server, how: str) -> None:
    server.answer = other_weights
    with (
        opened(store, server, **{how: True}) as memory,
        pytest.raises(ModelMismatch, match=MISMATCH),
    ):
        memory.search("kept", user_id="ann")


def test_an_erasure_leaves_it(store: Path, server: Server) -> None:
    with opened(store, server) as memory:
        memory.erase(user_id="ann")
    assert warpmem.verify(store).ok
    server.answer = other_weights
    with opened(store, server) as memory, pytest.raises(ModelMismatch, match=MISMATCH):
        memory.add("lost", user_id="bob")


def test_a_change_of_the_model_replaces_it(store: Path, server: Server, tmp_path: Path) -> None:
    server.answer = other_weights
    with opened(store, server) as memory:
        assert memory.reembed(embedder(server, "n")) == 1
        assert memory._log.kept(probe_key("vectors")) is None
        assert memory.search("kept", user_id="ann")[0].item.text == "kept"
    with opened(store, server, "n") as memory:
        assert memory.search("kept", user_id="ann")[0].item.text == "kept"
        server.answer = local_servers.tei
    with opened(store, server, "n") as memory:
        with pytest.raises(ModelMismatch, match=MISMATCH):
            memory.add("lost", user_id="ann")
        memory.reembed(Hooked(16))
        assert memory._log.kept(probe_key("vectors_b")) is None
    assert warpmem.verify(store).ok


def test_a_change_of_the_model_that_goes_on_in_another_run(store: Path, server: Server) -> None:
    with opened(store, server) as memory:
        memory.add_many([f"text {n}" for n in range(10)], user_id="ann")

        def stop(done: int, total: int) -> None:
            if done:
                raise EmbeddingError("out of order")

        with pytest.raises(EmbeddingError):
            memory.reembed(embedder(server, "n"), batch=4, progress=stop)
    with opened(store, server) as memory:
        memory.get_many([])
        server.answer = other_weights
        with pytest.raises(ModelMismatch, match=MISMATCH):
            memory.reembed(embedder(server, "n"))
        server.answer = local_servers.tei
        assert memory.reembed(embedder(server, "n")) == 11


def test_each_store_judges_by_its_own_vectors(tmp_path: Path, server: Server) -> None:
    """One embedder for two stores, whose vectors are of different weights under one name."""
    for name, answer in (("a", local_servers.tei), ("b", other_weights)):
        server.answer = answer
        with opened(tmp_path / name, server) as memory:
            memory.add("kept", user_id="ann")
    shared = embedder(server)
    with (
        warpmem.open(tmp_path / "a", embedder=shared) as first,
        warpmem.open(tmp_path / "b", embedder=shared) as second,
    ):
        for _ in range(2):
            with pytest.raises(ModelMismatch, match=MISMATCH):
                first.search("kept", user_id="ann")
            assert second.search("kept", user_id="ann")[0].item.text == "kept"


def test_a_fallback_with_other_weights_in_another_run(store: Path, server: Server) -> None:
    with serving(other_weights) as second:
        server.answer = lambda handler, payload: handler.reply(b"{}", 500)
        both = embedder(server, fallback=[embedder(second)])
        with warpmem.open(store, embedder=both) as memory, pytest.raises(ModelMismatch, match=MISMATCH):
            memory.add("lost", user_id="ann")


def test_what_waits_is_not_embedded_by_other_weights(store: Path, server: Server) -> None:
    with opened(store, server, background_work=False) as memory:
        memory.add("waits", user_id="ann", embed="later")
        server.answer = other_weights
    with opened(store, server, background_work=False) as memory:
        with pytest.raises(ModelMismatch, match=MISMATCH):
            memory.embed_pending()
        assert memory.stats().pending["embed"].waiting == 1
        server.answer = local_servers.tei
        assert memory.embed_pending() == 1


def test_copies_know_it(store: Path, server: Server, tmp_path: Path) -> None:
    backup = warpmem.backup(store, tmp_path / "backups")
    warpmem.restore(backup.path, tmp_path / "restored")
    warpmem.repair(store, tmp_path / "repaired")
    server.answer = other_weights
    for name in ("restored", "repaired"):
        with opened(tmp_path / name, server) as memory, pytest.raises(ModelMismatch, match=MISMATCH):
            memory.add("lost", user_id="ann")
