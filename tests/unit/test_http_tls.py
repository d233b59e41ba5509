"""ops/http.py over TLS: whom it trusts, and connections that were kept."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import local_servers
from local_servers import Handler, serving, vectors
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import ModelUnavailable


def make(url: str, **options: Any) -> TEIEmbedder:
    return TEIEmbedder(
        url.replace("http:", "https:"), "m", dimension=48, timeout=5.0, check_seconds=1e9, **options
    )


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """What a TLS server on this machine presents, and the file with its certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    local_servers.make_certificate(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, str(certificate)


def test_tls_trusts_only_what_it_is_told(certified: tuple[ssl.SSLContext, str]) -> None:
    context, certificate = certified
    with serving(local_servers.tei, context) as server:
        with pytest.raises(ModelUnavailable, match="TLS: self-signed certificate"):
            make(server.url).embed(["a"], role="query")
        embedder = make(server.url, ca_file=certificate)
        for _ in range(2):
            assert embedder.embed(["a"], role="query").tobytes() == vectors(["a"]).tobytes()


@pytest.mark.parametrize("notified", [False, True])
def test_an_idle_tls_connection_that_the_server_closed_is_replaced(
    certified: tuple[ssl.SSLContext, str], notified: bool
) -> None:
    """Without a close_notify its end was an error of TLS, and the next request failed."""
    context, certificate = certified
    ended = threading.Event()

    def last(handler: Handler, payload: Any) -> None:
        local_servers.tei(handler, payload)
        if notified:
            with contextlib.suppress(OSError):  # the client has nothing more to say
                handler.connection.settimeout(0.05)
                handler.connection.unwrap()
        handler.connection.close()
        handler.close_connection = True
        ended.set()

    with serving(last, context) as server:
        embedder = make(server.url, ca_file=certificate)
        for n in range(3):
            assert len(embedder.embed([f"text {n}"], role="query")) == 1
            assert ended.wait(5)
            ended.clear()
            time.sleep(0.05)
        assert server.connections == 3
