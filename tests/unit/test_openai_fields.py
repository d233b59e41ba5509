"""embed/openai.py with other fields in its requests, as servers want them that tell the roles apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import local_servers
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.errors import InputError

ROLES = {"query_extra": {"input_type": "query"}, "document_extra": {"input_type": "passage"}}


def by_role(handler: local_servers.Handler, payload: Any) -> None:
    """A server that refuses requests without input_type and gives queries other vectors."""
    if payload.get("input_type") not in ("query", "passage"):
        handler.reply(json.dumps({"error": "input_type is required"}).encode(), 400)
        return
    rows = local_servers.vectors(payload["input"])
    sign = 1 if payload["input_type"] == "passage" else -1
    handler.reply(local_servers.openai_body(sign * rows, as_base64=True))


def test_each_role_has_its_fields():
    expected = local_servers.vectors(["one", "two"])
    with local_servers.serving(by_role) as server:
        embedder = OpenAIEmbedder(server.url, "m", extra={"truncate": "END", "model": "other"}, **ROLES)
        np.testing.assert_array_equal(embedder.embed(["one", "two"], role="document"), expected)
        np.testing.assert_array_equal(embedder.embed(["one", "two"], role="query"), -expected)
        sent = [
            (payload["input_type"], payload["truncate"], payload["model"])
            for _, payload, _ in server.requests
        ]
    assert sent == [("passage", "END", "m"), ("passage", "END", "m"), ("query", "END", "m")]


def test_the_fixed_text_that_tells_the_weights_is_always_a_document():
    """In a query it has another vector, which would look like other weights."""
    with local_servers.serving(by_role) as server:
        embedder = OpenAIEmbedder(server.url, "m", check_seconds=0, **ROLES)
        for role in ("query", "document", "query"):
            assert embedder.embed(["one"], role=role).shape == (1, 48)
        sent = [(payload["input_type"], len(payload["input"])) for _, payload, _ in server.requests]
    passage, query, both = ("passage", 1), ("query", 1), ("passage", 2)
    assert sent == [passage, passage, query, both, passage, query]


def test_other_fields_are_another_model():
    def name(**options: Any) -> str:
        return OpenAIEmbedder("http://127.0.0.1:9/v1", "m", dimension=3, **options).model_id

    assert name() == name(extra=None) == name(extra={}) == "openai:m"
    a, b = {"a": 1, "b": [2]}, {"b": [2], "a": 1}
    assert name(extra=a) == name(extra=b) != name()
    assert len({name(extra=a), name(query_extra=a), name(document_extra=a), name(), name(**ROLES)}) == 5
    assert name(extra=a, model_id="mine") == "mine"


@pytest.mark.parametrize("fields", ["input_type", ["input_type"], {"a": object()}, {("a",): 1}])
@pytest.mark.parametrize("option", ["extra", "query_extra", "document_extra"])
def test_fields_that_are_none(option: str, fields: Any):
    with pytest.raises(InputError, match="extra"):
        OpenAIEmbedder("http://127.0.0.1:9/v1", "m", dimension=3, **{option: fields})
