"""reason/chat.py and reason/answers.py: what is asked of a server, the one repair, and every fault."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import local_servers
from local_servers import chat, serving
from warpmem.errors import DeadlineExceeded, InputError, ModelError, ModelUnavailable, Overloaded
from warpmem.reason.answers import json_of
from warpmem.reason.chat import ChatModel
from warpmem.types import Message

SECRET = "the-cat-is-called-Mottek"
ASK = [Message(role="user", content="Where?", name="nadia")]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "sure": {"type": "boolean"}},
    "required": ["city"],
    "additionalProperties": False,
}
GOOD = '{"city": "Porto"}'


def test_what_is_asked_without_a_schema(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame")
    with serving(chat("Porto.")) as server:
        model = ChatModel(
            f"{server.url}/v1",
            "m",
            key_file=str(tmp_path / "key"),
            limit_name="max_completion_tokens",
            extra={"seed": 1, "model": "another"},
        )
        assert model.complete(ASK, max_tokens=7) == "Porto."
        ((path, payload, headers),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sesame"
    assert payload == {
        "seed": 1,
        "model": "m",
        "temperature": 0.0,
        "messages": [{"role": "user", "content": "Where?", "name": "nadia"}],
        "max_completion_tokens": 7,
    }
    assert model.model_id == "openai:m"


def test_a_schema_goes_as_response_format() -> None:
    with serving(chat(GOOD)) as server:
        assert ChatModel(server.url, "m", strict=True).complete(ASK, schema=SCHEMA) == GOOD
        ((_, payload, _),) = server.requests
    assert payload["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert payload["messages"] == [{"role": "user", "content": "Where?", "name": "nadia"}]


@pytest.mark.parametrize("response_format", ["json_object", "none"])
def test_servers_that_know_no_schema_are_told_it(response_format: Any) -> None:
    with serving(chat(GOOD)) as server:
        model = ChatModel(server.url, "m", response_format=response_format)
        model.complete(ASK, schema=SCHEMA)
        model.complete([Message(role="system", content="Be brief."), *ASK], schema=SCHEMA)
        payloads = [payload for _, payload, _ in server.requests]
    for payload in payloads:
        assert [message["role"] for message in payload["messages"]] == ["system", "user"]
        assert json.dumps(SCHEMA, separators=(",", ":")) in payload["messages"][0]["content"]
        wanted = {"type": "json_object"} if response_format == "json_object" else None
        assert payload.get("response_format") == wanted
    assert payloads[1]["messages"][0]["content"].startswith("Be brief.\n\n")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ('{"city": 4}', "answer.city: expected string, not number"),
        ("{}", "answer.city: is required and missing"),
        ('{"city": "Porto", "why": 1}', "answer.why: the schema knows no such property"),
        ("It is Porto.", "it is not JSON alone"),
        ('{"city": "Porto"} I think', "it is not JSON alone"),
        ('{"city": NaN}', "it is not JSON alone"),
        ("[" * 100_000, "it is not JSON alone"),
    ],
)
def test_a_wrong_answer_is_sent_back_once(bad: str, told: str) -> None:
    with serving(chat(bad, GOOD)) as server:
        assert ChatModel(server.url, "m").complete(ASK, schema=SCHEMA) == GOOD
        first, second = [payload for _, payload, _ in server.requests]
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": bad[:8000]}
    assert second["messages"][2]["role"] == "user"
    assert told in second["messages"][2]["content"]
    assert second["response_format"] == first["response_format"]


def test_the_second_wrong_answer_is_a_model_error_that_quotes_nothing() -> None:
    bad = json.dumps({"city": "Porto", SECRET: SECRET})
    with serving(chat("{}", bad, GOOD)) as server:
        with pytest.raises(ModelError, match="twice against the schema: the schema knows no such") as caught:
            ChatModel(server.url, "m").complete(ASK, schema=SCHEMA)
        assert len(server.requests) == 2
    assert SECRET not in str(caught.value)


def test_json_stands_alone_or_in_a_fence() -> None:
    for text in (GOOD, f"\n {GOOD}\n", f"```json\n{GOOD}\n```", f"```\n{GOOD}```\n"):
        assert json_of(text) == GOOD
    for text in ("```", "``````", f"```{GOOD}```", f"Well:\n```json\n{GOOD}\n```", ""):
        assert json_of(text) == text.strip()


def message(content: Any, reason: str = "stop") -> local_servers.Answer:
    body = {"choices": [{"message": {"content": content}, "finish_reason": reason}]}
    return lambda handler, payload: handler.reply(json.dumps(body).encode())


FAULTS: dict[str, tuple[local_servers.Answer, type[Exception], str]] = {
    "no choices": (lambda h, p: h.reply(b'{"choices": []}'), ModelError, "without text$"),
    "a refusal": (message(None, "content_filter"), ModelError, "filter held it back"),
    "cut to nothing": (message("", "length"), ModelError, "max_tokens was too small"),
    "a tool call": (message(None, SECRET), ModelError, "without text$"),
    "parts": (message([{"text": SECRET}]), ModelError, "not the JSON"),
    "other JSON": (lambda h, p: h.reply(json.dumps({"error": SECRET}).encode()), ModelError, "not the JSON"),
    "refused": (lambda h, p: h.reply(SECRET.encode(), 400), ModelError, "with 400"),
    "down": (lambda h, p: h.reply(b"{}", 500), ModelUnavailable, "500"),
    "too much": (lambda h, p: h.reply(b"{}", 503), Overloaded, "503"),
    "slow": (lambda h, p: time.sleep(1), DeadlineExceeded, r"within 0\.4 s"),
    "endless": (lambda h, p: h.reply(b" " * (9 << 20)), ModelError, "more than 8388608 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_fault_is_a_typed_error_and_the_next_request_works(fault: str, schema: Any) -> None:
    answer, error, words = FAULTS[fault]
    with serving(answer) as server:
        model = ChatModel(server.url, "m", timeout=0.4 if fault == "slow" else 20.0)
        with pytest.raises(error, match=words) as caught:
            model.complete([Message(role="user", content=SECRET)], schema=schema)
        assert len(server.requests) == 1
        assert SECRET not in "".join(map(str, (caught.value, caught.value.__cause__ or "")))
        server.answer = chat(GOOD)
        assert model.complete(ASK, schema=schema) == GOOD


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "text"}, "unknown type"),
        ({"$ref": "#/a"}, "not supported"),
        ([], "dict, not list"),
        ({"enum": [object()]}, "JSON has not"),
    ],
)
def test_a_schema_that_is_none_asks_nothing(schema: Any, words: str) -> None:
    with serving(chat(GOOD)) as server:
        with pytest.raises(InputError, match=words):
            ChatModel(server.url, "m").complete(ASK, schema=schema)
        for most in (0, True, 1.5, 1 << 21):
            with pytest.raises(InputError, match="max_tokens"):
                ChatModel(server.url, "m").complete(ASK, max_tokens=most)  # type: ignore[arg-type]
        assert server.requests == []


@pytest.mark.parametrize(
    "options",
    [{"response_format": "xml"}, {"response_format": []}, {"limit_name": "n"}, {"temperature": -1},
     {"temperature": True}, {"extra": [1]}, {"model_id": ""}, {"model": ""}, {"timeout": 0},
     {"parallel": 0}, {"parallel": True}, {"parallel": 1025}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        ChatModel(**{"url": "http://127.0.0.1:9", "model": "m", **options})
