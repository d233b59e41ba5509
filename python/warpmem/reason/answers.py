"""What language models have in common: the check of what is asked, and answers in JSON, with one chance to
mend them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ..errors import InputError, ModelError
from ..ops.jsonschema import Check, Violation, compile_json_schema
from ..ops.texts import check_text
from ..protocols import LanguageModel
from ..types import Message
from ..types.scalars import integer

_MAX_TOKENS: Final = 1 << 20
_MAX_QUOTED: Final = 8_000
"""Characters of a wrong answer that go back with its fault."""


class AnsweringModel(ABC):
    """Base of the language models that run elsewhere than in a script. Thread-safe if `_ask` is.

    schema_in_prompt    tell the schema in the messages, because nothing else does
    """

    def __init__(self, *, schema_in_prompt: bool) -> None:
        self._schema_in_prompt = schema_in_prompt

    @property
    @abstractmethod
    def model_id(self) -> str:
        """Names the weights."""

    @abstractmethod
    def _ask(self, messages: list[Message], schema: Mapping[str, Any] | None, max_tokens: int) -> str:
        """One answer, as the model gave it. Raises ModelError."""

    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        """The answer's text; with `schema`, JSON that follows it.

        An answer that does not is sent back once with what is wrong about it. Raises ModelError when the
        second does not either and when the model fails, InputError for messages or a schema that are none;
        behind a server also ModelUnavailable, Overloaded and DeadlineExceeded, each request by itself.
        """
        asked = check_messages(messages)
        max_tokens = integer(max_tokens, "max_tokens", 1, _MAX_TOKENS)
        if schema is None:
            return self._ask(asked, None, max_tokens)
        check, shown = _compile(schema)
        told = f"Answer with JSON that follows this JSON Schema, and with nothing else: {shown}"
        if self._schema_in_prompt:
            asked = _instructed(asked, told)
        first = json_of(self._ask(asked, schema, max_tokens))
        wrong = _fault(first, check)
        if wrong is None:
            return first
        asked += _mending(first, wrong, told)
        second = json_of(self._ask(asked, schema, max_tokens))
        wrong = _fault(second, check)
        if wrong is not None:
            # Not where: a path may hold names that the model made up of what it had read.
            raise ModelError(f"{self.model_id!r} answered twice against the schema: {wrong[1]}")
        return second


def ask_json(
    model: LanguageModel, messages: Sequence[Message], schema: Mapping[str, Any], max_tokens: int
) -> Any:
    """What a model answers, decoded, following `schema`: for models of any make.

    An answer that does not follow it goes back once with what is wrong, as AnsweringModel does, whose models
    never come to that here. Raises ModelError when the second does not either, and as the model.
    """
    check, shown = _compile(schema)
    asked = list(messages)
    reason = ""
    for _ in range(2):
        answer = model.complete(asked, schema=schema, max_tokens=max_tokens)
        if not isinstance(answer, str):
            raise ModelError(f"{model.model_id!r} answered with {type(answer).__name__}, not with a text")
        text = json_of(answer)
        wrong = _fault(text, check)
        if wrong is None:
            return msgspec.json.decode(text)
        reason = wrong[1]
        asked = [
            *messages,
            *_mending(text, wrong, f"Answer with JSON that follows this JSON Schema: {shown}"),
        ]
    raise ModelError(f"{model.model_id!r} answered twice against the schema: {reason}")


def _mending(answer: str, wrong: tuple[str, str], told: str) -> list[Message]:
    """A wrong answer and what is wrong about it, as the model gets to see them."""
    return [
        Message(role="assistant", content=answer[:_MAX_QUOTED] or "?"),
        Message(role="user", content=f"That answer is wrong: {wrong[0]}{wrong[1]}. {told}"),
    ]


def check_messages(messages: Sequence[Message]) -> list[Message]:
    """The messages as a list. Raises InputError unless they are Messages of valid Unicode, one at least."""
    if isinstance(messages, (str, bytes, Message)) or not isinstance(messages, Sequence) or not messages:
        raise InputError("messages must be a list of warpmem.Message that is not empty")
    for i, message in enumerate(messages):
        if not isinstance(message, Message):
            raise InputError(f"messages[{i}] must be a warpmem.Message, not {type(message).__name__}")
        check_text(message.role, f"the role of messages[{i}]")
        check_text(message.content, f"the content of messages[{i}]")
        if message.name is not None:
            check_text(message.name, f"the name of messages[{i}]")
    return list(messages)


def json_of(answer: str) -> str:
    """An answer without what stands around its JSON: white space, and the fence of a Markdown block."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") + 1 : -3].strip()
    return text


def object_schema(**properties: Any) -> dict[str, Any]:
    """The JSON Schema of an object with these properties, all of them and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _compile(schema: Mapping[str, Any]) -> tuple[Check, str]:
    if not isinstance(schema, Mapping):
        raise InputError(f"schema must be a JSON Schema as a dict, not {type(schema).__name__}")
    check = compile_json_schema(schema, "schema")
    try:
        return check, msgspec.json.encode(schema).decode()
    except (TypeError, ValueError) as error:
        raise InputError("schema holds values that JSON has not") from error


def _fault(answer: str, check: Check) -> tuple[str, str] | None:
    """(where, what is wrong), or None."""
    try:
        check(msgspec.json.decode(answer), "answer")
    except Violation as violation:
        return f"{violation.path}: ", violation.reason
    except (ValueError, RecursionError):
        return "", "it is not JSON alone"
    return None


def _instructed(messages: list[Message], instruction: str) -> list[Message]:
    """The messages with an instruction at the end of the leading system message, the only one that every
    chat template takes."""
    first = messages[0]
    if first.role == "system":
        together = msgspec.structs.replace(first, content=f"{first.content}\n\n{instruction}")
        return [together, *messages[1:]]
    return [Message(role="system", content=instruction), *messages]
