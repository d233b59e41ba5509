"""Past versions of items that stay: those that come from what is erased alone go with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import warpmem
from scripted_extraction import ReadingModel
from scripted_extraction import memory as told
from warpmem import ErasureReceipt, Memory, NewItem
from warpmem.config import Reflection
from warpmem.errors import DiskFull, NotFound
from warpmem.storage import erased, erasure
from warpmem.storage.erasing import ErasingTransaction

WEB = "web:example.org"
OPTIONS: dict[str, Any] = {"embedder": "hashing", "min_free_bytes": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def memory(path: Path) -> Iterator[Memory]:
    """A store that verifies in the end."""
    with warpmem.open(path, **OPTIONS) as memory:
        yield memory
    report = warpmem.verify(path)
    assert report.ok, report


def add(memory: Memory, text: str, *sources: str, **fields: Any) -> str:
    result = memory.add(NewItem(text=text, sources=sources, **fields), user_id="ann")
    assert isinstance(result, warpmem.AddResult)
    return result.id


def corrected(memory: Memory, first: list[str], second: list[str]) -> str:
    """An item of two versions that come from these."""
    item_id = add(memory, "Ann is ill", *first)
    memory.update(item_id, text="Ann is well", sources=second)
    return item_id


def texts(memory: Memory, item_id: str) -> dict[int, str]:
    return {past.item.version: past.item.text for past in memory.history(item_id) if past.item is not None}


def waiting(memory: Memory) -> list[bytes]:
    return [key for key, _ in memory._log._engine.scan("jobs", b"", b"\xff" * 40)]  # type: ignore[attr-defined]


def known(memory: Memory, at: datetime, **scope: Any) -> list[str]:
    return sorted(hit.item.text for hit in memory.search("ill", known_at=at, **(scope or {"user_id": "ann"})))


def test_what_a_message_alone_had_said_goes_with_it(memory: Memory) -> None:
    """It was found with known_at, and revert made it current again."""
    one, two = add(memory, "ill, says one"), add(memory, "well, says the other")
    item_id = add(memory, "Ann is ill", one)
    then = datetime.now(UTC)
    memory.update(item_id, text="Ann is well", sources=[one, two])
    stays = add(memory, "Bob is ill", two)
    assert known(memory, then) == ["Ann is ill", "ill, says one", "well, says the other"]
    before = memory.stats().sequence
    receipt = memory.erase([one])
    assert (receipt.kept, receipt.derived, receipt.versions) == ((item_id,), (), ((item_id, 1),))
    assert (receipt.items, receipt.history, receipt.vectors, receipt.log_entries) == (1, 1, 2, 2)
    assert known(memory, then) == ["well, says the other"]
    assert texts(memory, item_id) == {2: "Ann is well"}
    assert memory.get(item_id).sources == (two,) and memory.get(stays).sources == (two,)
    with pytest.raises(NotFound):
        memory.revert(item_id, 1)
    changes = memory.changes()[:before]
    assert [one.operation for one in changes] == ["erase", "add", "erase", "update", "add"]
    memory.update(item_id, text="Ann is very well")
    assert memory.revert(item_id, 2).text == "Ann is well"
    memory.delete(item_id)


def test_what_a_model_has_corrected(memory: Memory) -> None:
    def read(shown: Any) -> Any:
        known = [one["number"] for one in shown["known"] if one["kind"] == "fact"]
        said = {"verdict": "contradicts", "item": known[0]} if known else {}
        text = "Ann has no illness, they say" if known else "Ann has that illness"
        return {"memories": [told(text, one["number"], **said) for one in shown["messages"]]}

    with warpmem.open(embedder="hashing", language_model=ReadingModel(read), background_work=False) as memory:
        for text in ("I have that illness", "that was wrong"):
            memory.add([{"role": "user", "content": text}], user_id="ann", infer="llm", wait=True)
        message = memory.list(user_id="ann", kinds=["message"]).items[0]
        (item,) = memory.list(user_id="ann", kinds=["fact"])
        assert len(texts(memory, item.id)) == 2
        receipt = memory.erase([message.id])
        assert receipt.versions == ((item.id, 1),)
        assert texts(memory, item.id) == {2: "Ann has no illness, they say"}


def test_what_was_worded_anew() -> None:
    with warpmem.open(embedder="hashing", near_duplicate=0.7) as memory:
        one, two = add(memory, "source one"), add(memory, "second thing")
        item_id = add(memory, "the red car stands in the long street", one)
        assert add(memory, "the red car stands in the long street now", two) == item_id
        assert memory.erase([one]).versions == ((item_id, 1),)
        assert texts(memory, item_id) == {2: "the red car stands in the long street now"}


def test_on_demand_they_stay(memory: Memory) -> None:
    one, two = add(memory, "one"), add(memory, "two")
    item_id = corrected(memory, [one], [two])
    receipt = memory.erase([one], derived="keep")
    assert (receipt.versions, receipt.kept) == ((), (item_id,))
    assert texts(memory, item_id) == {1: "Ann is ill", 2: "Ann is well"}


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (["one"], ["one", "two"], [2]),
        (["one"], ["two"], [2]),
        (["one", "two"], ["two"], [1, 2]),
        (["one", WEB], ["two"], [2]),  # it is the source of `one`
        (["one", "me"], ["two"], [1, 2]),
        ([WEB], ["one", "two"], [1, 2]),
        ([], ["one", "two"], [1, 2]),
        (["of one"], ["two"], [2]),
        (["one"], [], []),  # it was said to come from nothing later on
        (["two"], ["one"], []),  # an item goes with its current version
        (["two"], ["one", WEB], []),
    ],
)
@pytest.mark.parametrize("deleted", [False, True], ids=["live", "deleted"])
def test_each_version_by_its_own_sources(
    memory: Memory, first: list[str], second: list[str], left: list[int], deleted: bool
) -> None:
    one, two = add(memory, "one", WEB), add(memory, "two")
    ids = {"one": one, "two": two, "of one": add(memory, "of one", one)}
    item_id = corrected(memory, *([ids.get(name, name) for name in names] for names in (first, second)))
    if deleted:
        memory.delete(item_id)
        if first == ["two"]:
            left = [1]  # there is no current one, and the other is none of its
    receipt = memory.erase([one])
    if not left:
        assert item_id in receipt.derived and receipt.versions == ()
        with pytest.raises(NotFound):
            memory.history(item_id)
        return
    assert item_id in receipt.kept or "one" not in (*first, *second)
    assert [version for key, version in receipt.versions if key == item_id] == [
        version for version in (1, 2) if version not in left
    ]
    assert list(texts(memory, item_id)) == left
    assert (memory.history(item_id)[-1].operation == "delete") == deleted


def test_a_follower_sees_them_gone(path: Path, memory: Memory) -> None:
    one, two = add(memory, "one"), add(memory, "two")
    item_id = add(memory, "Ann is ill", one)
    then = datetime.now(UTC)
    memory.update(item_id, text="Ann is well", sources=[two])
    with warpmem.open(path, follow=True, follow_ms=0, **OPTIONS) as follower:
        assert "Ann is ill" in known(follower, then)
        assert len(texts(follower, item_id)) == 2
        memory.erase([one])
        follower.refresh()
        assert known(follower, then) == ["two"]
        assert texts(follower, item_id) == {2: "Ann is well"}


@pytest.mark.parametrize("step", ["erase_past", "forget_sources", "erase_entries", "scrub"])
def test_a_failure_leaves_what_the_next_open_finishes(
    step: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise DiskFull("0 bytes free")

    memory = warpmem.open(path, **OPTIONS)
    one, two = add(memory, "one"), add(memory, "two")
    item_id = corrected(memory, [one], [one, two])
    with monkeypatch.context() as patch:
        patch.setattr(erasure.StoreErasures if step == "scrub" else ErasingTransaction, step, fail)
        with pytest.raises(DiskFull):
            memory.erase([one])
    memory.close()
    with warpmem.open(path, **OPTIONS) as memory:
        assert memory.stats().pending_erasures == 0
        assert texts(memory, item_id) == {2: "Ann is well"}
    assert warpmem.verify(path).ok


def test_a_repair_brings_none_over_that_is_being_erased(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = warpmem.open(path, **OPTIONS)
    one, two = add(memory, "one"), add(memory, "two")
    item_id, deleted = (corrected(memory, [one], [two]) for _ in range(2))
    last = corrected(memory, [two], [one])
    memory.delete(deleted)
    memory.delete(last)
    with monkeypatch.context() as patch:
        patch.setattr(erasure.StoreErasures, "_remove", lambda self, *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            memory.erase([one])
    memory.close()
    report = warpmem.repair(path, tmp_path / "new")
    assert report.lost == () and warpmem.verify(tmp_path / "new").faults == ()
    with warpmem.open(tmp_path / "new", read_only=True, **OPTIONS) as memory:
        assert texts(memory, item_id) == texts(memory, deleted) == {2: "Ann is well"}
        assert texts(memory, last) == {1: "Ann is ill"}
        assert memory.stats().pending_erasures == 1
    with warpmem.open(tmp_path / "new", **OPTIONS) as memory:
        assert memory.stats().pending_erasures == 0
    assert warpmem.verify(tmp_path / "new").ok


def test_a_store_with_gaps_is_repaired_and_embedded_anew(path: Path, tmp_path: Path) -> None:
    with warpmem.open(path, **OPTIONS) as memory:
        one, two = add(memory, "one"), add(memory, "two")
        item_id = corrected(memory, [one], [two])
        memory.update(item_id, text="Ann is very well")
        memory.erase([one])
        memory.reembed("wordllama")
    report = warpmem.repair(path, tmp_path / "new")
    assert report.ok and warpmem.verify(tmp_path / "new").ok
    with warpmem.open(tmp_path / "new", min_free_bytes=0) as memory:
        assert texts(memory, item_id) == {2: "Ann is well", 3: "Ann is very well"}


def test_one_that_waits_for_its_vector(path: Path) -> None:
    with warpmem.open(path, embed="later", background_work=False, **OPTIONS) as memory:
        one, two = add(memory, "one"), add(memory, "two")
        corrected(memory, [one], [two])
        assert len(waiting(memory)) == 4
        memory.erase([one])
        assert len(waiting(memory)) == 2
    assert warpmem.verify(path).ok


def test_many_go_in_many_changes(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "_CHUNK_ITEMS", 3)
    monkeypatch.setattr(erasure, "_CHUNK_VALUES", 5)
    monkeypatch.setattr(erased, "_MARK_KEYS", 2)
    one, two = add(memory, "one"), add(memory, "two")
    items = [corrected(memory, [one], [one, two]) for _ in range(7)]
    receipt = memory.erase([one])
    assert receipt.versions == tuple((item_id, 1) for item_id in items)
    assert all(texts(memory, item_id) == {2: "Ann is well"} for item_id in items)


def test_one_that_comes_back_meanwhile(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = add(memory, "one"), add(memory, "two")
    back, moved = (corrected(memory, [one], [two]) for _ in range(2))
    erasures: Any = memory._log.erasures
    derived = erasures.derived

    def then(*arguments: Any) -> Any:
        found = derived(*arguments)
        memory.revert(back, 1)
        memory.update(moved, sources=[one])
        memory.update(moved, sources=[two])
        return found

    monkeypatch.setattr(erasures, "derived", then)
    receipt = memory.erase([one])
    assert (receipt.derived, receipt.kept) == ((back,), (moved,))
    assert receipt.versions == ((moved, 1), (moved, 3))
    assert list(texts(memory, moved)) == [2, 4]


def test_what_a_job_made_of_such_a_version_is_made_anew() -> None:
    """A profile kept the words."""
    with warpmem.open(embedder="hashing", reflection=Reflection(min_facts=1)) as memory:
        one, two = add(memory, "one", kind="message"), add(memory, "two", kind="message")
        item_id = add(memory, "Ann is ill", one)
        memory.run_jobs(["reflect"])
        (profile,) = memory.list(user_id="ann", kinds=["profile"])
        assert "ill" in profile.text
        memory.update(item_id, text="Ann is well", sources=[one, two])
        other = add(memory, "Told by Ann", item_id, kind="message")
        receipt = memory.erase([one])
        assert profile.id in receipt.derived and receipt.kept == (item_id,)
        assert memory.get_many([profile.id]) == (None,) and memory.get(other)
        (anew,) = memory.list(user_id="ann", kinds=["profile"])
        assert "well" in anew.text and "ill" not in anew.text
        assert list(texts(memory, anew.id).values()) == [anew.text]


@pytest.mark.parametrize(("text", "told"), [("Ann is well", True), ("Ann is ill", False)])
def test_what_somebody_made_of_such_a_version_is_named(memory: Memory, text: str, told: bool) -> None:
    """But not where its words are still there, from another source."""
    one, two = add(memory, "one"), add(memory, "two")
    item_id = add(memory, "Ann is ill", one)
    early = add(memory, "Ann needs rest", item_id)
    memory.update(item_id, text=text, sources=[two])
    add(memory, "Ann can work", item_id)
    receipt = memory.erase([one])
    assert receipt.versions == ((item_id, 1),)
    assert receipt.kept == ((item_id, early) if told else (item_id,))


@pytest.mark.parametrize(("metadata", "entities"), [({"ward": "7"}, ()), ({}, ("Dr Ott",)), ({}, ())])
def test_what_was_made_of_what_stands_beside_a_text_is_named(
    memory: Memory, metadata: dict[str, str], entities: tuple[str, ...]
) -> None:
    """Versions were taken for the same by their texts alone."""
    one, two = add(memory, "one"), add(memory, "two")
    item_id = add(memory, "Ann is ill", one, metadata=metadata, entities=entities)
    early = add(memory, "Ann needs rest", item_id)
    memory.update(item_id, metadata={}, entities=[], sources=[two])
    receipt = memory.erase([one])
    assert receipt.versions == ((item_id, 1),)
    assert receipt.kept == ((item_id, early) if metadata or entities else (item_id,))


def test_trust_that_was_taken_in_a_version_without_the_one_before_is_not_given_back(memory: Memory) -> None:
    """The version before it, of trust 0.6, is gone: nobody may make 1.0 of it."""
    one, two = add(memory, "one"), add(memory, "two", trust=0.2)
    item_id = add(memory, "Ann is ill", one, trust=0.6)
    memory.update(item_id, text="Ann is well", sources=[two])
    assert memory.get(item_id).trust == 0.2
    memory.erase([one])
    memory.update(two, trust=1.0)
    memory.revoke(WEB)
    memory.reinstate(WEB)
    assert memory.get(item_id).trust == 0.2


def test_an_erasure_that_was_begun_before_is_told_of(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt of the call that finished it said that there was nothing; by ids it was refused."""

    def full(*arguments: object) -> int:
        raise DiskFull("0 bytes free")

    item_id = add(memory, "Ann is ill")
    for again in ({"ids": [item_id]}, {"user_id": "nobody"}):
        with monkeypatch.context() as patch:
            patch.setattr(erasure.StoreErasures, "scrub", full)
            with pytest.raises(DiskFull):
                memory.erase([item_id])
        receipt: ErasureReceipt = memory.erase(**again)  # type: ignore[arg-type]
        assert (receipt.finished, receipt.items) == (1, 0)
        assert memory.stats().pending_erasures == 0
        item_id = add(memory, "Ann is ill")
    assert memory.erase([item_id]).finished == 0
    with pytest.raises(NotFound):
        memory.erase([item_id])
