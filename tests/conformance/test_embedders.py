"""What protocols.Embedder promises, held by every embedder that ships."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
import sentence_models
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.kserve import KServeEmbedder
from warpmem.embed.onnx import OnnxEmbedder
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.embed.tei import TEIEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.errors import InputError, InvalidText
from warpmem.protocols import Embedder

TEXTS = [
    "Nadia moved to Porto in March.",
    "x",
    "Der Hund schläft.",
    "来週の火曜日",
    "order 4711, server 10.0.0.7",
    "!?",
    "😀",
    " padded\n",
    "many words " * 500,
] + [f"filler number {i}" for i in range(70)]


def letters(texts: list[str]) -> Any:
    """A stand-in for a user's model: counts of two letters, the length, the sum of code points."""
    return np.array([[text.count("a"), text.count("e"), len(text), sum(map(ord, text))] for text in texts])


Maker = Callable[[], Embedder]
LOCAL: dict[str, Maker] = {
    "wordllama": WordLlamaEmbedder,
    "hashing": HashingEmbedder,
    "hashing-64": lambda: HashingEmbedder(64),
    "callable": lambda: CallableEmbedder(letters, "letters-v1", 4),
}
REMOTE: dict[str, tuple[local_servers.Answer, Callable[[str], Embedder]]] = {
    "openai": (local_servers.openai, lambda url: OpenAIEmbedder(f"{url}/v1", "m")),
    "openai-numbers": (local_servers.openai, lambda url: OpenAIEmbedder(url, "m", as_base64=False, batch=7)),
    "tei": (local_servers.tei, lambda url: TEIEmbedder(url, "m", batch=1)),
    "kserve": (local_servers.kserve, lambda url: KServeEmbedder(url, "m", dimension=48)),
}
GRPC: dict[str, Callable[[str], Embedder]] = {
    "kserve-grpc": lambda url: KServeEmbedder(url, "m"),
    "kserve-grpc-raw": lambda url: KServeEmbedder(url, "m", dimension=48, raw=True, shape="n1", batch=7),
}
NETWORKS = frozenset({"onnx"})
"""Equal to the last bits only: what they compute in batches is not added up in one order."""


@pytest.fixture(params=[*LOCAL, *REMOTE, *GRPC, *NETWORKS], scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def make(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    with ExitStack() as stack:
        if name in REMOTE:
            answer, around = REMOTE[name]
            url = stack.enter_context(local_servers.serving(answer)).url
            yield lambda: around(url)
        elif name in GRPC:
            pytest.importorskip("grpc")
            pytest.importorskip("google.protobuf")
            import grpc_servers

            url = stack.enter_context(grpc_servers.serving(grpc_servers.sound)).url
            yield lambda: GRPC[name](url)
        elif name == "onnx":
            folder = _onnx_model(tmp_path_factory.mktemp("model"))
            yield lambda: OnnxEmbedder(folder, threads=1)
        else:
            yield LOCAL[name]


def _onnx_model(folder: Path) -> Path:
    if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxruntime")):
        pytest.skip("needs onnx and onnxruntime")
    sentence_models.onnx_file(sentence_models.model_directory(folder) / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def embedder(make: Maker) -> Embedder:
    return make()


def test_identity(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert embedder.model_id
    assert isinstance(embedder.model_id, str)
    assert embedder.dimension >= 1


def test_shape_dtype_and_values(embedder: Embedder) -> None:
    rows = embedder.embed(TEXTS, role="document")
    assert rows.shape == (len(TEXTS), embedder.dimension)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.isfinite(rows).all()
    assert rows.any(axis=1).all()


def test_nothing_in_nothing_out(embedder: Embedder) -> None:
    rows = embedder.embed([], role="document")
    assert rows.shape == (0, embedder.dimension)
    assert rows.dtype == np.float32


def test_same_bits_alone_in_a_batch_and_in_another_instance(
    embedder: Embedder, make: Maker, name: str
) -> None:
    together = embedder.embed(TEXTS, role="document")
    alone = np.concatenate([embedder.embed([text], role="document") for text in TEXTS])
    backwards = embedder.embed(TEXTS[::-1], role="document")[::-1]
    if name in NETWORKS:
        np.testing.assert_allclose(alone, together, atol=1e-6)
        np.testing.assert_allclose(backwards, together, atol=1e-6)
    else:
        assert together.tobytes() == alone.tobytes()
        assert together.tobytes() == backwards.tobytes()
    again = make()
    assert again.model_id == embedder.model_id
    assert again.embed(tuple(TEXTS), role="document").tobytes() == together.tobytes()


def test_different_texts_differ(embedder: Embedder) -> None:
    rows = embedder.embed(TEXTS[:9], role="document")
    assert len({row.tobytes() for row in rows}) == 9


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u200b", "\x00\x07", "\u3000\u2028"])
def test_text_without_a_token(embedder: Embedder, text: str) -> None:
    with pytest.raises(InvalidText, match="text 2 of 3"):
        embedder.embed(["fine", text, "fine"], role="document")


@pytest.mark.parametrize("text", [None, 3, b"bytes", "lone \ud800 surrogate"])
def test_what_is_no_text(embedder: Embedder, text: Any) -> None:
    with pytest.raises(InvalidText, match="text 1 of 1"):
        embedder.embed([text], role="query")


def test_one_string_is_not_a_sequence_of_texts(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="a sequence of strings, not one str"):
        embedder.embed("text", role="query")
