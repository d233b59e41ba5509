"""Faults where an item would have more sources than it may: the last was left out without a word, so that
neither revoking nor erasing it reached what it had said."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import warpmem
from scripted_extraction import ReadingModel, Shown
from scripted_extraction import memory as told
from warpmem import AddResult, Memory, NewItem
from warpmem.config import MAX_NAMES
from warpmem.errors import InputError

FULL = tuple(f"s{n}" for n in range(MAX_NAMES))
MOST = FULL[:-1]
SAID = {"role": "user", "content": "My door code is 4711."}


@pytest.fixture
def memory() -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", near_duplicate=0.3) as memory:
        yield memory


def add(memory: Memory, text: str, *sources: str, kind: str = "fact") -> AddResult:
    result = memory.add(text, user_id="u", sources=sources, kind=kind)
    assert isinstance(result, AddResult)
    return result


def test_chunks_of_a_document_with_as_many_sources_as_it_may_have_name_all(memory: Memory) -> None:
    stored = memory.add_document("The door code is 4711.\n", name="h.md", user_id="u", sources=MOST)
    assert [memory.get(chunk).sources for chunk in stored.chunks] == [(stored.id, *MOST)]
    memory.revoke(MOST[-1])
    assert {memory.get(item_id).trust for item_id in (stored.id, *stored.chunks)} == {0.0}


def test_statements_of_a_message_with_as_many_sources_as_it_may_have_name_all(memory: Memory) -> None:
    memory.add([SAID], user_id="u", sources=MOST, infer="rules")
    (fact,) = memory.list(user_id="u", kinds=["fact"])
    assert fact.sources[1:] == MOST
    memory.revoke(MOST[-1])
    assert {item.trust for item in memory.list(user_id="u", quarantined=True)} == {0.0}


def note(memory: Memory) -> str:
    return add(memory, "A message", kind="message").id


@pytest.mark.parametrize(
    "give",
    [
        lambda m: m.add([SAID], user_id="u", sources=FULL),
        lambda m: m.add(NewItem(text="Said", kind="message", sources=MOST), user_id="u", sources=FULL[-1:]),
        lambda m: m.add("I live in Oslo.", user_id="u", kind="note", sources=FULL, infer="rules"),
        lambda m: m.add_document("A text.\n", name="h.md", user_id="u", sources=FULL),
        lambda m: m.update(note(m), sources=FULL),
    ],
    ids=["message", "default", "inferred", "document", "update"],
)
def test_what_others_are_made_of_leaves_room_for_itself(
    memory: Memory, give: Callable[[Memory], object]
) -> None:
    with pytest.raises(InputError, match=f"sources may hold {MAX_NAMES - 1} entries, not {MAX_NAMES}"):
        give(memory)
    assert all(not item.sources for item in memory.list(user_id="u"))


def test_a_near_duplicate_of_an_item_without_room_is_stored_apart(memory: Memory) -> None:
    full = add(memory, "the door code of the office is seven", *FULL)
    page = note(memory)
    other = add(memory, "the door code of the office is certainly seven", page)
    assert other.action == "added" and memory.get(other.id).sources == (page,)
    assert memory.erase([page]).derived == (other.id,)
    assert memory.get(full.id).text == "the door code of the office is seven"
    known = add(memory, "the door code of the office is truly seven", FULL[0])
    assert (known.action, known.id) == ("merged", full.id)


def test_a_repeated_relation_without_room_is_stored_apart(memory: Memory) -> None:
    full = memory.relate("Ann", "works at", "Acme", user_id="u", sources=FULL)
    other = memory.relate("Ann", "works at", "Acme", user_id="u", sources=["web"])
    third = memory.relate("Ann", "works at", "Acme", user_id="u", sources=["book"])
    assert (other.action, third.action, third.id) == ("added", "touched", other.id)
    assert memory.get(other.id).sources == ("web", "book")
    assert memory.relate("Ann", "works at", "Acme", user_id="u", sources=FULL[:1]).id == full.id


@pytest.mark.parametrize(("verdict", "ended"), [("same", False), ("contradicts", True)])
def test_a_claim_about_an_item_without_room_is_stored_apart(verdict: str, ended: bool) -> None:
    text = "The door code of the office is 4711"

    def read(shown: Shown) -> object:
        number = next(one["number"] for one in shown["known"] if one["text"] == text)
        return {"memories": [told(f"{text} now", verdict=verdict, item=number)]}

    with warpmem.open(embedder="hashing", language_model=ReadingModel(read)) as memory:
        full = add(memory, text, *FULL).id
        said = memory.add([{"role": "user", "content": text}], user_id="u", infer="llm", wait=True)
        assert isinstance(said, tuple)
        (claim,) = [item for item in memory.list(user_id="u") if item.text == f"{text} now"]
        assert claim.id != full and claim.sources == (said[0].id,)
        assert memory.get(full).sources == FULL and (memory.get(full).valid_to is not None) == ended


def test_an_item_without_room_for_itself_is_refused_to_the_model() -> None:
    model = ReadingModel(lambda shown: {"memories": [told("A fact")]})
    with warpmem.open(embedder="hashing", language_model=model) as memory:
        full = add(memory, "The door code is 4711", *FULL).id
        with pytest.raises(InputError, match="sources may hold"):
            memory.extract([full])
        assert not model.shown
