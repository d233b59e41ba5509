"""What protocols.Reranker promises, held by every reranker that ships."""

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
from warpmem.errors import InputError, InvalidText
from warpmem.protocols import Reranker
from warpmem.reason.chat import ChatModel
from warpmem.reason.fakes import OverlapReranker
from warpmem.reason.judge import JudgeReranker
from warpmem.reason.rerank_http import CohereReranker, TEIReranker
from warpmem.reason.rerank_onnx import OnnxReranker

QUERY = "where does Nadia live?"
TEXTS = [
    "The cat is called Mottek.",
    "Nadia does live in Porto, where else?",
    "x",
    "Nadia lives in Porto.",
    "来週の火曜日 😀",
    "many words " * 500,
    "",
] + [f"filler number {i}" for i in range(70)]

Maker = Callable[[], Reranker]
LOCAL: dict[str, Maker] = {"overlap": OverlapReranker}
REMOTE: dict[str, tuple[local_servers.Answer, Callable[[str], Reranker]]] = {
    "tei": (local_servers.tei_rerank, TEIReranker),
    "tei-one": (local_servers.tei_rerank, lambda url: TEIReranker(url, batch=1)),
    "cohere": (local_servers.cohere_rerank, lambda url: CohereReranker(f"{url}/v1", "m")),
    "judge": (local_servers.judge, lambda url: JudgeReranker(ChatModel(url, "m"))),
    "cohere-7": (local_servers.cohere_rerank, lambda url: CohereReranker(url, "m", batch=7)),
}


@pytest.fixture(params=[*LOCAL, *REMOTE, "onnx"], scope="module")
def reranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    with ExitStack() as stack:
        if request.param in REMOTE:
            answer, around = REMOTE[request.param]
            yield around(stack.enter_context(local_servers.serving(answer)).url)
        elif request.param == "onnx":
            yield OnnxReranker(_cross_encoder(tmp_path_factory.mktemp("model")), threads=1, batch=8)
        else:
            yield LOCAL[request.param]()


def _cross_encoder(folder: Path) -> Path:
    if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxruntime")):
        pytest.skip("needs onnx and onnxruntime")
    sentence_models.cross_encoder_file(sentence_models.model_directory(folder) / "model.onnx")
    return folder


def test_identity(reranker: Reranker) -> None:
    assert isinstance(reranker, Reranker)
    assert reranker.model_id
    assert isinstance(reranker.model_id, str)


def test_shape_dtype_and_values(reranker: Reranker) -> None:
    scores = reranker.rerank(QUERY, TEXTS)
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_nothing_in_nothing_out(reranker: Reranker) -> None:
    scores = reranker.rerank(QUERY, [])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_the_nearer_text_has_the_larger_score(reranker: Reranker) -> None:
    scores = reranker.rerank(QUERY, TEXTS)
    assert int(np.argmax(scores)) == 1
    assert scores[1] > scores[3] > scores[2]


def test_a_score_belongs_to_its_text_wherever_that_stands(reranker: Reranker) -> None:
    together = reranker.rerank(QUERY, TEXTS)
    np.testing.assert_allclose(reranker.rerank(QUERY, tuple(TEXTS[::-1]))[::-1], together, atol=1e-6)
    alone = [reranker.rerank(QUERY, [text])[0] for text in TEXTS[:7]]
    np.testing.assert_allclose(alone, together[:7], atol=1e-6)


@pytest.mark.parametrize("text", [None, 3, b"bytes", "lone \ud800 surrogate"])
def test_what_is_no_text(reranker: Reranker, text: Any) -> None:
    with pytest.raises(InvalidText, match="text 2 of 2"):
        reranker.rerank(QUERY, ["fine", text])
    with pytest.raises(InvalidText, match="the query"):
        reranker.rerank(text, ["fine"])


def test_one_string_is_not_a_sequence_of_texts(reranker: Reranker) -> None:
    with pytest.raises(InputError, match="a sequence of strings, not one str"):
        reranker.rerank(QUERY, "text")
