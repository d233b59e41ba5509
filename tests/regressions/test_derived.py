"""Faults in what an erasure or a revocation takes along: items that come from other items."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.memory.revocation import Revocations
from warpmem.ops.revoked import KEY
from warpmem.records import ErasureReceipt
from warpmem.storage import descent

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
    assert memory.get(kept).sources == (page,) and memory.get(copy).sources == (kept,)
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


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_a_circle_that_nothing_holds_is_revoked_and_reinstated(memory: Memory, length: int) -> None:
    """Each of its items had a source that was believed, the one before it, so all of them were."""
    page, ring, held = circles(memory, length)
    assert memory.revoke(WEB) == 1 + length
    assert trusts(memory, page, *ring, *held) == [0.0] * (1 + length) + [1.0] * length
    assert memory.reinstate(WEB) == 1 + length
    assert trusts(memory, page, *ring, *held) == [1.0] * (1 + 2 * length)


def test_a_list_that_is_forgotten_while_it_is_read_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure's thread forgot it between two reads: a revoked source's value ended a trusted one."""
    known: list[Any] = []

    def read(_: Revocations) -> Any:
        return known.pop() if known else (None, frozenset())

    monkeypatch.setattr(
        Revocations, "_last", property(read, lambda _, last: known.append(last)), raising=False
    )
    with warpmem.open(embedder="hashing") as memory:
        home = add(memory, "Home is Porto", key="home")
        memory.revoke(WEB)
        add(memory, "Cats bark", sources=[WEB])
        known[:] = [(memory._log.kept(KEY), frozenset({WEB}))]
        assert memory.get(add(memory, "Home is Oslo", key="home", sources=[WEB])).quarantined
        assert memory.get(home).valid_to is None


@pytest.mark.parametrize("trust", [0.25, 0.75])
def test_an_unchanged_document_of_doubted_items_makes_no_versions(memory: Memory, trust: float) -> None:
    """What its source left it was not 0, so each addition gave it anew and took it away."""
    page = add(memory, "A stranger's page", "v", trust=trust)
    text = "The first paragraph stands here.\n\nThe second stands here.\n"

    def versions() -> list[int]:
        result = memory.add_document(text, name="page", corpus_id="c", max_tokens=16, sources=[page])
        assert trusts(memory, result.id, *result.chunks) == [trust] * 3
        return [memory.get(item_id).version for item_id in (result.id, *result.chunks)]

    assert versions() == versions() == versions() == [2, 2, 2]


def test_what_came_before_a_revocation_and_what_comes_after_are_trusted_alike(memory: Memory) -> None:
    """Of two owners, or with a doubted source besides: one kept its trust, the other never had it back."""
    pages = [add(memory, f"Page {number}", "v", sources=[WEB]) for number in range(2)]
    doubted, half = add(memory, "Doubted", trust=0.25), add(memory, "Half", "w", trust=0.75)
    dropped = add(memory, "Dropped", "w", sources=[pages[1]])
    memory.delete(dropped)
    named = (
        [pages[0]], [pages[0], doubted], [half, pages[0]], [dropped], [dropped, doubted], [doubted],
        [half, WEB], [pages[0], "tool"], ["0" * 32, pages[0]],
    )  # fmt: skip

    def derive(when: str) -> list[str]:
        first = [add(memory, f"{when} {number}", sources=sources) for number, sources in enumerate(named)]
        return [*first, *(add(memory, f"{when}, of {one}", "w", sources=[one]) for one in first)]

    before = derive("before")
    as_it_was = trusts(memory, *before)
    assert as_it_was == [1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0] * 2
    memory.delete(pages[1])
    assert memory.revoke(WEB) == 1 + 2 * 7
    after = derive("after")
    left = [0.0, 0.25, 0.75, 0.0, 0.25, 0.25, 0.0, 1.0, 0.0] * 2
    assert trusts(memory, *before) == trusts(memory, *after) == left
    assert memory.revoke(WEB) == 0
    assert memory.reinstate(WEB) == 1 + 4 * 7
    assert trusts(memory, *before) == trusts(memory, *after) == as_it_was
    assert memory.reinstate(WEB) == 0


def test_what_two_revoked_sources_took_comes_back_bit_by_bit(memory: Memory) -> None:
    """What was given back in part was given back for good."""
    web, tool = add(memory, "Web", sources=[WEB], trust=0.75), add(memory, "Tool", sources=["tool"])
    both = add(memory, "Both", "v", sources=[web, tool])
    memory.revoke("tool")
    assert trusts(memory, both) == [0.75]
    memory.revoke(WEB)
    assert trusts(memory, both) == [0.0]
    memory.reinstate(WEB)
    assert trusts(memory, both) == [0.75]
    memory.reinstate("tool")
    assert trusts(memory, both) == [1.0]
    assert [one.reason for one in memory.history(both)] == [
        None, *["its sources are trusted less"] * 3, "its source is believed again",
    ]  # fmt: skip


def test_a_source_that_is_gone_is_trusted_as_it_was(memory: Memory) -> None:
    """What came from a deleted item was trusted in full, and a revert gave full trust as well."""
    doubted, erased = (add(memory, text, trust=0.25) for text in ("Ann says Oslo", "Ben says Rome"))
    first = add(memory, "first", sources=[doubted])
    second = add(memory, "second", sources=[erased])
    memory.delete(doubted)
    memory.erase([erased], derived="keep")
    later = add(memory, "later", sources=[doubted])
    assert trusts(memory, first, second, later) == [0.25] * 3
    for item_id in (first, second, later):
        assert memory.revert(item_id, 1).trust == 0.25
    memory.revoke(WEB)
    memory.reinstate(WEB)
    assert trusts(memory, first, second, later) == [0.25] * 3
    assert memory.update(second, trust=1.0).trust == 1.0


def test_an_id_that_the_store_never_knew_counts_for_nothing(memory: Memory) -> None:
    """One beside a doubted source gave an item full trust."""
    doubted, unknown = add(memory, "Ann says Oslo", trust=0.25), "0" * 32
    assert memory.get(add(memory, "first", sources=[doubted, unknown])).trust == 0.25
    assert memory.get(add(memory, "second", sources=[unknown])).trust == 1.0
    third = add(memory, "third", sources=[doubted])
    assert memory.update(third, sources=[unknown]).trust == 0.25
    memory.reinstate(WEB)
    assert memory.get(third).trust == 0.25


def test_what_is_added_while_a_source_is_being_revoked_is_doubted_too(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came from an item that had its trust still, and the walk had gone past it."""
    page = add(memory, "A page", sources=[WEB])
    late: list[str] = []
    lowered = Revocations._lowered

    def then_add(revocations: Revocations, source: str) -> Any:
        found = lowered(revocations, source)
        if not late:
            late.append(add(memory, "Oslo it is", "v", sources=[page]))
            assert trusts(memory, *late) == [1.0]
        return found

    monkeypatch.setattr(Revocations, "_lowered", then_add)
    assert memory.revoke(WEB) == 2
    assert trusts(memory, page, *late) == [0.0, 0.0]


def test_a_statement_of_an_erased_message_goes_although_both_come_from_one_origin(memory: Memory) -> None:
    """It takes over the message's origins, and was held by them."""
    said = memory.add(
        [{"role": "user", "content": "My door code is 4711."}], user_id="u", infer="rules", sources=["chat:1"]
    )
    assert isinstance(said, tuple) and memory.count(user_id="u") == 2
    receipt = memory.erase([said[0].id])
    assert (len(receipt.derived), receipt.kept) == (1, ())
    assert not memory.list(user_id="u", include_past=True).items


def test_the_chunks_of_an_erased_document_go_although_all_come_from_one_origin(memory: Memory) -> None:
    """They take over the document's origins, and were held by them."""
    stored = memory.add_document("# Door\n\nThe code is 4711.\n", name="h.md", user_id="u", sources=[WEB])
    assert gone(memory, memory.erase([stored.id]), *stored.chunks)


def test_an_origin_of_its_own_holds_an_item_and_what_comes_from_it(memory: Memory) -> None:
    """What is derived was held by every origin, also by those of what was erased."""
    page = add(memory, "A page", kind="message", sources=[WEB])
    note = add(memory, "A note on the page", sources=[page, WEB])
    other = add(memory, "A note on the page and a book", sources=[page, WEB, "book"])
    told = add(memory, "What was told of both notes", sources=[note, other, WEB, "book"])
    receipt = memory.erase([page])
    assert (receipt.derived, receipt.kept) == ((note,), tuple(sorted((other, told))))
    assert memory.get(other).sources == (WEB, "book")


def test_items_in_a_circle_that_have_an_origin_from_elsewhere_stay(memory: Memory) -> None:
    """Each has the other's origin, so that neither would hold the other."""
    page = add(memory, "A page", kind="message")
    one = add(memory, "One", sources=[page, WEB])
    two = add(memory, "Two", sources=[page, one, WEB])
    memory.update(one, sources=[page, two, WEB])
    receipt = memory.erase([page])
    assert (receipt.derived, receipt.kept) == ((), tuple(sorted((one, two))))


def test_an_origin_that_comes_from_what_is_found_later_holds_nothing(memory: Memory) -> None:
    """An older item is looked at before the newer one that it has come to name."""
    pages = [add(memory, "One page", kind="message"), add(memory, "Another", kind="message", sources=[WEB])]
    older = add(memory, "Told before")
    newer = add(memory, "Told of the other", sources=[pages[1], WEB])
    memory.update(older, sources=[pages[0], newer, WEB])
    assert gone(memory, memory.erase(pages), older, newer)


def test_an_item_of_many_versions_is_looked_at_once_each_time(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its versions were read for each of them."""
    page = add(memory, "A page", kind="message")
    other = add(memory, "A note", sources=[page, WEB])
    for n in range(50):
        memory.update(other, text=f"A note, {n}")
    asked: list[bytes] = []
    read = descent.stored_versions

    def noted(engine: Any, family: str, key: bytes = b"") -> Any:
        asked.append(key)
        return read(engine, family, key)

    monkeypatch.setattr(descent, "stored_versions", noted)
    assert memory.erase([page]).kept == (other,)
    assert len(asked) < 20


def chained(memory: Memory, order: str, length: int) -> list[str]:
    """Ids of a page and of items that come from it, each from the one before, made in this order."""
    user = f"{order} {length}"
    ids = [add(memory, f"Part {n}", user, kind="message") for n in range(length + 1)]
    chain = {"as made": ids, "against it": ids[::-1], "to and fro": ids[::2] + ids[1::2][::-1]}[order]
    memory.update(chain[0], sources=[f"page {user}"])
    for before, item_id in pairwise(chain):
        memory.update(item_id, sources=[before])
    return chain


@pytest.mark.parametrize("order", ["as made", "against it", "to and fro"])
@pytest.mark.parametrize("call", ["erase", "revoke"])
def test_a_chain_takes_reads_in_proportion_to_its_length(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, call: str, order: str
) -> None:
    """The store was read once for each step from a newer item to an older one that comes from it."""
    engine: Any = memory._log._engine  # type: ignore[attr-defined]
    scan, get, get_many = engine.scan, engine.get, engine.get_many
    reads = 0

    def counted(values: Any) -> Any:
        nonlocal reads
        for value in values:
            reads += 1
            yield value

    monkeypatch.setattr(engine, "scan", lambda *some, **more: counted(scan(*some, **more)))
    monkeypatch.setattr(engine, "get", lambda *some: next(counted([get(*some)])))
    monkeypatch.setattr(engine, "get_many", lambda *some: list(counted(get_many(*some))))

    def reads_of(length: int) -> int:
        nonlocal reads
        chain = chained(memory, order, length)
        reads = 0
        if call == "revoke":
            assert memory.revoke(f"page {order} {length}") == length + 1
        else:
            assert set(memory.erase([chain[0]]).derived) == set(chain[1:])
        found = reads
        memory.erase(user_id=f"{order} {length}")
        return found

    short, long = reads_of(30), reads_of(120)
    assert long < 4.5 * short
