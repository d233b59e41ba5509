"""reason/rerank_http.py against servers that answer wrongly, and what it asks of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import local_servers
from local_servers import Server, serving
from warpmem.errors import DeadlineExceeded, InputError, ModelError, ModelUnavailable, Overloaded
from warpmem.reason.rerank_http import CohereReranker, RemoteReranker, TEIReranker

SOUND = {"tei": local_servers.tei_rerank, "cohere": local_servers.cohere_rerank}
SECRET = "the-cat-is-called-Mottek"


def make(kind: str, url: str, **options: Any) -> RemoteReranker:
    return TEIReranker(url, **options) if kind == "tei" else CohereReranker(f"{url}/v1", "m", **options)


def answering(change: Callable[[list[list[Any]]], list[list[Any]]]) -> local_servers.Answer:
    """A server of either kind whose [index, score] are changed."""

    def answer(handler: local_servers.Handler, payload: Any) -> None:
        texts = payload.get("texts", payload.get("documents"))
        pairs = change([[i, 0.5] for i in range(len(texts))])
        found: Any = [{"index": i, "score": score, "relevance_score": score} for i, score in pairs]
        handler.reply(json.dumps(found if "texts" in payload else {"results": found}).encode())

    return answer


@pytest.fixture(params=SOUND)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[Server]:
    with serving(SOUND[kind]) as running:
        yield running


FAULTS: dict[str, tuple[local_servers.Answer, type[Exception], str]] = {
    "one too few": (answering(lambda p: p[:-1]), ModelError, "each of 3 texts, not 2"),
    "none": (answering(lambda p: []), ModelError, "not 0"),
    "one twice": (answering(lambda p: [*p[:2], p[1]]), ModelError, "other indices than 0 to 2"),
    "one too many": (answering(lambda p: [*p, [3, 0.1]]), ModelError, "not 4"),
    "from one": (answering(lambda p: [[i + 1, s] for i, s in p]), ModelError, "other indices"),
    "negative": (answering(lambda p: [[-1, 0.1], *p[1:]]), ModelError, "other indices"),
    "too large": (answering(lambda p: [*p[:2], [2, 1e300]]), ModelError, "score 2 is NaN or infinite"),
    "no number": (answering(lambda p: [*p[:2], [2, SECRET]]), ModelError, "not the JSON"),
    "NaN": (answering(lambda p: [*p[:2], [2, float("nan")]]), ModelError, "not the JSON"),
    "null": (answering(lambda p: [*p[:2], [2, None]]), ModelError, "not the JSON"),
    "other JSON": (lambda h, p: h.reply(json.dumps({"error": SECRET}).encode()), ModelError, "not the JSON"),
    "down": (lambda h, p: h.reply(b"{}", 502), ModelUnavailable, "502"),
    "too much": (lambda h, p: h.reply(b"{}", 429, Retry_After="3"), Overloaded, "429"),
    "too long": (lambda h, p: h.reply(b"{}", 413), ModelError, "413"),
    "slow": (lambda h, p: time.sleep(1), DeadlineExceeded, r"within 0\.4 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_a_typed_error_and_the_next_request_works(kind: str, server: Server, fault: str) -> None:
    answer, error, message = FAULTS[fault]
    reranker = make(kind, server.url, timeout=0.4 if fault == "slow" else 20.0)
    server.answer = answer
    with pytest.raises(error, match=message) as caught:
        reranker.rerank(SECRET, ["a", "b", SECRET])
    assert SECRET not in "".join(map(str, (caught.value, caught.value.__cause__ or "")))
    server.answer = SOUND[kind]
    assert reranker.rerank("a b", ["a", "a b", "c"]).tolist() == [0.5, 1.0, 0.0]


def test_what_is_asked(kind: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    reranker = make(kind, server.url, batch=2, key_file=str(tmp_path / "key"))
    assert reranker.rerank("q", ["q", "b", "c q"]).tolist() == [1.0, 0.0, 1.0]
    paths, payloads, headers = zip(*server.requests, strict=True)
    assert {header["Authorization"] for header in headers} == {"Bearer sesame"}
    if kind == "tei":
        assert paths == ("/rerank", "/rerank")
        assert payloads[0] == {"query": "q", "texts": ["q", "b"], "truncate": True}
    else:
        assert paths == ("/v1/rerank", "/v1/rerank")
        assert payloads[1] == {"model": "m", "query": "q", "documents": ["c q"]}


def test_no_texts_ask_nothing(kind: str, server: Server) -> None:
    assert make(kind, server.url).rerank("q", []).shape == (0,)
    assert server.requests == []


def test_model_ids() -> None:
    assert TEIReranker("http://127.0.0.1:81/a").model_id == "tei:127.0.0.1:81"
    assert CohereReranker("http://127.0.0.1:81", "m").model_id == "cohere:m"
    assert TEIReranker("http://127.0.0.1:81", model_id="bge").model_id == "bge"


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"model_id": ""}, {"timeout": 0}, {"key_env": "A", "key_file": "b"}]
)
def test_options_are_checked(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make(kind, "http://127.0.0.1:9", **options)
    with pytest.raises(InputError):
        make(kind, "ftp://127.0.0.1")
    with pytest.raises(InputError, match="model"):
        CohereReranker("http://127.0.0.1:9", "")
