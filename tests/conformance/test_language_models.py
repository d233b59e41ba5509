"""What protocols.LanguageModel promises, held by every language model that ships."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import local_servers
from warpmem.errors import InputError, InvalidText
from warpmem.protocols import LanguageModel
from warpmem.reason.chat import ChatModel
from warpmem.reason.fakes import ScriptedLanguageModel
from warpmem.types import Message

ASK = [Message(role="system", content="Be brief."), Message(role="user", content="Où habite Nadia? 😀")]
SCHEMA = {
    "type": "object",
    "properties": {"facts": {"type": "array", "items": {"type": "string"}}},
    "required": ["facts"],
    "additionalProperties": False,
}
ANSWER = {"facts": ["Nadia lives in Porto."]}

Maker = Callable[[], LanguageModel]
LOCAL: dict[str, Maker] = {
    "scripted": lambda: ScriptedLanguageModel([json.dumps(ANSWER)] * 9),
}
REMOTE: dict[str, Callable[[str], LanguageModel]] = {
    "openai": lambda url: ChatModel(f"{url}/v1", "m"),
    "openai-object": lambda url: ChatModel(url, "m", response_format="json_object"),
    "openai-none": lambda url: ChatModel(url, "m", response_format="none", temperature=None),
}


@pytest.fixture(params=[*LOCAL, *REMOTE])
def model(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    with ExitStack() as stack:
        if request.param in REMOTE:
            server = stack.enter_context(local_servers.serving(local_servers.chat(json.dumps(ANSWER))))
            yield REMOTE[request.param](server.url)
        else:
            yield LOCAL[request.param]()


def test_identity(model: LanguageModel) -> None:
    assert isinstance(model, LanguageModel)
    assert model.model_id
    assert isinstance(model.model_id, str)


def test_an_answer_is_text(model: LanguageModel) -> None:
    for messages in (ASK, tuple(ASK[1:])):
        assert json.loads(model.complete(messages)) == ANSWER


def test_an_answer_by_schema_is_json(model: LanguageModel) -> None:
    assert json.loads(model.complete(ASK, schema=SCHEMA, max_tokens=64)) == ANSWER


@pytest.mark.parametrize(
    "messages", ["hello", [], Message(role="user", content="x"), [{"role": "user", "content": "x"}], None]
)
def test_what_are_no_messages(model: LanguageModel, messages: Any) -> None:
    with pytest.raises(InputError, match="messages"):
        model.complete(messages)


@pytest.mark.parametrize("text", [None, 3, "lone \ud800 surrogate"])
def test_what_is_no_text(model: LanguageModel, text: Any) -> None:
    with pytest.raises(InvalidText, match=r"content of messages\[1\]"):
        model.complete([ASK[0], Message(role="user", content=text)])
    with pytest.raises(InvalidText, match=r"role of messages\[0\]"):
        model.complete([Message(role=text, content="x")])
