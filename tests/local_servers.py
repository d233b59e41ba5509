"""HTTP servers that tests start on this machine: the only addresses tests may connect to."""

from __future__ import annotations

import base64
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from warpmem.embed.hashing import HashingEmbedder
from warpmem.reason.fakes import OverlapReranker

started: set[tuple[str, int]] = set()
"""(host, port) of the servers that run now; tests/conftest.py lets connections to these through."""

Answer = Callable[["Handler", Any], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives each request to the server's `answer`, with its JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it would hold each answer back for 40 ms
    server: Server

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, payload, dict(self.headers)))
        self.server.answer(self, payload)

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """`answer` may be exchanged between requests; `requests` are (path, JSON, headers)."""

    daemon_threads = True

    def __init__(self, answer: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error of the server."""


@contextmanager
def serving(answer: Answer, context: Any = None) -> Iterator[Server]:
    """A server on a free port for as long as the block runs, with TLS if `context` is given."""
    with Server(answer) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        address = ("127.0.0.1", server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        started.add(address)
        thread.start()
        try:
            yield server
        finally:
            started.discard(address)
            server.shutdown()
            thread.join()


def make_certificate(key: Path, certificate: Path) -> None:
    """For a TLS server on this machine, in PEM; skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        import pytest  # not there where a script of tests/real serves

        pytest.skip("makes its certificate with openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


MODEL = HashingEmbedder(48)


def vectors(texts: list[str]) -> np.ndarray[Any, Any]:
    """What the model of these servers gives."""
    return MODEL.embed(texts, role="document")


def openai_body(rows: Any, *, as_base64: bool) -> bytes:
    """An answer of /v1/embeddings with `rows`, which need not be sound; the last row stands first."""
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()
            if as_base64
            else list(row),
        }
        for i, row in enumerate(np.asarray(rows).tolist())
    ]
    return json.dumps({"object": "list", "model": "m", "data": data[::-1]}).encode()


def openai(handler: Handler, payload: Any) -> None:
    """A sound OpenAI-shaped server."""
    handler.reply(
        openai_body(vectors(payload["input"]), as_base64=payload.get("encoding_format") == "base64")
    )


def tei(handler: Handler, payload: Any) -> None:
    """A sound TEI-shaped server."""
    handler.reply(json.dumps(vectors(payload["inputs"]).tolist()).encode())


def kserve(handler: Handler, payload: Any) -> None:
    """A sound server of the open inference protocol."""
    (tensor,) = payload["inputs"]
    rows = vectors(tensor["data"])
    found = {
        "name": payload["outputs"][0]["name"],
        "shape": list(rows.shape),
        "datatype": "FP32",
        "data": rows.ravel().tolist(),
    }
    handler.reply(json.dumps({"model_name": "m", "outputs": [found]}).encode())


def _scores(query: str, texts: list[str]) -> list[tuple[int, float]]:
    """(index, score), the last text first."""
    return list(enumerate(OverlapReranker().rerank(query, texts).tolist()))[::-1]


def tei_rerank(handler: Handler, payload: Any) -> None:
    """A sound TEI-shaped reranking server."""
    scores = _scores(payload["query"], payload["texts"])
    handler.reply(json.dumps([{"index": i, "score": score} for i, score in scores]).encode())


def cohere_rerank(handler: Handler, payload: Any) -> None:
    """A sound reranking server of Cohere's shape."""
    scores = _scores(payload["query"], payload["documents"])
    results = [{"index": i, "relevance_score": score, "document": {"text": "?"}} for i, score in scores]
    handler.reply(json.dumps({"id": "1", "model": payload["model"], "results": results}).encode())


def judge(handler: Handler, payload: Any) -> None:
    """A language model that grades passages as a sound judge does."""
    data = json.loads(payload["messages"][-1]["content"])
    grades = [
        {"number": i + 1, "score": 10 * score}
        for i, score in _scores(data["query"], [passage["text"] for passage in data["passages"]])
    ]
    chat(json.dumps({"scores": grades}))(handler, payload)


def chat(*answers: str | None) -> Answer:
    """A server of /v1/chat/completions that gives the answers in turn, and the last one for ever."""
    left = list(answers)

    def answer(handler: Handler, payload: Any) -> None:
        content = left.pop(0) if len(left) > 1 else left[0]
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        handler.reply(json.dumps({"id": "1", "model": payload["model"], "choices": [choice]}).encode())

    return answer
