"""Faults in what is made of items between finding out what was derived from them and removing them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import warpmem
from scripted_extraction import ReadingModel
from scripted_extraction import memory as told
from warpmem import Memory

WEB = "web:example.org"
CODE = "The door code is 4711"


class Gate(ReadingModel):
    """Answers, and says when."""

    def __init__(self) -> None:
        super().__init__(lambda shown: {"memories": [told(CODE, one["number"]) for one in shown["messages"]]})
        self.answered = threading.Event()

    def complete(self, *arguments: Any, **options: Any) -> str:
        answer = super().complete(*arguments, **options)
        self.answered.set()
        return answer


@pytest.fixture
def model() -> Gate:
    return Gate()


@pytest.fixture
def memory(model: Gate) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", language_model=model, background_work=False) as memory:
        yield memory


def add(memory: Memory, text: str, *sources: str, **options: Any) -> str:
    result = memory.add(text, user_id="u", sources=sources, **options)
    assert isinstance(result, warpmem.AddResult)
    return result.id


def meanwhile(memory: Memory, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have the next erasure act when it knows what was derived."""
    erasures: Any = memory._log.erasures
    derived = erasures.derived

    def then(*arguments: Any) -> Any:
        found = derived(*arguments)
        monkeypatch.undo()
        act()
        return found

    monkeypatch.setattr(erasures, "derived", then)


@pytest.mark.parametrize("origins", [(), (WEB,)])
def test_a_memory_that_a_model_is_making_of_an_erased_message_is_not_stored(
    memory: Memory, model: Gate, monkeypatch: pytest.MonkeyPatch, origins: tuple[str, ...]
) -> None:
    """It came after what was derived had been looked for, and stayed."""
    page = add(memory, "my door code is 4711", *origins, infer="llm")
    reading = threading.Thread(target=memory.extract_pending)

    def read() -> None:
        reading.start()
        assert model.answered.wait(30)
        reading.join(0.2)  # it is about to store what it was told, or has done so

    meanwhile(memory, monkeypatch, read)
    receipt = memory.erase([page])
    reading.join(30)
    assert (receipt.derived, receipt.kept) == ((), ())
    assert not memory.list(user_id="u", include_past=True).items
    assert memory.stats().pending["extract"].waiting == 0


def test_what_is_added_of_it_while_an_item_is_erased_goes_too(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed, and the receipt did not say so."""
    page, book = add(memory, "A page"), add(memory, "A book")
    late: list[str] = []

    def act() -> None:
        late.append(add(memory, "Of the page", page))
        late.append(add(memory, "Of what is of the page", late[0]))
        late.append(add(memory, "Of both of these", page, late[0]))
        late.append(add(memory, "Of the page and a book", page, book))
        late.append(add(memory, "Of the page and of an origin", page, WEB))

    meanwhile(memory, monkeypatch, act)
    receipt = memory.erase([page])
    assert set(receipt.derived) == set(late[:3]) and receipt.kept == tuple(sorted(late[3:]))
    assert receipt.items == 4
    assert {item.id for item in memory.list(user_id="u")} == {book, *late[3:]}
    assert [memory.get(item_id).sources for item_id in late[3:]] == [(book,), (WEB,)]


def test_what_is_added_of_it_while_an_item_is_erased_is_kept_on_demand(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = add(memory, "A page")
    late: list[str] = []
    meanwhile(memory, monkeypatch, lambda: late.append(add(memory, "Of the page", page)))
    receipt = memory.erase([page], derived="keep")
    assert (receipt.derived, receipt.kept) == ((), tuple(late))
    assert memory.get(late[0]).sources == ()
