"""Faults of processes that follow, mended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import warpmem
from image_models import RED, ColourTextEmbedder, picture
from warpmem import AddResult, NewItem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import FormatError, InputError, ModelMismatch, StoreClosed, StoreError
from warpmem.storage.follow import FollowingLog
from warpmem.storage.rocks_follow import FollowingEngine


def test_a_deletion_that_left_the_tables_between_two_refreshes_is_seen(tmp_path: Path) -> None:
    """RocksDB kept a value that it had read from a log in memory, after tables had neither it nor its end."""
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        added = memory.add("has a cat", user_id="ann")
        assert isinstance(added, AddResult)
        with warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=0) as follower:
            assert follower.get(added.id).text == "has a cat"
            memory.delete(added.id)
            everything = [(family, b"", b"\xff" * 64) for family in ("items", "vectors", "listing")]
            memory._log._engine.compact(everything)  # type: ignore[attr-defined]
            follower.refresh()
            assert follower.get_many([added.id]) == (None,)


def test_beginning_anew_is_tried_again_when_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower took note of the files first; then it went on showing what had been erased."""
    with warpmem.open(tmp_path, embedder="hashing") as writer:
        added = writer.add("to be erased", user_id="ann")
        assert isinstance(added, AddResult)
        with warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=0) as follower:
            assert follower.get(added.id).text == "to be erased"
            writer.erase([added.id])

            def fail(self: FollowingEngine, before: Mapping[str, int]) -> None:
                raise StoreError("no place for links")

            with monkeypatch.context() as patch:
                patch.setattr(FollowingEngine, "_begin_anew", fail)
                with pytest.raises(StoreError, match="no place"):
                    follower.refresh()
            follower.refresh()
            assert follower.get_many([added.id]) == (None,)


def test_an_owner_that_is_loaded_after_a_change_of_the_model_is_refused(tmp_path: Path) -> None:
    """The writer's new model stands in the other family: a follower found the old one empty, and said that
    an owner whom it had not loaded before has nothing."""
    with warpmem.open(tmp_path, embedder=HashingEmbedder(16)) as writer:
        for user in ("ann", "bob"):
            writer.add("a fact", user_id=user)
        with warpmem.open(tmp_path, embedder=HashingEmbedder(16), follow=True, follow_ms=0) as follower:
            assert len(follower.search("fact", user_id="ann")) == 1
            writer.reembed(HashingEmbedder(24))
            with pytest.raises(ModelMismatch, match="open it again"):
                follower.refresh()
            with pytest.raises(ModelMismatch, match="open it again"):
                follower.search("fact", user_id="bob")


def test_a_space_that_is_made_after_a_follower_opened_is_searched_by_words(tmp_path: Path) -> None:
    """It was missing until the follower was opened again, since it had no embedder for it."""
    models: dict[str, Any] = {"image": ColourTextEmbedder(), "code": HashingEmbedder(24)}
    with warpmem.open(tmp_path, embedder="hashing", embedders=models) as writer:
        writer.add("Porto", user_id="ann")
        with warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=0) as follower:

            def spaces() -> list[str]:
                return sorted(hit.space for hit in follower.search("Porto", user_id="ann", mode="lexical"))

            assert spaces() == ["text"]
            writer.add("a bridge in Porto", image=picture(RED), user_id="ann", entities=["Porto"])
            follower.refresh()
            assert spaces() == ["image", "text"] and follower.stats().spaces["image"]["dimension"] == 24
            assert [entity.name for entity in follower.entities(user_id="ann").entities] == ["Porto"]
            with pytest.raises(InputError, match="opened without the embedder"):
                follower.search(image=picture(RED), user_id="ann")
            gone = writer.add("to be erased", user_id="ann")
            assert isinstance(gone, AddResult)
            writer.add(NewItem(text="city = 'Porto'", modality="code"), user_id="ann")
            writer.erase([gone.id])  # the owner is read anew, and no row is told of
            follower.refresh()
            assert spaces() == ["code", "image", "text"]


def test_a_follower_that_is_dropped_while_it_refreshes_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector may drop a Memory on the thread that refreshes it, in the middle of that: the thread
    waited for itself, and the store was never closed."""
    with warpmem.open(tmp_path, embedder="hashing") as writer:
        writer.add("a fact", user_id="ann")
        refresh, done = FollowingLog.refresh, threading.Event()

        def dropped(log: FollowingLog) -> int:
            engine: Any = log._following
            with engine._reading():
                log.close()
            done.set()
            return refresh(log)

        monkeypatch.setattr(FollowingLog, "refresh", dropped)
        follower = warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=1)
        log: Any = follower._log
        assert done.wait(10)
        log._thread.join(10)
        assert not log._thread.is_alive()
        with pytest.raises(StoreClosed):
            log._engine.get("meta", b"x")
        follower.close()


@pytest.mark.parametrize("how", ["follow", "read_only"])
def test_where_there_is_no_store_nobody_is_told_of_another_option(tmp_path: Path, how: str) -> None:
    """Whoever asked for follow=True was told that read_only=True creates no store."""
    (tmp_path / "empty").mkdir()
    for place in ("absent", "empty"):
        with pytest.raises(FormatError, match=r"only opening for writing creates one"):
            warpmem.open(tmp_path / place, **{how: True})  # type: ignore[arg-type]
