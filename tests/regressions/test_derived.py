"""Faults in what an erasure or a revocation takes along: items that come from other items."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.records import ErasureReceipt

WEB = "web:example.org"


@pytest.fixture
def memory() -> Iterator[Memory]:
    with warpmem.open(embedder="hashing") as memory:
        yield memory


def add(memory: Memory, text: str, user: str = "u", **fields: object) -> str:
    result = memory.add(NewItem(text=text, **fields), user_id=user)  # type: ignore[arg-type]
    assert isinstance(result, warpmem.AddResult)
    return result.id


def trusts(memory: Memory, *ids: str) -> list[float]:
    return [memory.get(item_id).trust for item_id in ids]


def repeat(memory: Memory, text: str, sources: list[str]) -> str:
    """An item that says what another says, which its addition does not find."""
    item_id = add(memory, "something else", sources=sources)
    return memory.update(item_id, text=text).id


def gone(memory: Memory, receipt: ErasureReceipt, *ids: str) -> bool:
    return set(ids) <= set(receipt.derived) and not memory.list(user_id="u", include_past=True).items


def test_what_stays_of_a_repetition_that_came_from_it_is_not_its_own_source(memory: Memory) -> None:
    """It named itself then, so neither an erasure nor a revocation of where it came from reached it."""
    page = add(memory, "A page", kind="message", sources=[WEB])
    kept = add(memory, "Ann lives in Oslo", sources=[page])
    copy = repeat(memory, "Ann lives in Oslo", [kept])
    memory.run_jobs(["deduplicate"])
    assert memory.get(kept).sources == (page,) and memory.get(copy).valid_to is not None
    assert memory.revoke(WEB) == 3
    assert gone(memory, memory.erase([page]), kept, copy)


def test_a_repetition_that_came_from_what_stays_through_others_does_not_go_into_it(memory: Memory) -> None:
    """What stayed named a summary of itself, a circle that held itself."""
    page = add(memory, "A page", kind="message", sources=[WEB])
    kept = add(memory, "Ann lives in Oslo", sources=[page])
    summary = add(memory, "A summary", sources=[kept])
    copy = repeat(memory, "Ann lives in Oslo", [summary])
    memory.run_jobs(["deduplicate"])
    assert memory.get(kept).sources == (page,) and memory.get(copy).valid_to is None
    assert gone(memory, memory.erase([page]), kept, summary, copy)


@pytest.mark.parametrize("kind", ["fact", "entity"])
def test_an_addition_that_names_what_it_repeats_is_not_its_source(kind: str) -> None:
    """Another wording that was added with the item as its source made it name itself."""
    with warpmem.open(embedder="hashing", near_duplicate=0.5) as memory:
        page = add(memory, "A page", kind="message")
        metadata = {"name": "Ann"} if kind == "entity" else {}
        text = "Ann lives in a house in Oslo"
        known = add(memory, text, kind=kind, sources=[page], metadata=metadata)
        through = add(memory, "She has a house", kind="message", sources=[known])
        if kind == "fact":
            text = "Ann lives in the house in Oslo"
        for source in (known, through):
            add(memory, text, kind=kind, sources=[source], metadata=metadata)
        assert memory.get(known).sources == (page,)
        memory.erase([page])
        assert memory.count(user_id="u") == 0


def circles(memory: Memory, length: int) -> tuple[str, list[str], list[str]]:
    """A page, items in a circle that came from it alone, and others in one that something else holds."""
    page = add(memory, "A page", kind="message", sources=[WEB])
    other = add(memory, "Another page", user="v")
    rings = []
    for also in ([page], [page, other]):
        ring = [add(memory, f"Part {number} of {len(also)}", sources=[page]) for number in range(length)]
        for number, item_id in enumerate(ring):
            memory.update(item_id, sources=[ring[number - 1], *(also if number == 0 else [])])
        rings.append(ring)
    return page, *rings


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_a_circle_that_nothing_holds_is_erased(memory: Memory, length: int) -> None:
    """Each of its items had a source that was left, the one before it, so all of them stayed."""
    page, ring, held = circles(memory, length)
    receipt = memory.erase([page])
    assert set(receipt.derived) == set(ring) and receipt.kept == tuple(sorted(held))
    assert all(memory.get(item_id).sources for item_id in held)
