"""Any server with OpenAI's `/v1/chat/completions`: vLLM, llama.cpp, NIM, Ollama, and OpenAI itself.

The API: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from ..errors import InputError, ModelError
from ..ops.http import Endpoint
from ..ops.texts import check_not_empty
from ..types import Message
from ..types.scalars import float_of, integer
from .answers import AnsweringModel

ResponseFormat = Literal["json_schema", "json_object", "none"]
LimitName = Literal["max_tokens", "max_completion_tokens"]

_MOST = 1024
_ENDED = {"length": "; max_tokens was too small", "content_filter": "; the server's filter held it back"}


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Text
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


class ChatModel(AnsweringModel):
    """Language model behind `url` + "/chat/completions".

    url              with the version, for example "http://127.0.0.1:8000/v1"
    model            the server's name for the model
    response_format  how the server is told of a schema: "json_schema"; "json_object" for those that only know
                     JSON; "none" for those that know neither. The last two are told it in the messages too
    strict           of "json_schema": the server holds the model to it, and takes only some schemas
    temperature      None leaves it to the server
    limit_name       under which name the server takes the most tokens of an answer
    extra            other fields of every request, like {"seed": 1}
    model_id         None: made of `model`
    timeout          seconds for one request; an answer that is mended takes two
    parallel         of how many owners memories are made at a time in the background

    The others are those of ops/http.py's Endpoint. Whatever the server makes of the schema, each answer is
    checked here.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        response_format: ResponseFormat = "json_schema",
        strict: bool = False,
        temperature: float | None = 0.0,
        limit_name: LimitName = "max_tokens",
        extra: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        timeout: float = 60.0,
        parallel: int = 8,
        key_env: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        networks: Sequence[str] = (),
    ) -> None:
        for name, value, known in (
            ("response_format", response_format, get_args(ResponseFormat)),
            ("limit_name", limit_name, get_args(LimitName)),
        ):
            if not isinstance(value, str) or value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}")
        heat = float_of(temperature)
        if temperature is not None and (heat is None or not 0 <= heat <= 10):
            raise InputError("temperature must be a number from 0 to 10, or None")
        if extra is not None and not isinstance(extra, Mapping):
            raise InputError(f"extra must be a dict, not {type(extra).__name__}")
        super().__init__(schema_in_prompt=response_format != "json_schema")
        self._endpoint = Endpoint(
            url,
            timeout=timeout,
            key_env=key_env,
            key_file=key_file,
            ca_file=ca_file,
            networks=networks,
            max_bytes=8 << 20,
        )
        self._request: dict[str, Any] = {**(extra or {}), "model": check_not_empty(model, "model")}
        if temperature is not None:
            self._request["temperature"] = heat
        self.parallel = integer(parallel, "parallel", 1, _MOST)
        self._format = response_format
        self._strict = bool(strict)
        self._limit_name = limit_name
        self._model_id = f"openai:{model}" if model_id is None else check_not_empty(model_id, "model_id")

    @property
    def model_id(self) -> str:
        return self._model_id

    def _ask(self, messages: list[Message], schema: Mapping[str, Any] | None, max_tokens: int) -> str:
        request = {
            **self._request,
            "messages": [_fields(message) for message in messages],
            self._limit_name: max_tokens,
        }
        if schema is not None and self._format == "json_schema":
            named = {"name": "answer", "schema": schema, "strict": self._strict}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        elif schema is not None and self._format == "json_object":
            request["response_format"] = {"type": "json_object"}
        choices = self._endpoint.post("/chat/completions", request, _Answer).choices
        if not choices or not choices[0].message.content:
            why = _ENDED.get(choices[0].finish_reason or "", "") if choices else ""
            raise ModelError(f"{self._model_id!r} answered without text{why}")
        return choices[0].message.content


def _fields(message: Message) -> dict[str, str]:
    fields = {"role": message.role, "content": message.content}
    return fields if message.name is None else {**fields, "name": message.name}
