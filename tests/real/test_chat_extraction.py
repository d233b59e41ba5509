"""A conversation of the suite, read by SmolLM2-135M behind llama.cpp's server. What the model makes of it is
not judged: each window is read whole or refused with a reason and waits, and no message is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import programs
import pytest

import warpmem
from conversations import Conversation, conversations
from warpmem import Memory
from warpmem.errors import ModelError, ModelUnavailable
from warpmem.reason.chat import ChatModel
from warpmem.reason.extraction import KINDS
from warpmem.types import Message

pytestmark = pytest.mark.real

_USER = "ann"
_MOST_TOKENS = {"none": 32, "json_schema": 192}
"""Of an answer; a small model that repeats itself would go on to the 4,096 that it may have."""


class Call(NamedTuple):
    """Of one window: what the model answered, in one try or two, and the error, if any."""

    answers: list[str]
    error: ModelError | None


class Telling(ChatModel):
    """Notes what comes of its calls. asked: set once the server has been asked."""

    def __init__(self, url: str, response_format: Any) -> None:
        super().__init__(
            f"{url}/v1", "smollm2", response_format=response_format, model_id=f"smollm2, {response_format}",
            timeout=120, extra={"seed": 1},
        )  # fmt: skip
        self._most = _MOST_TOKENS[response_format]
        self.calls: list[Call] = []
        self.asked = threading.Event()
        self._answers: list[str] = []

    def complete(self, messages: Any, **options: Any) -> str:
        self._answers = []
        error = None
        try:
            return super().complete(messages, **options)
        except ModelError as raised:
            error = raised
            raise
        finally:
            self.calls.append(Call(self._answers, error))

    def _ask(self, messages: list[Message], schema: Mapping[str, Any] | None, max_tokens: int) -> str:
        self.asked.set()
        answer = super()._ask(messages, schema, min(max_tokens, self._most))
        self._answers.append(answer)
        return answer


def said_in(talk: Conversation, session: int, count: int) -> list[dict[str, Any]]:
    """The first messages of a session."""
    return [{"role": one.role, "content": one.text, "at": one.at} for one in talk.sessions[session][:count]]


class Watched:
    """A store, with what was said to it. Nothing of it may be lost, or read by halves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.said: dict[str, str] = {}
        self.read: set[str] = set()

    @property
    def waiting(self) -> int:
        return len(self.said) - len(self.read)

    def hear(self, memory: Memory, window: list[dict[str, Any]], *, wait: bool = False) -> ModelError | None:
        """Add the messages; the error with which the model did not read them."""
        known, error = set(self.said), None
        try:
            memory.add(window, user_id=_USER, infer="llm", wait=wait)
        except ModelError as raised:
            error = raised
        items = memory.list(user_id=_USER, kinds=["message"], limit=1000)
        self.said |= {item.id: item.text for item in items}
        new = set(self.said) - known
        assert sorted(self.said[one] for one in new) == sorted(one["content"] for one in window)
        if wait and error is None:
            self.read |= new
        return error

    def go_on(self, memory: Memory) -> bool:
        """Have all that waits read, which is one window; whether it was."""
        done = memory.extract_pending()
        assert done in (0, self.waiting), "a window was read by halves"
        if done:
            self.read = set(self.said)
        return done > 0

    def check(self, memory: Memory) -> None:
        """Each message is there as it was said; memories are of those that were read; the others wait."""
        items = memory.list(user_id=_USER, limit=1000, include_past=True)
        assert {item.id: item.text for item in items if item.kind == "message"} == self.said
        for item in items:
            if item.kind != "message":
                assert item.kind in (*KINDS, "relation") and item.scope.user_id == _USER
                assert item.sources and self.read.issuperset(item.sources)
        assert memory.stats().pending["extract"].waiting == self.waiting

    def opened(self, model: ChatModel) -> Memory:
        return warpmem.open(self._path, embedder="hashing", language_model=model, background_work=False)


def was_refused(model: Telling) -> bool:
    """Whether the last window was, and if so after it had been asked for twice."""
    call = model.calls[-1]
    if call.error is None:
        return False
    assert type(call.error) is ModelError and "answered twice against the schema" in str(call.error)
    assert len(call.answers) == 2
    return True


def test_each_window_is_read_whole_or_refused_and_waits(llama: programs.Program, tmp_path: Path) -> None:
    talk = next(conversations(1, seed=7))
    store = Watched(tmp_path / "store")

    loose = Telling(llama.url, "none")  # nothing holds it to the schema
    with store.opened(loose) as memory:
        assert store.hear(memory, said_in(talk, 0, 2)) is None and not loose.calls
        assert store.go_on(memory) is not was_refused(loose)
        assert memory.stats().pending["extract"].refused == store.waiting
        store.check(memory)

    held = Telling(llama.url, "json_schema")

    def kill() -> None:
        held.asked.wait(60)
        time.sleep(0.3)
        llama.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with store.opened(held) as memory:  # its server dies in the middle of an answer
        error = store.hear(memory, said_in(talk, 1, 1), wait=True)
        killer.join()
        assert type(error) is ModelUnavailable
        store.check(memory)
    llama.start()

    with store.opened(held) as memory:
        error = store.hear(memory, said_in(talk, 2, 2), wait=True)
        assert (error is not None) is was_refused(held)
        store.check(memory)
        if store.waiting:
            assert store.go_on(memory) is not was_refused(held)
        store.check(memory)
    assert store.read, [call.answers for call in held.calls]
    assert warpmem.verify(tmp_path / "store").ok
