"""SmolLM2-135M behind llama.cpp's own server, of OpenAI's shape, over a real socket. What the model says is
not judged, only whether each answer is one, by its schema, or a typed error."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest

import warpmem
from warpmem.errors import DeadlineExceeded, ModelError, ModelUnavailable, WarpmemError
from warpmem.reason.chat import ChatModel
from warpmem.reason.judge import JudgeReranker
from warpmem.types import Message

pytestmark = pytest.mark.real

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 24},
        "year": {"type": "integer"},
        "kind": {"enum": ["capital", "town", "village"]},
    },
    "required": ["city", "year", "kind"],
    "additionalProperties": False,
}
QUESTIONS = ("Where does Nadia live? She moved to Lisbon in 2019.", "Write a poem about the sea.", "?")


def chat_of(program: programs.Program, **options: Any) -> ChatModel:
    return ChatModel(f"{program.url}/v1", "smollm2", **{"timeout": 120, "extra": {"seed": 1}, **options})


def ask(text: str) -> list[Message]:
    return [Message(role="system", content="Be brief."), Message(role="user", content=text)]


@pytest.mark.parametrize("strict", [True, False])
def test_a_server_that_knows_schemas_answers_by_them(llama: programs.Program, strict: bool) -> None:
    chat = chat_of(llama, strict=strict)
    for question in QUESTIONS:
        answer = json.loads(chat.complete(ask(question), schema=SCHEMA, max_tokens=96))
        assert list(answer) == ["city", "year", "kind"] and len(answer["city"]) <= 24
        assert isinstance(answer["year"], int) and answer["kind"] in ("capital", "town", "village")


@pytest.mark.parametrize("response_format", ["json_object", "none"])
def test_a_server_that_is_not_told_the_schema_is_not_believed(
    llama: programs.Program, response_format: Any
) -> None:
    chat = chat_of(llama, response_format=response_format)

    def outcome(question: str) -> str:
        try:
            return " ".join(sorted(json.loads(chat.complete(ask(question), schema=SCHEMA, max_tokens=48))))
        except ModelError as error:
            return str(error)

    for found in map(outcome, QUESTIONS):
        assert found == "city kind year" or "answered twice against the schema" in found


def test_what_a_chat_server_does_not_give_is_a_typed_error(llama: programs.Program) -> None:
    with pytest.raises(ModelError, match="answered twice against the schema"):
        chat_of(llama).complete(ask(QUESTIONS[0]), schema=SCHEMA, max_tokens=3)
    with pytest.raises(ModelError, match="with 400"):
        chat_of(llama).complete(ask("word " * 10_000), max_tokens=8)
    with pytest.raises(DeadlineExceeded):
        chat_of(llama, timeout=0.2).complete(ask(QUESTIONS[1]), max_tokens=4_000)


def test_a_small_model_judges_as_the_configuration_says(llama: programs.Program, tmp_path: Path) -> None:
    """The reranker "judge" over the language model "openai": the server holds the grades to their schema."""
    texts = ["Nadia has a cat.", "The train leaves at nine.", "Cats sleep a lot."]
    config = warpmem.Config(
        path=str(tmp_path / "store"),
        reranker="judge",
        language_model="openai",
        language_model_options={"url": f"{llama.url}/v1", "model": "smollm2", "timeout": 120},
    )
    scores = JudgeReranker(chat_of(llama)).rerank("cats", texts)
    assert scores.shape == (3,) and scores.dtype == np.float32 and np.isfinite(scores).all()
    with warpmem.open(config=config) as memory:
        memory.add_many(texts, user_id="u")
        hits = memory.search("cats", user_id="u", k=3, rerank=3)
        assert sorted(hit.item.text for hit in hits) == sorted(texts)


def test_a_chat_server_that_is_killed_heals(llama: programs.Program) -> None:
    """Killed in the middle of an answer, too."""
    chat = chat_of(llama)
    failures: list[Exception] = []

    def long_answer() -> None:
        try:
            chat.complete(ask(QUESTIONS[1]), max_tokens=4_000)
        except WarpmemError as error:
            failures.append(error)

    thread = threading.Thread(target=long_answer)
    thread.start()
    time.sleep(0.5)
    llama.kill()
    thread.join()
    assert [type(error) for error in failures] == [ModelUnavailable]
    with pytest.raises(ModelUnavailable):
        chat.complete(ask("?"), max_tokens=4)
    llama.start()
    assert chat.complete(ask("?"), max_tokens=4)
