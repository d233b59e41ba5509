"""add_document: chunks that are the document, and editions that change what changed."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

import warpmem
from warpmem import AddResult, DocumentResult, Memory, Scope
from warpmem.errors import InputError, InvalidScope, InvalidText
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)
GUIDE = """# Guide

Words that open the guide.

## Install

Run the installer and wait until it has ended.

## Use

Open the program.

## Remove

Delete the folder.
"""


def stored(memory: Memory, result: DocumentResult) -> list[str]:
    return [memory.get(item_id).text for item_id in result.chunks]


def test_the_chunks_are_the_document(memory: Memory) -> None:
    result = memory.add_document(
        GUIDE, name="guide.md", corpus_id="docs", metadata={"lang": "en"}, priority=0.75
    )
    assert "".join(stored(memory, result)) == GUIDE
    assert (result.added, result.superseded, result.moved, result.removed) == (4, 0, 0, 0)
    for item_id in result.chunks:
        item = memory.get(item_id)
        place = item.metadata["document"]
        assert GUIDE[place["start"] : place["end"]] == item.text and place["name"] == "guide.md"
        assert (item.kind, item.priority, item.metadata["lang"]) == ("document", 0.75, "en")
        assert item.sources == (result.id,)
    paths = [memory.get(item_id).metadata["document"]["path"] for item_id in result.chunks]
    assert paths == [["Guide"], ["Guide", "Install"], ["Guide", "Use"], ["Guide", "Remove"]]
    whole = memory.get(result.id)
    assert whole.text.split("\n") == ["guide.md", "Guide", "Guide > Install", "Guide > Use", "Guide > Remove"]
    (hit,) = memory.search("installer wait ended", corpus_id="docs", k=1)
    assert hit.item.id == result.chunks[1]


def test_the_same_text_again_changes_nothing(memory: Memory, clock: FixedClock) -> None:
    first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    sequence = memory.stats().sequence
    clock.advance(DAY)
    again = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    assert (again.id, again.chunks) == (first.id, first.chunks)
    assert (again.added, again.superseded, again.moved, again.removed) == (0, 0, 0, 0)
    assert memory.stats().sequence == sequence


def test_an_edition_supersedes_what_changed_and_no_more(memory: Memory, clock: FixedClock) -> None:
    first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")

    clock.advance(DAY)
    text = GUIDE.replace("Open the program.", "Start the program from the menu.").replace(
        "Words", "Many words"
    )
    text = text[: text.index("## Remove")] + "## Help\n\nAsk somebody.\n"
    second = memory.add_document(text, name="guide.md", corpus_id="docs")
    assert second.id == first.id and "".join(stored(memory, second)) == text
    assert (second.added, second.superseded, second.moved, second.removed) == (0, 3, 1, 0)
    assert second.chunks[1] == first.chunks[1] and not set(second.chunks) & {
        first.chunks[0],
        *first.chunks[2:],
    }
    place = memory.get(second.chunks[1]).metadata["document"]
    assert text[place["start"] : place["end"]] == memory.get(second.chunks[1]).text
    assert memory.history(first.chunks[1])[-1].reason == "its document was changed elsewhere"
    texts = [hit.item.text for hit in memory.search("open the program", corpus_id="docs", kinds=["document"])]
    assert not any("Open the program." in found for found in texts)
    then = memory.get(first.chunks[0]).valid_from
    assert any(
        "Open the program." in hit.item.text
        for hit in memory.search("open the program", corpus_id="docs", as_of=then)
    )


def test_what_is_gone_ends_and_its_number_is_used_again(memory: Memory, clock: FixedClock) -> None:
    first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    clock.advance(DAY)
    short = GUIDE[: GUIDE.index("## Use")]
    second = memory.add_document(short, name="guide.md", corpus_id="docs")
    assert (second.chunks, second.removed) == (first.chunks[:2], 2)
    assert memory.history(first.chunks[3])[-1].reason == "it is no longer in its document"
    clock.advance(DAY)
    third = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    assert (third.added, third.superseded, "".join(stored(memory, third))) == (2, 0, GUIDE)
    assert memory.get(third.id).metadata["document"]["numbers"] == 4
    assert memory.count(corpus_id="docs") == 5
    assert memory.count(corpus_id="docs", include_past=True) == 7


def test_chunks_that_were_put_elsewhere_are_not_stored_again(memory: Memory, clock: FixedClock) -> None:
    parts = [
        f"Paragraph {word} says something of its own.\n\n" for word in ("one", "two", "three", "four", "five")
    ]
    first = memory.add_document("".join(parts), name="n", user_id="u", max_tokens=24)
    assert len(first.chunks) == 5
    clock.advance(DAY)
    moved = [parts[4], *parts[:4]]
    second = memory.add_document("".join(moved), name="n", user_id="u", max_tokens=24)
    assert second.chunks == (first.chunks[4], *first.chunks[:4])
    assert (second.added, second.superseded, second.moved) == (0, 0, 5)
    third = memory.add_document(
        "New one first of all.\n\n" + "".join(moved), name="n", user_id="u", max_tokens=24
    )
    assert (third.added, third.superseded, third.chunks[1:]) == (1, 0, second.chunks)


def test_a_chunk_that_was_deleted_comes_back_with_the_next_edition(memory: Memory) -> None:
    first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    memory.delete(first.chunks[2])
    second = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    assert second.added == 1 and "".join(stored(memory, second)) == GUIDE


def test_erasing_the_whole_erases_its_chunks(memory: Memory) -> None:
    memory.add("A note of its own.", corpus_id="docs")
    result = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    receipt = memory.erase([result.id])
    assert set(receipt.derived) == set(result.chunks) and memory.count(corpus_id="docs") == 1


def test_deleting_the_whole_deletes_its_chunks_of_every_edition(memory: Memory, clock: FixedClock) -> None:
    """They stayed, also beside those of the next document of that name."""
    first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    other = memory.add_document(GUIDE, name="other.md", corpus_id="docs")
    own = memory.add("A note of its own.", corpus_id="docs", key="guide.md#9")
    assert isinstance(own, AddResult)
    clock.advance(DAY)
    changed = GUIDE.replace("Open the program", "Start the program")
    second = memory.add_document(changed, name="guide.md", corpus_id="docs")
    memory.update(second.chunks[3], trust=0.0)
    clock.advance(DAY)
    memory.delete(second.id)
    deleted = {second.id, *first.chunks, *second.chunks}
    assert len(deleted) == 6 and not any(memory.get_many(list(deleted)))
    assert memory.history(second.chunks[1])[-1].reason == "its document was deleted"
    left = memory.list(corpus_id="docs", include_past=True, quarantined=True).items
    assert {item.id for item in left} == {other.id, *other.chunks, own.id}
    third = memory.add_document("# Guide\n\nShort.\n", name="guide.md", corpus_id="docs")
    assert memory.count(corpus_id="docs") == 1 + 5 + 1 + len(third.chunks)


def test_an_item_that_only_looks_like_a_document_is_deleted_alone(memory: Memory) -> None:
    said = {"document": {"name": "n", "numbers": 10**12}}
    item = memory.add("No document", user_id="u", key="n", metadata=said)
    note = memory.add("A note", user_id="u", key="n#0")
    assert isinstance(item, AddResult) and isinstance(note, AddResult)
    memory.delete(item.id)
    assert [one.id for one in memory.list(user_id="u")] == [note.id]


def test_scopes_and_names_keep_documents_apart(memory: Memory) -> None:
    results = [
        memory.add_document(GUIDE, name=name, scope=scope)
        for scope in (
            Scope(corpus_id="a"),
            Scope(corpus_id="b"),
            Scope(user_id="u"),
            Scope(user_id="u", agent_id="x"),
        )
        for name in ("one.md", "two.md")
    ]
    assert len({result.id for result in results}) == 8
    assert all(result.added == 4 for result in results)


def test_a_file_is_read_by_its_path(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "service.log"
    file.write_bytes("\ufeff2026-01-31 10:00:00 INFO start\n2026-01-31 10:00:05 ERROR no disk\n".encode())
    result = memory.add_document(file, corpus_id="logs")
    (item,) = (memory.get(item_id) for item_id in result.chunks)
    assert (item.modality, item.key, item.text[:10]) == ("log", f"{file}#0", "2026-01-31")
    place = item.metadata["document"]
    assert (place["level"], place["time"]) == ("error", "2026-01-31 10:00:00")
    assert (
        memory.search("disk", corpus_id="logs", filters={"metadata.document.level": "error"})[0].item == item
    )


def test_what_cannot_be_a_document_is_refused_and_stores_nothing(memory: Memory, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"caf\xe9")
    memory.add("taken", corpus_id="docs", key="taken")
    before = memory.stats().sequence
    for error, arguments in (
        (InvalidText, {"content": " \n ", "name": "n"}),
        (InvalidText, {"content": "\ud800", "name": "n"}),
        (InvalidText, {"content": bad}),
        (InputError, {"content": tmp_path / "none"}),
        (InputError, {"content": tmp_path}),
        (InputError, {"content": b"bytes", "name": "n"}),
        (InputError, {"content": "text"}),
        (InputError, {"content": "text", "name": "n#1"}),
        (InputError, {"content": "text", "name": "taken"}),
        (InputError, {"content": "text", "name": "n", "format": "pdf"}),
        (InputError, {"content": "text", "name": "n", "max_tokens": 7}),
        (InputError, {"content": "text", "name": "n", "metadata": {"document": 1}}),
        (InputError, {"content": "a. " * 40_000, "name": "n", "max_tokens": 8}),
        (InvalidScope, {"content": "text", "name": "n", "user_id": "u"}),
    ):
        with pytest.raises(error):
            memory.add_document(**{"corpus_id": "docs", **arguments})  # type: ignore[arg-type]
    assert memory.stats().sequence == before


def test_editions_at_the_same_time_are_one_after_the_other(memory: Memory) -> None:
    texts = ["".join(f"Line {n} of edition {edition}.\n\n" for n in range(5)) for edition in range(4)]
    memory.add_document(GUIDE, name="n", user_id="u", max_tokens=24)

    def write(text: str) -> None:
        memory.add_document(text, name="n", user_id="u", max_tokens=24)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = memory.list(user_id="u", filters={"key": "n"}).items[0]
    items = memory.list(user_id="u", filters={"sources": {"contains": whole.id}}, limit=1000).items
    ordered = sorted(items, key=lambda item: item.metadata["document"]["start"])
    assert "".join(item.text for item in ordered) in texts


def test_a_document_survives_a_reopening(tmp_path: Path, clock: FixedClock) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        first = memory.add_document(GUIDE, name="guide.md", corpus_id="docs")
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        second = memory.add_document(GUIDE.replace("Words", "Phrases"), name="guide.md", corpus_id="docs")
        assert (second.superseded, second.moved, second.chunks[1:]) == (1, 3, first.chunks[1:])
    assert warpmem.verify(tmp_path / "store").ok
