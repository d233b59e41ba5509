"""The open inference protocol over gRPC against real servers on this machine: sound, wrong, slow and gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("grpc")
pytest.importorskip("google.protobuf")

import grpc

import grpc_servers
import local_servers
import warpmem
from grpc_servers import answer_of, serving, sound
from local_servers import vectors
from warpmem.embed.kserve import KServeEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    MissingDependency,
    ModelError,
    ModelUnavailable,
    Overloaded,
)


def make(url: str, **options: Any) -> KServeEmbedder:
    return KServeEmbedder(url, "m", **{"dimension": 48, "check_seconds": 1e9, "timeout": 5.0, **options})


def embed(url: str, texts: list[str], **options: Any) -> Any:
    return make(url, **options).embed(texts, role="document")


def refuse(code: Any, details: str = "of the text", *metadata: tuple[str, str]) -> grpc_servers.Answer:
    def answer(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(metadata)
        context.abort(code, details)

    return answer


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("shape", ["n", "n1"])
def test_tensors_go_by_the_names_that_were_given(raw: bool, shape: Any) -> None:
    with serving(sound) as server:
        options = {"input": "words", "output": "points", "version": "3", "raw": raw, "shape": shape}
        texts = ["a", "b\x00c", "zwölf 😀"]
        assert embed(server.url, texts, **options).tobytes() == vectors(texts).tobytes()
        # The fixed text that watches the weights goes along with the first request.
        ((request, metadata),) = server.requests
        assert (request.model_name, request.model_version) == ("m", "3")
        assert [each.name for each in request.inputs] == ["words"]
        assert [each.name for each in request.outputs] == ["points"]
        assert list(request.inputs[0].shape) == ([4] if shape == "n" else [4, 1])
        assert bool(request.raw_input_contents) is raw
        assert "authorization" not in metadata


@pytest.mark.parametrize(
    ("kind", "raw"), [("FP16", True), ("FP32", True), ("FP64", True), ("FP32", False), ("FP64", False)]
)
def test_answers_in_every_encoding(kind: str, raw: bool) -> None:
    with serving(lambda r, c: answer_of(vectors(grpc_servers.texts(r)), kind, raw=raw)) as server:
        found = embed(server.url, ["a", "b"])
    np.testing.assert_allclose(found, vectors(["a", "b"]), atol=1e-3 if kind == "FP16" else 0)


def test_an_output_among_others_is_found_by_its_name() -> None:
    def answer(request: Any, context: Any) -> Any:
        found = answer_of(np.zeros((7, 3)), name="attention")
        other = answer_of(vectors(grpc_servers.texts(request)))
        found.outputs.extend(other.outputs)
        found.raw_output_contents.extend(other.raw_output_contents)
        return found

    with serving(answer) as server:
        assert embed(server.url, ["a"]).tobytes() == vectors(["a"]).tobytes()


def spoiled(change: Any) -> grpc_servers.Answer:
    def answer(request: Any, context: Any) -> Any:
        return change(vectors(grpc_servers.texts(request)))

    return answer


def with_nan(rows: Any) -> Any:
    rows = rows.copy()
    rows[0, 5] = np.nan
    return answer_of(rows)


def short_of_bytes(rows: Any) -> Any:
    found = answer_of(rows)
    found.raw_output_contents[0] = found.raw_output_contents[0][:-1]
    return found


def without_contents(rows: Any) -> Any:
    found = answer_of(rows)
    del found.raw_output_contents[:]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: answer_of(rows[:-1]), "expected 3 rows, one per text, not 2"),
        (lambda rows: answer_of(rows[:, :-1]), "47"),
        (lambda rows: answer_of(rows[..., None]), "2 axes of floats, not 3 of 'FP32'"),
        (lambda rows: answer_of(rows, "INT8"), "2 axes of floats, not 2 of 'INT8'"),
        (lambda rows: answer_of(rows, "FP16", raw=False), "do not fill its shape"),
        (lambda rows: answer_of(rows, name="other"), "no output 'embedding'"),
        (lambda rows: answer_of(rows * 0), "zero"),
        (with_nan, "NaN|finite"),
        (short_of_bytes, "do not fill its shape"),
        (without_contents, "do not fill its shape"),
        (lambda rows: b"\x07\xff\xff", "3 bytes that are no answer"),
    ],
)
def test_a_wrong_answer_is_an_error_and_stores_nothing(change: Any, message: str) -> None:
    with serving(spoiled(change)) as server, warpmem.open(None, embedder=make(server.url)) as memory:
        with pytest.raises(EmbeddingError, match=message):
            memory.add(["one", "two"], user_id="u")
        assert memory.count(user_id="u") == 0
        server.answer = sound
        memory.add(["one", "two"], user_id="u")
        assert memory.search("two", user_id="u")[0].item.text == "two"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, ModelUnavailable, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, ModelUnavailable, "INTERNAL"),
        (grpc.StatusCode.UNKNOWN, ModelUnavailable, "UNKNOWN"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, "RESOURCE_EXHAUSTED"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, "within"),
        (grpc.StatusCode.INVALID_ARGUMENT, ModelError, "INVALID_ARGUMENT"),
        (grpc.StatusCode.NOT_FOUND, ModelError, "no such model"),
        (grpc.StatusCode.UNAUTHENTICATED, ModelError, "key is missing or wrong"),
        (grpc.StatusCode.UNIMPLEMENTED, ModelError, "does not serve this protocol"),
    ],
)
def test_every_status_is_a_typed_error_without_the_servers_words(code: Any, kind: Any, message: str) -> None:
    with serving(refuse(code)) as server:
        with pytest.raises(kind, match=message) as caught:
            embed(server.url, ["a"])
        assert type(caught.value) is kind
        assert "of the text" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)


def test_how_long_a_server_wants_to_be_left_alone() -> None:
    full = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ("retry-pushback-ms", "20000"))
    with serving(full) as server:
        for _ in range(3):
            with pytest.raises(Overloaded) as caught:
                embed(server.url, ["a"])
            assert 19 < caught.value.retry_after <= 20
        assert len(server.requests) == 1
    for senseless in ("-1", "soon", ""):
        with serving(
            refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "", ("retry-pushback-ms", senseless))
        ) as server:
            with pytest.raises(Overloaded) as caught:
                embed(server.url, ["a"])
            assert caught.value.retry_after == 1.0


def test_a_server_that_says_nothing() -> None:
    def silent(request: Any, context: Any) -> Any:
        time.sleep(0.6)
        return sound(request, context)

    with serving(silent) as server, warpmem.open(None, embedder=make(server.url)) as memory:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            memory.search("sought", user_id="u", deadline=0.15, mode="dense")
        assert 0.1 < time.monotonic() - began < 0.5
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            embed(server.url, ["a"], timeout=0.1)


def test_a_server_that_is_gone_is_found_again() -> None:
    with serving(sound) as server:
        embedder = make(server.url)
        embedder.embed(["a"], role="query")
        port = server.port
    for _ in range(5):
        with pytest.raises(ModelUnavailable, match="could not be reached"):
            embedder.embed(["a"], role="query")
    with pytest.raises(Overloaded, match="failed 5 times in a row") as caught:
        embedder.embed(["a"], role="query")
    with serving(sound, port=port):
        time.sleep(caught.value.retry_after)
        assert embedder.embed(["a"], role="query").tobytes() == vectors(["a"]).tobytes()


def test_an_answer_is_not_read_at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    import warpmem.embed.kserve as kserve

    def small(url: str, **options: Any) -> Any:
        return endpoint(url, **options, max_bytes=1000)

    endpoint = kserve.GrpcEndpoint
    monkeypatch.setattr(kserve, "GrpcEndpoint", small)
    with serving(sound) as server:
        assert len(embed(server.url, ["a"])) == 1
        with pytest.raises(ModelError, match="answers with more than 1000 bytes"):
            embed(server.url, ["a"] * 20)


def test_a_request_that_the_server_takes_too_large() -> None:
    """gRPC says RESOURCE_EXHAUSTED of it too, but trying again is of no use."""
    with serving(sound) as server, pytest.raises(ModelError, match="no messages of this size") as caught:
        embed(server.url, ["x" * (5 << 20)])
    assert type(caught.value) is ModelError


def test_the_key_goes_along(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("open sesame\n")
    with serving(sound) as server:
        embedder = make(server.url, key_file=str(file))
        embedder.embed(["a"], role="query")
        file.write_text("another\n")
        embedder.embed(["a"], role="query")
        assert [told["authorization"] for _, told in server.requests] == [
            "Bearer open sesame", "Bearer another",
        ]  # fmt: skip
        file.write_text("")
        with pytest.raises(InputError, match="holds no key"):
            embedder.embed(["a"], role="query")


def test_tls_trusts_only_what_it_is_told(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    local_servers.make_certificate(key, certificate)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with serving(sound, credentials) as server:
        url = server.url.replace("grpc:", "grpcs:")
        assert embed(url, ["a"], ca_file=str(certificate)).tobytes() == vectors(["a"]).tobytes()
        with pytest.raises(ModelUnavailable, match="TLS: its certificate is not one to trust"):
            embed(url, ["a"])
        with pytest.raises(ModelUnavailable):
            embed(server.url, ["a"])
    with pytest.raises(InputError, match="cannot be read as certificates"):
        make(url, ca_file=str(key))


def test_http_answers_in_the_place_of_grpc() -> None:
    with (
        serving(refuse(grpc.StatusCode.UNAVAILABLE)) as first,
        local_servers.serving(local_servers.kserve) as second,
    ):
        embedder = make(first.url, fallback=[make(second.url)])
        assert embedder.embed(["a"], role="query").tobytes() == vectors(["a"]).tobytes()
        assert len(second.requests) == 1


def test_a_fork_has_a_channel_of_its_own() -> None:
    """In a process of its own, where gRPC's threads are nobody else's."""
    code = (
        "import os, sys\n"
        "from warpmem.embed.kserve import KServeEmbedder\n"
        "embedder = KServeEmbedder(sys.argv[1], 'm', dimension=48, timeout=10.0)\n"
        "child = os.fork()\n"
        "found = embedder.embed(['a'], role='query').shape\n"
        "if not child: os._exit(found != (1, 48))\n"
        "sys.exit(os.waitpid(child, 0)[1] or found != (1, 48))\n"
    )
    with serving(sound) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("grpc://127.0.0.1:9/v2", {}, "has no path"),
        ("grpc://", {}, "must begin with grpc:// or grpcs://"),
        ("grpc://a:b@127.0.0.1:9", {}, "no user"),
        ("http://127.0.0.1:9", {"raw": True}, "raw is for gRPC"),
        ("grpc://127.0.0.1:9", {"raw": 1}, "raw must be"),
        ("grpc://127.0.0.1:9", {"timeout": 0}, "timeout"),
        ("ftp://127.0.0.1:9", {}, "http:// or https://"),
    ],
)
def test_bad_arguments(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(url, **options)


@pytest.mark.parametrize("package", ["grpc", "google.protobuf"])
def test_a_missing_package_is_named_with_its_install_line(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warpmem.embed.kserve_grpc import messages

    messages.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"python -m pip install 'warpmem\[grpc\]'"):
        make("grpc://127.0.0.1:9")
