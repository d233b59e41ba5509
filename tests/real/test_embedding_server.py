"""all-MiniLM-L6-v2 behind infinity, a server of OpenAI's shape, over a real socket."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import infinity_server
import numpy as np
import programs
import pytest

import warpmem
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.errors import ModelError, ModelUnavailable, WarpmemError

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="infinity-emb needs a NumPy without Python 3.13"),
]


@pytest.fixture(scope="module")
def infinity(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    """all-MiniLM-L6-v2 as the model "minilm", for those who have the key."""
    key = {"INFINITY_API_KEY": "a-key"}
    with infinity_server.serving(root, tmp_path_factory.mktemp("infinity"), key) as program:
        yield program


def embedder_of(program: programs.Program, tmp_path: Path, **options: Any) -> OpenAIEmbedder:
    key = tmp_path / "key"
    key.write_text("a-key\n")
    return OpenAIEmbedder(program.url, "minilm", **{"key_file": str(key), "timeout": 120, **options})


@pytest.mark.parametrize("as_base64", [True, False])
def test_an_embedding_server_equals_sentence_transformers(
    minilm: dict[str, Any], infinity: programs.Program, tmp_path: Path, as_base64: bool
) -> None:
    embedder = embedder_of(infinity, tmp_path, as_base64=as_base64)
    assert embedder.dimension == 384
    rows = embedder.embed(minilm["texts"], role="document")
    assert np.abs(rows - np.load(minilm["expected"])).max() <= 1e-4


def test_an_embedding_server_shortens(
    minilm: dict[str, Any], infinity: programs.Program, tmp_path: Path
) -> None:
    embedder = embedder_of(infinity, tmp_path, dimension=64, shorten=True)
    rows = embedder.embed(minilm["texts"][:8], role="document")
    cut = np.load(minilm["expected"])[:8, :64]
    np.testing.assert_allclose(
        rows / np.linalg.norm(rows, axis=1, keepdims=True),
        cut / np.linalg.norm(cut, axis=1, keepdims=True),
        atol=1e-4,
    )


def test_what_an_embedding_server_refuses_is_a_model_error(
    infinity: programs.Program, tmp_path: Path
) -> None:
    known = {"dimension": 384, "check_seconds": 1e9}
    without = OpenAIEmbedder(infinity.url, "minilm", **known)
    for refused, texts, why in (
        (without, ["no key"], "with 401: its key is missing or wrong"),
        (embedder_of(infinity, tmp_path, batch=4096, **known), ["too many"] * 4096, "with 422"),
    ):
        with pytest.raises(ModelError, match=why) as caught:
            refused.embed(texts, role="query")
        assert not isinstance(caught.value, ModelUnavailable)
        assert "a-key" not in str(caught.value)


def test_an_embedding_server_that_is_killed_loses_nothing_and_heals(
    infinity: programs.Program, tmp_path: Path
) -> None:
    """Writers and a reader are at work when the server goes. Each call is answered or a typed error, what was
    acknowledged is there and nothing else, and the same objects work on when the server is back."""
    embedder = embedder_of(infinity, tmp_path, timeout=20)
    with warpmem.open(tmp_path / "store", embedder=embedder, embedding_cache_bytes=0) as memory:
        stored: list[str] = []
        failures: list[WarpmemError] = []
        gone = threading.Event()

        def work(number: int) -> None:
            for i in range(10_000):
                text = f"Note {i} of writer {number}."
                try:
                    memory.add(text, user_id="u")
                    stored.append(text)
                    memory.search(text, user_id="u", k=1)
                except programs.NOT_THERE as error:
                    failures.append(error)
                    time.sleep(0.05)
                if gone.is_set():
                    return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(stored) < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        infinity.kill()
        while not failures and time.monotonic() < deadline:
            time.sleep(0.01)
        gone.set()
        for thread in threads:
            thread.join()
        assert failures and len(stored) >= 40
        with pytest.raises(programs.NOT_THERE):
            memory.add("This one comes while nobody is there.", user_id="u")
        assert sorted(item.text for item in memory.list(user_id="u", limit=10_000).items) == sorted(stored)

        infinity.start()
        programs.healed(lambda: memory.add("This one comes when it is back.", user_id="u"))
        assert memory.search("when is it back?", user_id="u", k=1)[0].item.text.endswith("it is back.")
        assert memory.count(user_id="u") == len(stored) + 1
