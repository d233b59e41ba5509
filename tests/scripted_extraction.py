"""A language model that answers from what it is shown, by a function of the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from warpmem import Message

Shown = dict[str, list[dict[str, Any]]]
"""{"messages": [{"number", "speaker", "at", "day", "text"}], "known": [{"number", "kind", "since", "text"}]},
the latter with "from" and "to" where it is known when it happened."""


class ReadingModel:
    """Gives `read` what the store shows, and answers with what it returns: JSON, or a string as it is.

    shown: all that was shown, call by call. asked: how many messages each call had. told: their system
    messages. schemas: of their answers.
    """

    model_id = "reading"

    def __init__(self, read: Callable[[Shown], Any]) -> None:
        self._read = read
        self.shown: list[Shown] = []
        self.asked: list[int] = []
        self.told: list[str] = []
        self.schemas: list[Any] = []

    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        data: Shown = msgspec.json.decode(messages[1].content)
        self.shown.append(data)
        self.asked.append(len(messages))
        self.told.append(messages[0].content)
        self.schemas.append(schema)
        answer = self._read(data)
        return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


def memory(text: str, message: int = 1, **fields: Any) -> dict[str, Any]:
    """One memory of an answer."""
    return {"text": text, "kind": "fact", "message": message, **fields}
