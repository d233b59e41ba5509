"""Where the name of an endpoint may lead."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import local_servers
import warpmem
from local_servers import Server, serving
from warpmem.embed.kserve import KServeEmbedder
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.embed.tei import TEIEmbedder
from warpmem.errors import InputError, ModelUnavailable
from warpmem.ops.endpoints import Reach
from warpmem.reason.chat import ChatModel
from warpmem.reason.rerank_http import CohereReranker, TEIReranker

NAME = "models.example"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of this machine, where NAME leads to."""
    look_up = socket.getaddrinfo

    def led(host: Any, *arguments: Any, **named: Any) -> Any:
        return look_up("127.0.0.1" if host == NAME else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", led)
    with serving(local_servers.tei) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "address", "networks", "allowed"),
    [
        (NAME, "93.184.215.14", (), True),
        (NAME, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", (), True),
        (NAME, "10.1.2.3", (), False),
        (NAME, "10.1.2.3", ("192.168.0.0/16", "10.0.0.0/8"), True),
        (NAME, "169.254.169.254", ("10.0.0.0/8",), False),
        (NAME, "127.0.0.1", (), False),
        (NAME, "::1", (), False),
        (NAME, "::ffff:10.1.2.3", (), False),
        (NAME, "::ffff:10.1.2.3", ("10.0.0.0/8",), True),
        (NAME, "fe80::1%eth0", (), False),
        (NAME, "fd00::7", ("fd00::/8",), True),
        (NAME, "100.64.0.1", (), False),
        ("localhost", "127.0.0.1", (), True),
        ("localhost", "10.1.2.3", (), False),
        ("a.localhost", "::1", (), True),
        ("notlocalhost", "127.0.0.1", (), False),
        ("10.1.2.3", "10.1.2.3", (), True),
        ("::1", "::1", (), True),
    ],
)
def test_where_a_name_may_lead(host: str, address: str, networks: tuple[str, ...], allowed: bool) -> None:
    reach = Reach(host, networks)
    if allowed:
        reach.check(address)
    else:
        with pytest.raises(ModelUnavailable, match="not listed"):
            reach.check(address)


@pytest.mark.parametrize("networks", ["10.0.0.0/8", ["10.0.0.1/8"], ["models"], [None], 3, ["10.0.0.0/40"]])
def test_networks_are_checked(networks: Any) -> None:
    for make in (
        lambda: TEIEmbedder("http://h", "m", dimension=3, networks=networks),
        lambda: OpenAIEmbedder("http://h", "m", dimension=3, networks=networks),
        lambda: KServeEmbedder("http://h", "m", dimension=3, networks=networks),
        lambda: TEIReranker("http://h", networks=networks),
        lambda: CohereReranker("http://h", "m", networks=networks),
        lambda: ChatModel("http://h", "m", networks=networks),
    ):
        with pytest.raises(InputError, match="networks"):
            make()


def test_nothing_is_sent_to_an_address_that_is_not_listed(server: Server) -> None:
    url = server.url.replace("127.0.0.1", NAME)
    refused = TEIEmbedder(url, "m", dimension=48)
    with pytest.raises(ModelUnavailable, match=r"models\.example leads to the private address 127\.0\.0\.1"):
        refused.embed(["secret"], role="query")
    assert not server.requests
    TEIEmbedder(url, "m", dimension=48, networks=["127.0.0.0/8"]).embed(["text"], role="query")
    TEIEmbedder(server.url, "m", dimension=48).embed(["text"], role="query")
    assert len(server.requests) == 2


def test_a_file_lists_them(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("127.0.0.1", NAME)
    file = tmp_path / "warpmem.toml"
    options = f'embedder = "tei"\n[embedder_options]\nurl = "{url}"\nmodel_id = "m"\ndimension = 48\n'
    file.write_text(options)
    with warpmem.open(None, config=file) as memory, pytest.raises(ModelUnavailable, match="not listed"):
        memory.add("text", user_id="u")
    file.write_text(options + 'networks = ["127.0.0.0/8"]\n')
    with warpmem.open(None, config=file) as memory:
        memory.add("text", user_id="u")
        assert len(memory.search("text", user_id="u")) == 1


def test_grpc_looks_before_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: found)
    embedder = KServeEmbedder(f"grpc://{NAME}:1", "m", dimension=3)
    with pytest.raises(ModelUnavailable, match="not listed"):
        embedder.embed(["secret"], role="query")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: (_ for _ in ()).throw(OSError()))
    with pytest.raises(ModelUnavailable, match="cannot be looked up"):
        embedder.embed(["secret"], role="query")
