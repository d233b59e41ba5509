"""Trust below 0.5: in quarantine, where nothing is found, repeated or superseded by accident."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import warpmem
from warpmem import Memory, NewItem, Scope
from warpmem.errors import InvalidTime
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)


def add(memory: Memory, text: str, trust: float = 1.0, **fields: object) -> warpmem.AddResult:
    result = memory.add(NewItem(text=text, trust=trust, **fields), user_id="u")  # type: ignore[arg-type]
    assert isinstance(result, warpmem.AddResult)
    return result


def found(memory: Memory, query: str, **options: object) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]  # type: ignore[arg-type]


def test_what_is_believed_too_little_is_found_only_on_demand(memory: Memory) -> None:
    hidden = add(memory, "Ann lives in Oslo", 0.25)
    add(memory, "Ann lives in Porto", 0.5)
    assert memory.get(hidden.id).quarantined
    for mode in ("dense", "lexical", "hybrid"):
        assert found(memory, "Ann lives", mode=mode) == ["Ann lives in Porto"]
        assert sorted(found(memory, "Ann lives", mode=mode, quarantined=True)) == [
            "Ann lives in Oslo", "Ann lives in Porto",
        ]  # fmt: skip
    (many,) = memory.search_many(["Ann lives"], scopes=[Scope(user_id="u")], quarantined=True)
    assert len(many) == 2
    assert "Oslo" not in memory.context("Ann lives", user_id="u").text
    assert "Oslo" in memory.context("Ann lives", user_id="u", quarantined=True).text
    assert [item.text for item in memory.list(user_id="u")] == ["Ann lives in Porto"]
    assert (memory.count(user_id="u"), memory.count(user_id="u", quarantined=True)) == (1, 2)
    assert found(memory, "Ann lives", quarantined=True, filters={"trust": {"lt": 0.5}}) == [
        "Ann lives in Oslo"
    ]
    assert found(memory, "Ann lives", quarantined=True, kinds=["event"]) == []


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_times_hold_in_quarantine_too(backend: str, clock: FixedClock) -> None:
    with warpmem.open(embedder="hashing", clock=clock, backend=backend) as memory:
        first = memory.get(add(memory, "Ann lives in Oslo", 0.25).id)
        clock.advance(DAY)
        memory.update(first.id, text="Ann lives in Bergen")
        clock.advance(DAY)
        ends = memory.get(first.id).recorded_at + 5 * DAY
        memory.update(first.id, valid_to=ends)
        for options in ({}, {"as_of": first.valid_from}, {"known_at": first.recorded_at}):
            assert found(memory, "Ann", **options) == []
        assert found(memory, "Ann", quarantined=True) == ["Ann lives in Bergen"]
        assert found(memory, "Ann", quarantined=True, as_of=ends) == []
        assert found(memory, "Ann", quarantined=True, known_at=first.recorded_at) == []
        clock.advance(10 * DAY)
        assert found(memory, "Ann", quarantined=True) == []


def test_it_supersedes_no_trusted_value(memory: Memory, clock: FixedClock) -> None:
    home = add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    false = add(memory, "Home is Oslo", 0.25, key="home")
    assert (false.action, false.replaced) == ("added", None)
    assert memory.get(home.id).valid_to is None and found(memory, "home") == ["Home is Porto"]
    clock.advance(DAY)
    newer = add(memory, "Home is Bergen", 0.0, key="home")
    assert newer.replaced == false.id
    assert memory.context("home", user_id="u", quarantined=True).citations != ()
    text = memory.context("home", user_id="u", quarantined=True).text
    assert "Porto" in text and "Bergen" in text
    assert add(memory, "Home is Lisbon", key="home").replaced == home.id


def test_it_repeats_no_trusted_item_and_is_repeated_by_none(memory: Memory) -> None:
    false = add(memory, "Ann owns a cat", 0.25, expires_at=None)
    assert add(memory, "ann owns a cat", 0.0).id == false.id
    true = add(memory, "Ann owns a cat")
    assert true.action == "added" and found(memory, "cat") == ["Ann owns a cat"]
    assert add(memory, "Ann owns a cat", 0.75).id == true.id
    assert add(memory, "Ann owns a cat", 0.25).id == false.id


def test_one_that_comes_to_be_believed_takes_its_place(memory: Memory, clock: FixedClock) -> None:
    old = add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    new = add(memory, "Home is Lisbon", 0.25, key="home")
    clock.advance(DAY)
    memory.update(new.id, trust=0.75)
    assert found(memory, "home") == ["Home is Lisbon"]
    assert memory.get(old.id).valid_to == memory.get(new.id).valid_from
    assert found(memory, "home", as_of=memory.get(old.id).valid_from) == ["Home is Porto"]
    assert add(memory, "Home is Lisbon", key="home").action == "touched"


def test_one_that_is_believed_no_more_gives_its_place_back(memory: Memory, clock: FixedClock) -> None:
    old = add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    false = add(memory, "Home is Oslo", key="home")
    clock.advance(DAY)
    memory.update(false.id, trust=0.0)
    assert found(memory, "home") == ["Home is Porto"] and memory.get(old.id).valid_to is None
    last = memory.history(old.id)[-1]
    assert (last.operation, last.reason) == ("revert", "what followed it is no value of its key")
    memory.revert(false.id, 1)
    assert found(memory, "home") == ["Home is Oslo"]
    assert memory.get(old.id).valid_to == memory.get(false.id).valid_from
    clock.advance(DAY)
    later = add(memory, "Home is Faro", key="home")
    memory.update(false.id, trust=0.25)
    assert memory.get(old.id).valid_to == memory.get(later.id).valid_from
    assert found(memory, "home") == ["Home is Faro"]


def test_a_value_that_ended_by_itself_stays_ended(memory: Memory, clock: FixedClock) -> None:
    start = memory.get(add(memory, "x").id).valid_from
    old = add(memory, "Home is Porto", key="home", valid_to=start + DAY)
    clock.advance(2 * DAY)
    false = add(memory, "Home is Oslo", key="home")
    memory.update(false.id, trust=0.0)
    assert memory.get(old.id).valid_to == start + DAY and found(memory, "home") == ["x"]


def test_a_trusted_item_can_still_not_pass_the_next_value(memory: Memory, clock: FixedClock) -> None:
    old = add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    add(memory, "Home is Lisbon", key="home")
    with pytest.raises(InvalidTime):
        memory.update(old.id, valid_to=None, trust=0.75)
    memory.update(old.id, trust=0.25, valid_to=None)
    assert memory.get(old.id).valid_to is None
    memory.update(old.id, trust=1.0)
    assert memory.get(old.id).valid_to == memory.list(user_id="u").items[0].valid_from


def test_the_store_stays_whole(tmp_path: Path, clock: FixedClock) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock, checkpoint_rows=1) as memory:
        old = add(memory, "Home is Porto", key="home")
        clock.advance(DAY)
        false = add(memory, "Home is Oslo", key="home")
        add(memory, "Ann owns a cat", 0.25)
        for trust in (0.0, 1.0, 0.25):
            clock.advance(DAY)
            memory.update(false.id, trust=trust)
        memory.update(false.id, text="Home is Bergen")
        expected = found(memory, "home cat", quarantined=True), found(memory, "home cat")
        assert len(expected[0]) == 3 and expected[1] == ["Home is Porto"]
    assert warpmem.verify(tmp_path / "store").ok
    with warpmem.open(tmp_path / "store", embedder="hashing", clock=clock) as memory:
        assert (found(memory, "home cat", quarantined=True), found(memory, "home cat")) == expected
        report = memory.backup(tmp_path / "backups", verify=True)
    assert report.verified
    warpmem.repair(tmp_path / "store", tmp_path / "repaired")
    assert warpmem.verify(tmp_path / "repaired").ok
    with warpmem.open(tmp_path / "repaired", embedder="hashing", clock=clock) as memory:
        assert (found(memory, "home cat", quarantined=True), found(memory, "home cat")) == expected
        memory.delete(old.id)
        memory.delete(false.id)
        assert memory.count(user_id="u", quarantined=True) == 1
    assert warpmem.verify(tmp_path / "repaired").ok


def test_an_export_holds_the_quarantine(tmp_path: Path, memory: Memory, clock: FixedClock) -> None:
    add(memory, "Ann owns a cat", 0.25)
    assert memory.export(tmp_path / "file") == 1
    with warpmem.open(embedder="hashing", clock=clock) as other:
        other.import_(tmp_path / "file")
        assert (other.count(user_id="u"), other.count(user_id="u", quarantined=True)) == (0, 1)


def test_of_values_that_begin_at_one_time_the_one_stored_last_holds(
    memory: Memory, clock: FixedClock
) -> None:
    """An older item that came to be believed ended a younger one, and later values met both."""
    older = add(memory, "Home is Oslo", 0.25, key="home")
    younger = add(memory, "Home is Porto", key="home")
    clock.advance(DAY)
    memory.update(older.id, trust=1.0)
    assert found(memory, "home") == ["Home is Porto"]
    assert memory.get(older.id).valid_to == memory.get(older.id).valid_from
    memory.update(younger.id, trust=0.0)
    assert found(memory, "home") == []
    memory.update(older.id, valid_to=None)
    assert found(memory, "home") == ["Home is Oslo"]
