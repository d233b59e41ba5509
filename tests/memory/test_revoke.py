"""revoke and reinstate: what a source said is hidden, and comes back as it was."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import InputError, StoreReadOnly
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)
WEB = "web:example.org"


def add(memory: Memory, text: str, user: str = "u", **fields: object) -> str:
    result = memory.add(NewItem(text=text, **fields), user_id=user)  # type: ignore[arg-type]
    assert isinstance(result, warpmem.AddResult)
    return result.id


def texts(memory: Memory, user: str = "u") -> list[str]:
    return [item.text for item in memory.list(user_id=user)]


def test_what_a_source_said_is_hidden_and_comes_back(memory: Memory, clock: FixedClock) -> None:
    mine = add(memory, "Ann lives in Porto")
    his = add(memory, "Ann lives in Oslo", sources=[WEB], trust=0.75)
    other = add(memory, "Ben lives in Rome", "v", sources=["tool", WEB])
    clock.advance(DAY)
    assert memory.revoke(WEB) == 2
    assert memory.revoked() == (WEB,)
    assert (texts(memory), texts(memory, "v")) == (["Ann lives in Porto"], [])
    assert [hit.item.id for hit in memory.search("Ann lives", user_id="u")] == [mine]
    history = memory.history(his)
    assert [(entry.operation, entry.reason) for entry in history] == [
        ("add", None), ("update", "its source was revoked"),
    ]  # fmt: skip
    assert memory.revoke(WEB) == 0
    clock.advance(DAY)
    assert memory.reinstate(WEB) == 2
    assert memory.revoked() == ()
    assert memory.get(his).trust == 0.75 and memory.get(other).trust == 1.0
    assert texts(memory) == ["Ann lives in Porto", "Ann lives in Oslo"]
    assert memory.reinstate(WEB) == 0


def test_what_comes_later_is_hidden_at_once_and_comes_back(memory: Memory, clock: FixedClock) -> None:
    home = add(memory, "Home is Porto", key="home")
    memory.revoke(WEB)
    clock.advance(DAY)
    false = add(memory, "Home is Oslo", key="home", sources=[WEB], trust=0.75)
    assert add(memory, "home is oslo", key="home", sources=[WEB]) == false
    assert texts(memory) == ["Home is Porto"] and memory.get(home).valid_to is None
    then = memory.get(false).recorded_at
    assert [hit.item.id for hit in memory.search("home", user_id="u", known_at=then)] == [home]
    clock.advance(DAY)
    assert memory.reinstate(WEB) == 1
    assert memory.get(false).trust == 0.75 and texts(memory) == ["Home is Oslo"]
    assert memory.get(home).valid_to == memory.get(false).valid_from


def test_the_value_that_it_had_superseded_comes_back(memory: Memory, clock: FixedClock) -> None:
    add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    add(memory, "Home is Oslo", key="home", sources=[WEB])
    assert texts(memory) == ["Home is Oslo"]
    memory.revoke(WEB)
    assert texts(memory) == ["Home is Porto"]
    memory.reinstate(WEB)
    assert texts(memory) == ["Home is Oslo"]


def test_what_was_derived_from_it_alone_goes_too(memory: Memory) -> None:
    page = add(memory, "The page says Oslo", sources=[WEB])
    mine = add(memory, "Ann says Porto")
    summary = add(memory, "Oslo it is", sources=[page])
    deeper = add(memory, "So Oslo", sources=[summary, WEB])
    both = add(memory, "Oslo or Porto", sources=[page, mine])
    assert memory.revoke(WEB) == 3
    hidden = [item_id for item_id in (page, mine, summary, deeper, both) if memory.get(item_id).quarantined]
    assert hidden == [page, summary, deeper]
    assert memory.reinstate(WEB) == 3
    assert not any(memory.get(item_id).quarantined for item_id in hidden)


def test_what_is_derived_from_what_is_not_believed_is_not_either(memory: Memory) -> None:
    """It was believed, whatever its sources were, unless these were revoked after it had come."""
    page = add(memory, "The page says Oslo", sources=[WEB])
    doubted = add(memory, "A stranger says Oslo", trust=0.25)
    half = add(memory, "Ben thinks Oslo", "v", trust=0.75)
    assert memory.get(add(memory, "Oslo from both", sources=[doubted, half])).trust == 0.75
    assert memory.get(add(memory, "Oslo from the page too", sources=[doubted, page])).trust == 1.0
    assert memory.get(add(memory, "Oslo from elsewhere", sources=[doubted, "tool"])).trust == 1.0
    alone = add(memory, "Oslo from him", sources=[doubted])
    assert [(one.item.trust, one.reason) for one in memory.history(alone) if one.item] == [
        (1.0, None), (0.25, "its sources are trusted less"),
    ]  # fmt: skip
    assert memory.get(add(memory, "Oslo still", sources=[doubted], trust=0.125)).trust == 0.125
    memory.revoke(WEB)
    summary = add(memory, "Oslo it is", key="home", sources=[page], trust=0.75)
    deeper = add(memory, "So Oslo", sources=[summary, doubted])
    assert (memory.get(summary).trust, memory.get(deeper).trust) == (0.0, 0.25)
    moved = add(memory, "Oslo by nobody")
    assert memory.update(moved, sources=[page]).quarantined
    assert memory.update(moved, trust=1.0).trust == memory.update(moved, priority=0.25).trust == 1.0
    memory.reinstate(WEB)
    assert (memory.get(page).trust, memory.get(summary).trust, memory.get(alone).trust) == (1.0, 0.75, 0.25)


def test_what_came_from_a_doubted_page_is_reinstated_no_higher_than_the_page(memory: Memory) -> None:
    page = add(memory, "The page says Oslo", sources=[WEB], trust=0.25)
    memory.revoke(WEB)
    summary = add(memory, "Oslo it is", sources=[page])
    memory.reinstate(WEB)
    assert (memory.get(page).trust, memory.get(summary).trust) == (0.25, 0.25)


def test_two_revoked_sources_are_reinstated_one_by_one(memory: Memory) -> None:
    item_id = add(memory, "Ann lives in Oslo", sources=[WEB, "tool"])
    only = add(memory, "Ben lives in Rome", sources=[WEB])
    memory.revoke(WEB)
    memory.revoke("tool")
    assert memory.revoked() == (WEB, "tool")
    assert memory.reinstate(WEB) == 1
    assert memory.get(item_id).quarantined and not memory.get(only).quarantined
    assert memory.reinstate("tool") == 1
    assert memory.get(item_id).trust == 1.0


def test_what_was_distrusted_for_another_reason_stays_so(memory: Memory) -> None:
    zero = add(memory, "Ann lives in Oslo", sources=[WEB], trust=0.0)
    later = add(memory, "Ben lives in Rome", sources=[WEB])
    memory.revoke(WEB)
    memory.update(later, trust=0.25)
    assert memory.reinstate(WEB) == 0
    assert (memory.get(zero).trust, memory.get(later).trust) == (0.0, 0.25)


def test_documents_of_a_revoked_source_are_hidden(memory: Memory, clock: FixedClock) -> None:
    text = "The first paragraph stands here.\n\nThe second stands here.\n"
    memory.add_document(text, name="page", corpus_id="c", sources=[WEB], max_tokens=16)
    assert memory.revoke(WEB) == 3 and memory.count(corpus_id="c") == 0
    clock.advance(DAY)
    text = text.replace("second", "other")
    edition = memory.add_document(text, name="page", corpus_id="c", sources=[WEB], max_tokens=16)
    assert (edition.added, edition.superseded, memory.count(corpus_id="c")) == (0, 1, 0)
    assert memory.reinstate(WEB) == 4 and memory.count(corpus_id="c") == 3
    again = memory.add_document(text, name="page", corpus_id="c", sources=[WEB], max_tokens=16)
    assert (again.chunks, again.added, again.superseded, again.moved) == (edition.chunks, 0, 0, 0)
    distrusted = memory.add_document(text, name="page", corpus_id="c", trust=0.25, max_tokens=16)
    assert not {*distrusted.chunks} & {*edition.chunks} and memory.count(corpus_id="c") == 3


def test_an_edition_of_a_revoked_source_comes_back_as_it_was_given(tmp_path: Path, clock: FixedClock) -> None:
    """The document's own item and the chunks that stayed lost their trust for good: nothing said why."""
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:

        def edition(text: str, **fields: Any) -> warpmem.DocumentResult:
            return memory.add_document(text, name="page", corpus_id="c", max_tokens=16, **fields)

        text = "The first paragraph stands here.\n\nThe second stands here.\n"
        before = edition(text, trust=0.75)
        memory.revoke(WEB)
        for trust in (0.875, 1.0):
            clock.advance(DAY)
            text = f"Another comes before them.\n\n{text}"
            after = edition(text, sources=[WEB], trust=trust)
            assert after.id != before.id and memory.count(corpus_id="c") == 3
        again = edition(text, sources=[WEB], trust=1.0)
        assert (again.chunks, again.added, again.superseded, again.moved) == (after.chunks, 0, 0, 0)
        then = memory.get(before.id).recorded_at
        clock.advance(DAY)
        assert memory.reinstate(WEB) == 5
        assert [memory.get(one).trust for one in (after.id, *after.chunks)] == [1.0] * 5
        assert len(memory.search("paragraph", corpus_id="c")) == memory.count(corpus_id="c") == 5
        assert len(memory.search("paragraph", corpus_id="c", known_at=then)) == 3
    assert warpmem.verify(tmp_path / "store").ok


def test_it_lasts_and_the_store_stays_whole(tmp_path: Path, clock: FixedClock) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        add(memory, "Home is Porto", key="home")
        clock.advance(DAY)
        add(memory, "Home is Oslo", key="home", sources=[WEB])
        memory.revoke(WEB)
    assert warpmem.verify(tmp_path / "store").ok
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock, read_only=True) as memory:
        assert memory.revoked() == (WEB,) and texts(memory) == ["Home is Porto"]
        with pytest.raises(StoreReadOnly):
            memory.reinstate(WEB)
    warpmem.repair(tmp_path / "store", tmp_path / "repaired")
    with warpmem.open(tmp_path / "repaired", embedder="hashing", clock=clock) as memory:
        assert memory.revoked() == (WEB,)
        assert add(memory, "Cats bark", sources=[WEB]) and texts(memory) == ["Home is Porto"]
        memory.reinstate(WEB)
        assert texts(memory) == ["Home is Oslo", "Cats bark"]
    assert warpmem.verify(tmp_path / "repaired").ok


@pytest.mark.parametrize("source", ["", None, 5, "x" * 600, ["a"]])
def test_a_source_is_a_name(memory: Memory, source: object) -> None:
    for call in (memory.revoke, memory.reinstate):
        with pytest.raises(InputError):
            call(source)  # type: ignore[arg-type]
