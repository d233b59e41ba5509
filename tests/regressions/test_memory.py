"""Faults that were found once in the memory layer; each test fails without its fix."""

from __future__ import annotations

import copy
import gc
import io
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import warpmem
from reembedding import Hooked
from warpmem import Config, Memory, NewItem, Scope, errors
from warpmem.index import partitions
from warpmem.index.checkpoint import IndexCheckpoint
from warpmem.ops.clock import FixedClock, to_datetime
from warpmem.storage.memory import MemoryEngine
from warpmem.storage.rocks import RocksEngine

HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def open_memory(**options: Any) -> Memory:
    return warpmem.open(embedder="hashing", **options)


def found(memory: Memory, query: str = "text", **options: Any) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="u", **options)]


# ------------------------------------------------------------------------ searches beside changes


def test_a_search_during_a_deletes_sync_loses_no_other_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_memory(item_cache=1) as memory:
        ids = [result.id for result in memory.add_many([f"text {i}" for i in range(30)], user_id="u")]
        memory.search("text", user_id="u")
        syncing, go_on = threading.Event(), threading.Event()

        def slow_sync(engine: MemoryEngine) -> None:
            syncing.set()
            assert go_on.wait(10)

        monkeypatch.setattr(MemoryEngine, "sync", slow_sync)
        # The committer holds a bound method of its log, which calls the engine's sync by name.
        thread = threading.Thread(target=memory.delete, args=(ids[3],))
        thread.start()
        assert syncing.wait(10)
        assert len(memory.search("text 3", user_id="u", k=10)) == 10
        go_on.set()
        thread.join()
        assert ids[3] not in {hit.item.id for hit in memory.search("text 3", user_id="u", k=30)}


def test_after_a_failed_sync_reads_go_on_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_memory() as memory:
        ids = [result.id for result in memory.add_many([f"text {i}" for i in range(12)], user_id="u")]
        memory.get_many(ids)
        found(memory)
        before = memory.changes()

        def failing(engine: MemoryEngine) -> None:
            raise errors.StoreReadOnly("the disk is gone")

        monkeypatch.setattr(MemoryEngine, "sync", failing)
        with pytest.raises(errors.StoreReadOnly):
            memory.delete(ids[0])
        with pytest.raises(errors.StoreReadOnly):
            memory.update(ids[1], metadata={"n": 1})
        assert len(memory.search("text", user_id="u", k=12)) == 12
        (listed,) = [item for item in memory.list(user_id="u") if item.id == ids[1]]
        assert memory.get(ids[1]) == listed
        assert memory.changes() == before, "the feed told of a change that may be lost"


def test_a_filter_is_not_fooled_by_a_rebuilt_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_SPARE_NAMES", 4)
    with open_memory() as memory:
        for n in range(6):
            memory.add(f"text {n}", user_id="u", metadata={"n": n})
        for n in range(40):
            assert all(
                int(text.split()[1]) >= 3 for text in found(memory, filters={"metadata.n": {"gte": 3}})
            )
            memory.delete(memory.add(f"text {n}", user_id="u", kind="event", metadata={"n": 0}).id)
            if n % 7 == 0:
                memory.add(f"text {50 + n}", user_id="u", metadata={"n": 50 + n})


def test_names_of_removed_rows_do_not_pile_up() -> None:
    """Owners whose items came and went kept some 170 bytes of each, up to 65,536 of them an owner."""
    with open_memory() as memory:
        kept = [memory.add(f"text {n}", user_id="u").id for n in range(3)]
        most = 0
        for round in range(24):
            texts = [f"text {round} {n}" for n in range(500)]
            for added in memory.add_many(texts, user_id="u"):
                memory.delete(added.id)
            assert len(memory.search("text", user_id="u", k=10)) == 3
            (partition,) = memory._index._partitions.values()  # type: ignore[attr-defined]
            most = max(most, len(partition.names))
        assert 1000 <= most <= 6000
        assert {item.id for item in memory.list(user_id="u")} == set(kept)


def test_loading_one_owner_holds_up_no_other_writer() -> None:
    with open_memory() as memory:
        memory.add_many([f"text {i}" for i in range(20)], user_id="big")
        loading, go_on = threading.Event(), threading.Event()
        load = memory._index._load_rows  # type: ignore[attr-defined]

        def slow(owner: int) -> Any:
            for row in load(owner):
                loading.set()
                assert go_on.wait(10)
                yield row

        memory._index._load_rows = slow  # type: ignore[attr-defined]
        memory._index._drop(1, memory._index._partitions.get(1) or partitions.Partition())  # type: ignore[attr-defined]
        results: list[Any] = []
        reader = threading.Thread(target=lambda: results.append(memory.search("text", user_id="big", k=50)))
        reader.start()
        assert loading.wait(10)
        memory.add("text new", user_id="big")
        memory.add("text", user_id="small")
        go_on.set()
        reader.join()
        assert len(results[0]) in (20, 21)
        assert len(memory.search("text", user_id="big", k=50)) == 21, "a change during the load was lost"


def test_returned_vectors_survive_a_concurrent_delete(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "s", dimension=4, durability="os") as memory:
        ids = [memory.add(f"t{i}", user_id="u", vector=np.eye(4)[i % 4]).id for i in range(40)]
        thread = threading.Thread(target=lambda: [memory.delete(item_id) for item_id in ids[:30]])
        thread.start()
        while thread.is_alive():
            result = memory.search(vector=np.ones(4), user_id="u", k=40, return_vectors="numpy")
            assert result.vectors.shape == (len(result), 4)
        thread.join()


# ------------------------------------------------------------------------------- what is stored


@pytest.mark.parametrize(
    "bad",
    [
        {"modality": "video"},
        {"valid_from": datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))},
        {"expires_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))},
        {"scope": "u"},
        {"kind": ""},
    ],
)
def test_no_item_can_make_its_owner_unreadable(bad: dict[str, Any]) -> None:
    with open_memory() as memory:
        memory.add("good text", user_id="u")
        with pytest.raises(errors.InputError):
            memory.add(NewItem(**{"text": "bad text", "scope": Scope(user_id="u"), **bad}))
        assert found(memory) == ["good text"]
        assert memory.delete_all(user_id="u") == 1


@pytest.mark.parametrize("identity", [{"model_id": 5}, {"model_id": ""}, {"dimension": True}])
def test_no_model_can_make_its_store_unreadable(tmp_path: Path, identity: dict[str, Any]) -> None:
    with pytest.raises(errors.InputError):
        warpmem.open(tmp_path / "s", **{"dimension": 4, **identity})
    warpmem.open(tmp_path / "s", dimension=4).close()


def test_a_config_object_is_checked_like_keywords() -> None:
    for fields in ({"durability": "Sync"}, {"embedder": "zzz"}, {"backend": "tpu"}, {"isa": 5}):
        with pytest.raises(errors.InputError):
            warpmem.open(config=Config(**fields))


def test_what_a_caller_does_to_metadata_stays_with_the_caller() -> None:
    with open_memory() as memory:
        item_id = memory.add("text", user_id="u", metadata={"n": 1, "deep": {"list": [1]}}).id
        for item in (memory.get(item_id), memory.search("text", user_id="u")[0].item):
            item.metadata["n"] = 99
            item.metadata["deep"]["list"].append(2)
        assert memory.get(item_id).metadata == {"n": 1, "deep": {"list": [1]}}
        assert found(memory, filters={"metadata.n": 1}) == ["text"]


# ---------------------------------------------------------------------------- opening, closing


def test_a_dropped_memory_gives_its_directory_back(tmp_path: Path) -> None:
    memory = warpmem.open(tmp_path / "s", embedder="hashing")
    memory.add("text", user_id="u")
    del memory
    gc.collect()
    with warpmem.open(tmp_path / "s", embedder="hashing") as again:
        assert found(again) == ["text"]


def test_a_second_close_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = warpmem.open(tmp_path / "s", embedder="hashing")
    close = RocksEngine.close

    def slow(engine: RocksEngine) -> None:
        time.sleep(0.2)
        close(engine)

    monkeypatch.setattr(RocksEngine, "close", slow)
    thread = threading.Thread(target=memory.close)
    thread.start()
    time.sleep(0.05)
    memory.close()
    warpmem.open(tmp_path / "s", embedder="hashing").close()
    thread.join()


def test_ids_ascend_over_a_restart_while_the_clock_stands_still(tmp_path: Path) -> None:
    texts = []
    for start in range(0, 60, 20):
        with warpmem.open(tmp_path / "s", embedder="hashing", clock=FixedClock(START)) as memory:
            for n in range(start, start + 20):
                memory.add(f"text {n}", user_id="u")
                texts.append(f"text {n}")
    with warpmem.open(tmp_path / "s", embedder="hashing", clock=FixedClock(START)) as memory:
        assert [item.text for item in memory.list(user_id="u")] == texts


def test_an_explicit_kind_wins_for_chat_messages() -> None:
    with open_memory() as memory:
        memory.add({"role": "user", "content": "text"}, user_id="u", kind="event")
        assert memory.list(user_id="u").items[0].kind == "event"


def test_a_keyed_item_can_be_ended_up_to_the_next_value() -> None:
    clock = FixedClock(START)
    with open_memory(clock=clock) as memory:
        first = memory.add("text one", user_id="u", key="k", valid_from=START - 9 * HOUR)
        memory.add("text two", user_id="u", key="k", valid_from=START - 5 * HOUR)
        with pytest.raises(errors.InvalidTime, match="next value"):
            memory.update(first.id, valid_to=START - HOUR)
        memory.update(first.id, valid_to=START - 7 * HOUR)
        assert found(memory, as_of=START - 6 * HOUR) == []
        assert found(memory, as_of=START - 8 * HOUR) == ["text one"]
        assert to_datetime(clock.now()) == START


def test_owners_are_listed_page_by_page() -> None:
    with open_memory() as memory:
        scopes = [Scope(user_id="a"), Scope(agent_id="b"), Scope(run_id="c"), Scope(corpus_id="d")]
        for scope in scopes:
            memory.add("text", scope=scope)
        assert memory.owners() == tuple(scopes)
        assert memory.owners(limit=2) + memory.owners(after=scopes[1]) == tuple(scopes)


@pytest.mark.parametrize("k", [10, 4096])
def test_a_filter_finds_an_item_that_is_updated_all_the_time(k: int) -> None:
    """Each scan met a newer row than its mask knew, and after some tries the item was missing."""
    with open_memory() as memory:
        item = memory.add("steady", user_id="u", metadata={"steady": True}).id
        memory.add("other", user_id="u", metadata={"steady": False})
        search = memory._index.search

        def late(*arguments: Any) -> Any:
            memory.update(item, priority=0.5)
            memory.update(memory.add("passing", user_id="u", kind="event").id, priority=0.1)
            return search(*arguments)

        memory._index.search = late  # type: ignore[method-assign]
        for _ in range(3):
            result = memory.search("steady", user_id="u", k=k, filters={"metadata.steady": True})
            assert [hit.item.id for hit in result] == [item]
        both = [warpmem.Scope(user_id="u"), warpmem.Scope(user_id="u")]
        result = memory.search("steady", scopes=both, k=min(k, 2048), filters={"metadata.steady": True})
        assert [hit.item.id for hit in result] == [item]


# -------------------------------------------------------------------------------- erasing beside a job


def test_an_erasure_is_told_to_the_embedder_of_the_model_to_come() -> None:
    """It had embedded the erased texts for the change of the model, and remembered them."""
    told: list[str] = []

    class Remembering(Hooked):
        """An embedder that says when it is to forget."""

        def forget(self) -> None:
            told.append(self.model_id)

    def beside(texts: Any) -> None:
        if not told:
            memory.erase(user_id="gone")

    with warpmem.open(None, embedder=Remembering(16)) as memory:
        memory.add("to be erased", user_id="gone")
        memory.add("to stay", user_id="u")
        coming = Remembering(24, beside)
        memory.reembed(coming)
        assert told == [f"hashing-{dimension}-v1" for dimension in (16, 24)]
        memory.add("to be erased", user_id="gone")
        memory.erase(user_id="gone")
        assert told[2:] == ["hashing-24-v1"]


def test_an_erasure_goes_on_when_the_saved_index_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch of models deleted it between the look and the deletion: the erasure failed over that."""
    with open_memory(path=tmp_path) as memory:
        memory.add("text", user_id="u")
        memory.checkpoint()

        def switch(checkpoint: IndexCheckpoint, *arguments: Any) -> bool:
            checkpoint.discard()
            return False

        monkeypatch.setattr(IndexCheckpoint, "write", switch)
        assert memory.erase(user_id="u").checkpoint == "removed"
        assert memory.stats().pending_erasures == 0


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        ({"created_at": "2025-01-01T00:00:00-08:00"}, None),
        ({"created_at": "2024-01-01T00:00:00Z", "valid_from": "2025-01-01T08:00:00Z"}, None),
        ({"created_at": "2025-01-01T00:00:00"}, "created_at is a naive datetime"),
        ({"created_at": "2025-01-02T00:00:00Z", "valid_to": "2025-01-01T00:00:00Z"}, "before created_at"),
    ],
)
def test_rows_of_other_stores_keep_their_dates(times: dict[str, str], refused: str | None) -> None:
    """They have a created_at and no valid_from: what they say was true from the moment of the import on, so
    that no search of a time before found it, and it counted as new."""
    with open_memory() as memory:
        line = msgspec.json.encode({"user_id": "u", "text": "Ann likes tea.", **times})
        report = memory.import_(io.BytesIO(line))
        if refused is not None:
            assert report.stopped and refused in report.refused[0][1]
            return
        (hit,) = memory.search("tea", user_id="u", as_of=datetime(2025, 2, 1, tzinfo=UTC))
        assert hit.item.valid_from == datetime(2025, 1, 1, 8, tzinfo=UTC)
        assert hit.item.created_at > hit.item.valid_from


@pytest.mark.parametrize("take", [ForkingPickler.dumps, copy.copy, copy.deepcopy])
def test_a_memory_says_that_it_goes_to_no_other_process(take: Any) -> None:
    """Whoever gave one to a pool of processes was told of a local object of the store's own code."""
    with open_memory() as memory:
        asynchronous = warpmem.AsyncMemory(memory)
        for given in (memory, asynchronous, {"store": memory}):
            if take is copy.copy and given is not memory:
                continue
            with pytest.raises(errors.NotSupported, match="open the store there"):
                take(given)
