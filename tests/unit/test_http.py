"""ops/http.py against servers on this machine that fail in every way known, and embedders over it."""

from __future__ import annotations

import email.utils
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
from local_servers import Handler, Server, openai_body, serving, vectors
from warpmem.embed.kserve import KServeEmbedder
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.embed.remote import RemoteEmbedder
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
    Overloaded,
)
from warpmem.ops.http import Endpoint

SECRET = "the-cat-is-called-Mottek"
SOUND = {"openai": local_servers.openai, "tei": local_servers.tei, "kserve": local_servers.kserve}


def make(kind: str, url: str, **options: Any) -> RemoteEmbedder:
    options = {"dimension": 48, "timeout": 5.0, "check_seconds": 1e9, **options}
    if kind == "openai":
        return OpenAIEmbedder(f"{url}/v1", "m", **options)
    if kind == "tei":
        return TEIEmbedder(url, "m", **options)
    return KServeEmbedder(url, "m", **options)


@pytest.fixture(params=SOUND)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[Server]:
    with serving(SOUND[kind]) as running:
        yield running


def raw(text: bytes, then: Callable[[Handler], None] | None = None) -> local_servers.Answer:
    """A server that writes these bytes and closes."""

    def answer(handler: Handler, payload: Any) -> None:
        handler.wfile.write(text)
        if then is not None:
            then(handler)
        handler.close_connection = True

    return answer


def status(code: int, **headers: str) -> local_servers.Answer:
    return lambda handler, payload: handler.reply(json.dumps({"error": SECRET}).encode(), code, **headers)


def rows(change: Callable[[Any], Any]) -> local_servers.Answer:
    """A server of any of the three kinds whose vectors are changed."""

    def answer(handler: Handler, payload: Any) -> None:
        if "input" in payload:
            changed = np.asarray(change(vectors(payload["input"])), np.float32)
            handler.reply(openai_body(changed, as_base64=True))
            return
        texts = payload["inputs"] if "truncate" in payload else payload["inputs"][0]["data"]
        changed = np.asarray(change(vectors(texts)), np.float32)
        if "truncate" in payload:
            handler.reply(json.dumps(changed.tolist()).encode())
            return
        found = {
            "name": "embedding", "shape": changed.shape, "datatype": "FP32", "data": changed.ravel().tolist(),
        }  # fmt: skip
        handler.reply(json.dumps({"outputs": [found]}).encode())

    return answer


def spoil(array: Any, value: float) -> Any:
    array[0, 3] = value
    return array


def drip(handler: Handler) -> None:
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

FAULTS: dict[str, tuple[local_servers.Answer, type[Exception], str]] = {
    "closes without a word": (raw(b""), ModelUnavailable, "127.0.0.1"),
    "half a body": (raw(LENGTH + b'{"da'), ModelUnavailable, "in the middle"),
    "half a chunked body": (raw(CHUNKED + b'ff\r\n{"da'), ModelUnavailable, "in the middle"),
    "half the headers": (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), ModelError, "not the JSON"),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH\r\n"), ModelUnavailable, "in HTTP"),
    "endless headers": (raw(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), ModelUnavailable, "HTTP"),
    "no JSON": (lambda h, p: h.reply(b"<html>" + SECRET.encode()), ModelError, "not the JSON"),
    "other JSON": (lambda h, p: h.reply(json.dumps({"x": SECRET}).encode()), ModelError, "not the JSON"),
    "NaN in JSON": (lambda h, p: h.reply(b"[[NaN]]"), ModelError, "not the JSON"),
    "an empty answer": (lambda h, p: h.reply(b""), ModelError, "0 bytes"),
    "no status 200": (status(500), ModelUnavailable, "answered 500"),
    "bad gateway": (status(502), ModelUnavailable, "answered 502"),
    "no such model": (status(404), ModelError, "no such path or model"),
    "no key": (status(401), ModelError, "key is missing or wrong"),
    "too long a text": (status(413), ModelError, "with 413"),
    "redirect": (status(307, Location="http://169.254.169.254/"), ModelError, "redirects are not followed"),
    "another dimension": (rows(lambda v: v[:, :32]), EmbeddingError, "expected 48 dimensions, not 32"),
    "truncated batch": (rows(lambda v: v[:-1]), EmbeddingError, "expected 3 rows, one per text, not 2"),
    "too many rows": (rows(lambda v: np.vstack([v, v])), EmbeddingError, "not 6"),
    "zero row": (rows(lambda v: v * 0), EmbeddingError, "all zero"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_a_typed_error_and_the_next_request_works(kind: str, server: Server, fault: str) -> None:
    answer, error, message = FAULTS[fault]
    embedder = make(kind, server.url)
    embedder.embed(["warm"], role="document")
    server.answer = answer
    with pytest.raises(error, match=message) as caught:
        embedder.embed([SECRET, "two", "three"], role="document")
    assert SECRET not in "".join(map(str, (caught.value, caught.value.__cause__ or "")))
    server.answer = SOUND[kind]
    assert embedder.embed(["again"], role="query").tobytes() == vectors(["again"]).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_a_vector(value: float) -> None:
    """JSON has no NaN, base64 does."""
    with (
        serving(rows(lambda v: spoil(v, value))) as server,
        pytest.raises(EmbeddingError, match="row 0 are NaN"),
    ):
        make("openai", server.url).embed(["a"], role="query")


@pytest.mark.parametrize("embedding", ["====", "AAA", "AAAAAAA=", "\u00e9"])
def test_base64_that_is_none(embedding: str) -> None:
    body = json.dumps({"data": [{"index": 0, "embedding": embedding}]}).encode()
    with serving(lambda h, p: h.reply(body)) as server, pytest.raises(EmbeddingError):
        make("openai", server.url).embed(["a"], role="query")


@pytest.mark.parametrize("indices", [(0, 0), (1, 2), (-1, 0)])
def test_rows_of_one_text_twice(indices: tuple[int, int]) -> None:
    body = json.dumps({"data": [{"index": i, "embedding": [1.0] * 48} for i in indices]}).encode()
    with serving(lambda h, p: h.reply(body)) as server, pytest.raises(EmbeddingError, match="indices"):
        make("openai", server.url).embed(["a", "b"], role="query")


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(("header", "seconds"), [("7", 7), (None, 1), ("soon", 1), ("-3", 0), ("inf", 1)])
def test_retry_after(code: int, header: str | None, seconds: float) -> None:
    headers = {} if header is None else {"Retry_After": header}
    with serving(status(code, **headers)) as server, pytest.raises(Overloaded, match=str(code)) as caught:
        make("tei", server.url).embed(["a"], role="query")
    assert caught.value.retry_after == seconds


def test_retry_after_a_date() -> None:
    soon = email.utils.formatdate(time.time() + 60, usegmt=True)
    with serving(status(429, Retry_After=soon)) as server, pytest.raises(Overloaded) as caught:
        make("tei", server.url).embed(["a"], role="query")
    assert 50 < caught.value.retry_after <= 60


def test_server_down(kind: str) -> None:
    with serving(SOUND[kind]) as server:
        embedder = make(kind, server.url)
        embedder.embed(["a"], role="query")
        url = server.url
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    local_servers.started.add(address)
    try:
        with pytest.raises(ModelUnavailable, match="refused"):
            make(kind, url).embed(["a"], role="query")
    finally:
        local_servers.started.discard(address)


SLOW = {
    "says nothing": lambda handler, payload: time.sleep(1.0),
    "drips its headers": raw(b"HTTP/1.1 200 OK\r\nX: ", drip),
    "drips its body": raw(LENGTH, drip),
}


@pytest.mark.parametrize("how", SLOW)
def test_slow_server_meets_the_deadline(how: str) -> None:
    """Every byte in time is not an answer in time; others are served meanwhile."""
    with serving(local_servers.tei) as server:
        embedder = make("tei", server.url, timeout=0.3)

        def answer(handler: Handler, payload: Any) -> None:
            (SLOW[how] if payload["inputs"] == ["slow"] else local_servers.tei)(handler, payload)

        server.answer = answer
        seen: list[Any] = []

        def ask() -> None:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
                embedder.embed(["slow"], role="query")
            seen.append(time.monotonic() - start)

        embedder.embed(["warm"], role="query")
        thread = threading.Thread(target=ask)
        thread.start()
        for i in range(5):
            assert len(embedder.embed([f"other {i}"], role="query")) == 1
        thread.join()
        assert len(seen) == 1 and 0.25 < seen[0] < 0.9


def test_a_server_that_does_not_accept() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        local_servers.started.add(address)
        try:
            embedder = make("tei", f"http://127.0.0.1:{address[1]}", timeout=0.2)
            for _ in range(3):
                with pytest.raises(DeadlineExceeded):
                    embedder.embed(["a"], role="query")
        finally:
            local_servers.started.discard(address)


def test_tls_to_a_server_without(kind: str, server: Server) -> None:
    embedder = make(kind, server.url.replace("http:", "https:"))
    with pytest.raises(ModelUnavailable, match="TLS"):
        embedder.embed(["a"], role="query")


def test_a_model_swapped_under_the_same_name(kind: str, server: Server) -> None:
    embedder = make(kind, server.url, check_seconds=0)
    before = embedder.embed(["a", "b"], role="document")
    server.answer = rows(lambda v: np.roll(v, 7, axis=1))
    for _ in range(2):
        with pytest.raises(ModelMismatch, match="other weights than at first"):
            embedder.embed(["a"], role="document")
    server.answer = rows(
        lambda v: v * np.float32(1 + 1e-3) + np.float32(1e-4)
    )  # another precision is no other model
    assert embedder.embed(["a"], role="document").shape == (1, 48)
    server.answer = SOUND[kind]
    assert embedder.embed(["a", "b"], role="document").tobytes() == before.tobytes()


def test_the_check_is_made_when_it_is_due_and_fits_the_batch(kind: str, server: Server) -> None:
    embedder = make(kind, server.url, batch=2, check_seconds=1e9)
    embedder.embed(["a", "b", "c"], role="document")
    embedder.embed(["d", "e", "f"], role="document")
    texts = [_texts(payload) for _, payload, _ in server.requests]
    assert [len(found) for found in texts] == [1, 2, 1, 2, 1]
    assert texts[1:] == [["a", "b"], ["c"], ["d", "e"], ["f"]]


def _texts(payload: Any) -> list[str]:
    if "input" in payload:
        return payload["input"]
    return payload["inputs"] if "truncate" in payload else payload["inputs"][0]["data"]


def test_dimension_is_asked_for(kind: str, server: Server) -> None:
    assert make(kind, server.url, dimension=None).dimension == 48
    server.answer = rows(lambda v: v[:0])
    with pytest.raises(EmbeddingError, match="not 0"):
        make(kind, server.url, dimension=None)


def test_a_connection_is_kept_and_replaced_when_the_server_closed_it(kind: str, server: Server) -> None:
    embedder = make(kind, server.url)
    for _ in range(5):
        embedder.embed(["a"], role="query")
    assert server.connections == 1

    def once(handler: Handler, payload: Any) -> None:
        server.answer = SOUND[kind]
        handler.close_connection = True

    server.answer = once
    assert len(embedder.embed(["b"], role="query")) == 1
    assert server.connections == 2


def test_prefixes_by_role_and_their_own_model_id(kind: str, server: Server) -> None:
    embedder = make(kind, server.url, query_prefix="query: ", document_prefix="passage: ")
    embedder.embed(["a"], role="query")
    embedder.embed(["a"], role="document")
    assert [_texts(payload)[0] for _, payload, _ in server.requests] == ["query: a", "passage: a"]
    if kind != "tei":
        assert embedder.model_id != make(kind, server.url).model_id


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: Server, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_KEY", " sk-1 \n")
    make(kind, server.url, key_env="MODEL_KEY").embed(["a"], role="query")
    file = tmp_path / "key"
    file.write_text("sk-2\n")
    make(kind, server.url, key_file=str(file)).embed(["a"], role="query")
    assert [headers["Authorization"] for _, _, headers in server.requests] == ["Bearer sk-1", "Bearer sk-2"]
    file.write_text("sk\n2")
    for options in (
        {"key_file": str(file)},
        {"key_file": str(tmp_path / "none")},
        {"key_env": "NO_SUCH_KEY"},
    ):
        with pytest.raises(InputError, match="key") as caught:
            make(kind, server.url, **options).embed(["a"], role="query")
        assert "sk" not in str(caught.value)
    with pytest.raises(InputError, match="not both"):
        make(kind, server.url, key_env="A", key_file="b")


def test_answers_of_any_length_are_not_read() -> None:
    with serving(lambda h, p: h.reply(b"[" + b" " * 5000 + b"]")) as server:
        endpoint = Endpoint(server.url, max_bytes=5002)
        assert endpoint.post("/x", {}, list[int]) == []
        with pytest.raises(ModelError, match="more than 5001 bytes"):
            Endpoint(server.url, max_bytes=5001).post("/x", {}, list[int])
        endpoint.close()


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:80", "ftp://host/", "http://", "http://u:p@host/", "http://host/?a=1", "http://host/#a",
     "http://host:99999/", "http://ho st/", "http://h\u00f6st/", f"http://{'a' * 70}.de/", "http://[::1/", 7],
)  # fmt: skip
def test_what_is_no_url(url: Any) -> None:
    with pytest.raises(InputError, match="url"):
        Endpoint(url)


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": True},
        {"dimension": 0},
        {"timeout": 0},
        {"timeout": True},
        {"query_prefix": 1},
        {"check_seconds": "1"},
        {"model_id": ""},
        {"ca_file": "/no/such/file"},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        OpenAIEmbedder("https://127.0.0.1:9/v1", "m", **{"dimension": 3, **options})


def test_a_host_without_a_name() -> None:
    local_servers.started.add(("no-such-host.invalid", 80))
    try:
        with pytest.raises(ModelUnavailable, match="no-such-host"):
            make("tei", "http://no-such-host.invalid").embed(["a"], role="query")
    finally:
        local_servers.started.discard(("no-such-host.invalid", 80))
