"""What erase() removes, keeps and refuses, as a user sees it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import warpmem
from warpmem import AddResult, ErasureReceipt, Memory, NewItem, Scope
from warpmem.errors import DiskFull, InputError, InvalidScope, NotFound, StoreReadOnly
from warpmem.ops import ids
from warpmem.ops.clock import FixedClock
from warpmem.ops.ids import parse_id
from warpmem.storage import erased as erased_items
from warpmem.storage import erasure
from warpmem.storage.codec import FAMILIES, KEYS_END


def add(memory: Memory, text: str, user: str = "ann", **more: object) -> str:
    result = memory.add(text, user_id=user, **more)  # type: ignore[arg-type]
    assert isinstance(result, AddResult)
    return result.id


def derive(memory: Memory, text: str, *sources: str, user: str = "ann") -> str:
    result = memory.add(NewItem(text=text, sources=sources), user_id=user)
    assert isinstance(result, AddResult)
    return result.id


def gone(memory: Memory, item_id: str) -> bool:
    with pytest.raises(NotFound):
        memory.history(item_id)
    return memory.get_many([item_id]) == (None,)


def test_an_item_goes_with_all_its_versions_and_the_feed_tells_only_that(memory: Memory) -> None:
    first = add(memory, "Has a cat")
    memory.update(first, text="Has two cats")
    other = add(memory, "Has a dog")
    receipt = memory.erase([first])
    assert isinstance(receipt, ErasureReceipt)
    assert (receipt.items, receipt.history, receipt.vectors, receipt.log_entries) == (1, 1, 2, 2)
    assert gone(memory, first)
    assert [item.id for item in memory.list(user_id="ann")] == [other]
    assert [hit.item.id for hit in memory.search("cat", user_id="ann")] == [other]
    assert memory.count(user_id="ann") == memory.stats().items == 1
    changes = memory.changes()
    assert [change.operation for change in changes] == ["erase", "erase", "add", "erase"]
    assert [change.cursor for change in changes] == [1, 2, 3, 4]
    assert {
        (change.id, change.scope, change.version) for change in changes if change.operation == "erase"
    } == {(None, None, 0)}


def test_a_deleted_item_can_be_erased(memory: Memory) -> None:
    item_id = add(memory, "Has a cat")
    memory.delete(item_id)
    assert len(memory.history(item_id)) == 2
    receipt = memory.erase([item_id])
    assert (receipt.items, receipt.history) == (0, 2)
    assert gone(memory, item_id)


def test_an_owner_goes_whole_and_may_begin_anew(memory: Memory) -> None:
    item_id = add(memory, "Has a cat", key="pet", idempotency_key="call")
    memory.delete(add(memory, "Had a dog"))
    add(memory, "Has a bird", user="bob")
    receipt = memory.erase(user_id="ann")
    assert (receipt.items, receipt.owners) == (1, 1)
    assert gone(memory, item_id)
    assert memory.owners() == (Scope(user_id="bob"),)
    assert memory.search("cat", user_id="ann").items == ()
    assert memory.erase(user_id="ann").owners == 0
    again = add(memory, "Has a cat", key="pet", idempotency_key="call")
    assert again[:7] != item_id[:7], "the number of an erased owner is not given out again"
    assert [hit.item.id for hit in memory.search("cat", user_id="ann")] == [again]
    assert memory.owners() == (Scope(user_id="bob"), Scope(user_id="ann"))


def test_the_number_of_an_erased_owner_stays_taken_after_a_reopen(tmp_path: Path) -> None:
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        add(memory, "Has a bird", user="bob")
        first = add(memory, "Has a cat")
        memory.erase(user_id="ann")
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        assert memory.owners() == (Scope(user_id="bob"),)
        assert add(memory, "Has a cat")[:7] != first[:7]


def test_a_scope_within_an_owner(memory: Memory) -> None:
    kept = add(memory, "For everyone")
    removed = add(memory, "For one", agent_id="a")
    memory.delete(add(memory, "Was for one", agent_id="a"))
    receipt = memory.erase(user_id="ann", agent_id="a")
    assert (receipt.items, receipt.history, receipt.owners) == (1, 2, 0)
    assert gone(memory, removed)
    assert [item.id for item in memory.list(user_id="ann")] == [kept]


def test_what_is_refused_erases_nothing(memory: Memory) -> None:
    mine, theirs = add(memory, "Has a cat"), add(memory, "Has a dog", user="bob")
    with pytest.raises(NotFound, match="1 of 2"):
        memory.erase([mine, theirs], user_id="ann")
    with pytest.raises(NotFound, match="1 of 2"):
        memory.erase([mine, "no id"])
    with pytest.raises(InvalidScope):
        memory.erase()
    with pytest.raises(InputError, match="list of ids"):
        memory.erase(mine)
    with pytest.raises(InputError, match="derived"):
        memory.erase([mine], derived="all")  # type: ignore[arg-type]
    assert memory.get(mine).text == "Has a cat" and memory.get(theirs).text == "Has a dog"
    assert [change.operation for change in memory.changes()] == ["add", "add"]


def test_what_was_derived_from_it_alone_goes_too(memory: Memory) -> None:
    source, other = add(memory, "Has a cat"), add(memory, "Has a dog")
    only = derive(memory, "Likes animals", source, user="bob")
    further = derive(memory, "Is kind", only, source)
    both = derive(memory, "Has pets", source, other)
    outside = derive(memory, "Wrote of a cat", source, "letter-7")
    receipt = memory.erase([source])
    assert set(receipt.derived) == {only, further}
    assert set(receipt.kept) == {both, outside}
    assert gone(memory, only) and gone(memory, further)
    assert memory.get(both).sources == (other,)
    assert memory.get(outside).sources == ("letter-7",)
    assert (memory.get(both).version, receipt.sources) == (1, 2)


def test_derived_items_are_kept_on_demand(memory: Memory) -> None:
    source = add(memory, "Has a cat")
    only = derive(memory, "Likes animals", source, user="bob")
    memory.update(only, text="Likes cats")
    receipt = memory.erase(user_id="ann", derived="keep")
    assert (receipt.derived, receipt.kept) == ((), (only,))
    versions = memory.history(only)
    assert [version.item.sources for version in versions if version.item] == [(), ()]


def test_places_by_which_it_was_found_are_forgotten(memory: Memory, clock: FixedClock) -> None:
    old = add(memory, "Lives in Rome", key="home")
    clock.advance(timedelta(seconds=1))
    new = add(memory, "Lives in Oslo", key="home", idempotency_key="move")
    memory.erase([new])
    assert memory.get(old).valid_to is not None, "the world had changed; only the value is gone"
    again = memory.add("Lives in Oslo", user_id="ann", key="home", idempotency_key="move")
    assert isinstance(again, AddResult)
    assert again.action == "added" and again.id != new
    assert [item.text for item in memory.list(user_id="ann")] == ["Lives in Oslo"]


def test_no_record_names_an_item_whatever_was_done_to_it_before(memory: Memory) -> None:
    """Slots of keys stand under their item's valid_from, which no correction of a keyed item may move."""
    begun, day = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)
    keyed = add(memory, "Has a cat", key="pet", valid_to=begun + 9 * day, idempotency_key="call")
    memory.update(keyed, text="Has two cats", valid_to=begun + 8 * day)
    with pytest.raises(InputError, match="place in its key"):
        memory.update(keyed, valid_from=begun + day)
    late = add(memory, "Had a dog", key="pet", valid_from=begun - day)
    add(memory, "Has two cats", key="pet", valid_from=begun + day, expires_at=begun + 99 * day)
    closed = add(memory, "Has a bird", key="pet", valid_from=begun + 2 * day)
    memory.delete(late)
    moved = add(memory, "Lives in Rome", expires_at=begun + 5 * day)
    memory.update(moved, valid_from=begun - 3 * day)
    memory.update(moved, text="Lives in Bern", valid_from=begun - 2 * day)
    add(memory, "Lives in Bern", expires_at=begun + 9 * day, idempotency_key="again")
    memory.delete(add(memory, "Lives in Oslo", valid_from=begun + day))
    erased = [keyed, late, closed, moved]
    assert all(names(memory, item_id) for item_id in erased), "this test would see nothing"
    memory.erase(erased)
    assert [names(memory, item_id) for item_id in erased] == [[]] * 4


def names(memory: Memory, item_id: str) -> list[tuple[str, str]]:
    """(family, key) of every record of the store that has an item's id in its key or its value."""
    key, engine = parse_id(item_id), memory._log._engine  # type: ignore[attr-defined]
    forms = (key[-16:], item_id.encode())
    return [
        (family, found.hex())
        for family in FAMILIES
        for found, value in engine.scan(family, b"", KEYS_END)
        if any(form in found + value for form in forms)
    ]


def test_many_items_go_in_many_changes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_CHUNK_ITEMS", 3)
    monkeypatch.setattr(erasure, "_CHUNK_VALUES", 5)
    monkeypatch.setattr(erased_items, "_MARK_KEYS", 2)
    kept = add(memory, "Stays", user="bob")
    ids = [add(memory, f"Thing {n}", key=f"k{n % 3}", agent_id="a" if n % 2 else None) for n in range(20)]
    assert memory.erase(user_id="ann", agent_id="a").items == 10
    assert [item.id for item in memory.list(user_id="ann", include_past=True)] == ids[::2]
    assert memory.erase(user_id="ann").items == 10
    assert memory.stats().items == 1
    assert [item.id for item in memory.list(user_id="bob")] == [kept]
    assert all(gone(memory, item_id) for item_id in ids)


def test_the_work_for_many_owners_grows_with_their_number_only(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All keys were gone through again for each owner."""
    source, looked = add(memory, "Told to everybody"), 0
    for n in range(100):
        derive(memory, f"Heard by {n}", source, user=f"user {n}")

    def owner_of(key: bytes) -> int:
        nonlocal looked
        looked += 1
        return ids.owner_of(key)

    for module in (erased_items, erasure):
        monkeypatch.setattr(module, "owner_of", owner_of)
    assert len(memory.erase([source]).derived) == 100
    assert looked < 100 * 100


def test_looking_for_what_was_derived_keeps_nothing_of_the_others(tmp_path: Path) -> None:
    """The sources of every item of the store were kept, several hundred bytes for each."""
    with warpmem.open(tmp_path, embedder="hashing", durability="os") as memory:
        first, second, many = add(memory, "First"), add(memory, "Second"), 2000
        memory.add_many([NewItem(text=f"{n}", sources=(second, f"{n}")) for n in range(many)], user_id="ann")
        chain = derive(memory, "Of the first", first)
        derive(memory, "Of that", chain)
        log = memory._log
        tracemalloc.start()
        try:
            found = log.erasures.derived(set(), {parse_id(first)})
            assert tracemalloc.get_traced_memory()[1] < many * 100
        finally:
            tracemalloc.stop()
        assert (len(found.only), found.partly) == (2, set())
        found = log.erasures.derived(set(), {parse_id(second)})
        assert (found.only, len(found.partly)) == (set(), many)


def test_many_versions_go_in_many_changes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions of 256 items went in one change, however many there were."""
    monkeypatch.setattr(erasure, "_CHUNK_VALUES", 10)
    erased = [add(memory, f"Thing {n}") for n in range(3)]
    for n in range(60):
        memory.update(erased[n % 3], text=f"Thing {n}")
    kept = add(memory, "Stays")
    engine, sizes = memory._log._engine, []  # type: ignore[attr-defined]
    write = engine.write

    def measured(operations: Sequence[object]) -> None:
        sizes.append(len(operations))
        write(operations)

    monkeypatch.setattr(engine, "write", measured)
    receipt = memory.erase(erased)
    assert (receipt.items, receipt.history, receipt.vectors, receipt.log_entries) == (3, 60, 63, 63)
    assert max(sizes) < 20
    assert all(gone(memory, item_id) for item_id in erased)
    assert [item.id for item in memory.list(user_id="ann")] == [kept]


def test_backups_are_named(memory: Memory) -> None:
    from warpmem.storage.codec import seal
    from warpmem.storage.values import encode

    key = b"backup" + bytes(16)
    engine = memory._log._engine  # type: ignore[attr-defined]
    engine.write([("meta", key, seal("meta", key, encode((1_000_000, "/mnt/backups/1", 7))))])
    item_id = add(memory, "Has a cat")
    (backup,) = memory.erase([item_id]).backups
    assert (backup.path, backup.at.timestamp()) == ("/mnt/backups/1", 1.0)


def test_a_read_only_store_erases_nothing_and_sees_it_gone_when_opened_again(tmp_path: Path) -> None:
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        item_id = add(memory, "Has a cat")
        with warpmem.open(tmp_path, embedder="hashing", read_only=True) as reader:
            with pytest.raises(StoreReadOnly):
                reader.erase([item_id])
            memory.erase(user_id="ann")
            assert reader.get(item_id).text == "Has a cat"
        with warpmem.open(tmp_path, embedder="hashing", read_only=True) as reader:
            assert gone(reader, item_id)


def test_a_follower_sees_it_gone(tmp_path: Path) -> None:
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        item_id, other = add(memory, "Has a cat"), add(memory, "Has a bird", user="bob")
        with warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=0) as follower:
            assert [hit.item.id for hit in follower.search("cat", user_id="ann")] == [item_id]
            assert follower.get(item_id)
            memory.erase(user_id="ann")
            again = add(memory, "Has a cat")
            follower.refresh()
            assert gone(follower, item_id)
            assert [hit.item.id for hit in follower.search("cat", user_id="ann")] == [again]
            assert [hit.item.id for hit in follower.search("bird", user_id="bob")] == [other]


@pytest.mark.parametrize("step", ["hide_owner", "erase_owner", "erase_entries", "scrub"])
def test_what_a_failure_left_is_pending_until_the_next_open(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failure(Exception):
        """What is thrown in the middle."""

    def fail(*arguments: object, **options: object) -> None:
        raise Failure

    memory = warpmem.open(tmp_path, embedder="hashing")
    item_id = add(memory, "Has a cat")
    with monkeypatch.context() as patch:
        patch.setattr(erasure.StoreErasures if step == "scrub" else erasure.ErasingTransaction, step, fail)
        with pytest.raises(Failure):
            memory.erase(user_id="ann")
        assert memory.stats().pending_erasures == 1
    memory.close()
    with warpmem.open(tmp_path, embedder="hashing", read_only=True) as reader:
        assert reader.stats().pending_erasures == 1
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        assert memory.stats().pending_erasures == 0
        assert gone(memory, item_id)
        assert memory.owners() == ()


def test_a_store_opens_though_an_erasure_cannot_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise DiskFull("0 bytes free")

    memory = warpmem.open(tmp_path, embedder="hashing")
    item_id = add(memory, "Has a cat")
    with monkeypatch.context() as patch:
        patch.setattr(erasure.StoreErasures, "scrub", full)
        with pytest.raises(DiskFull):
            memory.erase([item_id])
        memory.close()
        with warpmem.open(tmp_path, embedder="hashing") as memory:
            assert memory.stats().pending_erasures == 1
            assert gone(memory, item_id)
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        assert memory.stats().pending_erasures == 0


def test_what_a_failure_left_is_taken_out_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables of log entries that the first attempt made stubs of were not written anew by the second."""
    memory = warpmem.open(tmp_path, embedder="hashing")
    item_id = add(memory, "Has a cat", "a-name-in-the-log")
    for family in memory._log._engine._families.values():  # type: ignore[attr-defined]
        family.flush()
    del family  # it would keep the database open
    with monkeypatch.context() as patch:
        patch.setattr(erasure.make_scope, "cache_clear", None)
        with pytest.raises(TypeError):
            memory.erase(user_id="a-name-in-the-log")
    memory.close()
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        assert gone(memory, item_id) and memory.stats().pending_erasures == 0
        assert [f.name for f in tmp_path.iterdir() if b"a-name-in-the-log" in f.read_bytes()] == []
