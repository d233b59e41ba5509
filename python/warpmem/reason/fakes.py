"""Shipped fakes of the language model and the reranker: deterministic, offline, for tests and dry runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, WarpmemError
from ..types import Message
from .answers import check_messages
from .scores import check_pairs

_WORD = re.compile(r"\w+")


class Call(msgspec.Struct, frozen=True):
    """One recorded call of ScriptedLanguageModel.complete."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None
    max_tokens: int


class ScriptedLanguageModel:
    """Language model that gives the scripted answers one after the other. Thread-safe.

    An answer that is a WarpmemError is raised in its turn. `calls` holds every call made, also failed ones.
    Raises ModelError when the script is used up.
    """

    model_id = "scripted"

    def __init__(self, answers: Sequence[str | WarpmemError]) -> None:
        self._answers = tuple(answers)
        self._lock = threading.Lock()
        self.calls: list[Call] = []

    def complete(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None, max_tokens: int = 1024
    ) -> str:
        asked = tuple(check_messages(messages))
        with self._lock:
            turn = len(self.calls)
            self.calls.append(Call(asked, schema, max_tokens))
        if turn >= len(self._answers):
            raise ModelError(f"the script has {len(self._answers)} answers, and this is call {turn + 1}")
        answer = self._answers[turn]
        if isinstance(answer, WarpmemError):
            raise answer
        return answer


class OverlapReranker:
    """Reranker by shared words: the part of the query's distinct words that the text has, in [0, 1]."""

    model_id = "overlap"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        checked = check_pairs(query, texts)
        wanted = _words(query)
        scores = [len(wanted & _words(text)) / len(wanted) if wanted else 0.0 for text in checked]
        return np.array(scores, dtype=np.float32)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
