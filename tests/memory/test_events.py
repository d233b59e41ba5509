"""What the logger "warpmem" is told, and what it never is."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import Ranking
from warpmem.errors import InputError, NotFound, Overloaded, StoreReadOnly
from warpmem.ops import events

CANARIES = ("qjvxkz", "wqpxvj", "zkqvwy")
WORD, NAME, KEY = CANARIES


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [vars(record) for record in self.all if vars(record).get("event") == event]


@pytest.fixture
def heard() -> Iterator[Records]:
    """Every record of every logger at DEBUG."""
    root, handler = logging.getLogger(), Records()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


class Full:
    model_id = "full"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        raise Overloaded("too much", 1.0)


def everything(path: Path) -> None:
    """Most of what a store does, with canaries in every text and name."""
    with warpmem.open(path / "store", embedder="hashing") as memory:
        whose = {"user_id": NAME}
        added = memory.add(
            [f"{WORD} {n}" for n in range(3)], kind=KEY, metadata={KEY: WORD}, idempotency_key=KEY, **whose
        )
        memory.add(f"{WORD} keyed", key=KEY, **whose)
        memory.add(f"{WORD} keyed anew", key=KEY, **whose)
        for mode in ("dense", "lexical", "hybrid"):
            memory.search(f"{WORD} 1", mode=mode, filters={f"metadata.{KEY}": WORD}, explain=True, **whose)
        memory.search(f"{WORD} 1", rerank=Full(), ranking=Ranking(recency=0.5), **whose)
        memory.context(WORD, **whose)
        memory.update(added[0].id, text=f"{WORD} changed", metadata={KEY: KEY})
        memory.export(path / "lines")
        memory.import_(path / "lines", again=True)
        memory.reembed(embedder=lambda texts: np.ones((len(texts), 4)), dimension=4, model_id="ones")
        memory.backup(path / "backups")
        memory.delete(added[1].id)
        for fault in (
            lambda: memory.search(f"{WORD}", filters={KEY: {WORD: 1}}, **whose),
            lambda: memory.add("", **whose),
            lambda: memory.add(f"{WORD} {WORD}", vector=[1.0], **whose),
            lambda: memory.erase([WORD]),
        ):
            with pytest.raises((InputError, NotFound)):
                fault()
        memory.erase(**whose)


def test_no_text_and_no_name_is_ever_told(tmp_path: Path, heard: Records) -> None:
    written = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(written)
    try:
        everything(tmp_path)
    finally:
        logging.getLogger().removeHandler(written)
    told = repr([vars(record) for record in heard.all]) + written.stream.getvalue()
    assert not re.search("|".join(CANARIES), told)
    assert {vars(record)["event"] for record in heard.all if record.name == "warpmem"} >= {
        "opened", "add", "search", "degraded", "failed", "imported", "reembedded", "backed up", "erased",
        "closed",
    }  # fmt: skip


def test_fields_are_told_beside_the_name(heard: Records) -> None:
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add(["one", "two"], user_id="a")
        memory.search("one", user_id="a", rerank=Full())
    (opened,) = heard.of("opened")
    assert (opened["items"], opened["dimension"], opened["read_only"]) == (0, 256, False)
    (added,) = heard.of("add")
    assert added["count"] == 2 and added["seconds"] > 0
    (search,) = heard.of("search")
    assert (search["queries"], search["hits"], search["skipped"]) == (1, 2, ["rerank"])
    assert set(search["stages"]) == {"prepare", "scan", "fetch", "rerank"}
    (degraded,) = heard.of("degraded")
    assert (degraded["levelname"], degraded["skipped"]) == ("DEBUG", ["rerank"])
    assert all(record.name == "warpmem" for record in heard.all if "event" in vars(record))


def test_a_sync_that_fails_is_an_error(
    tmp_path: Path, heard: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        memory.add("one", user_id="a")

        def fails() -> None:
            raise StoreReadOnly("the disk is gone")

        monkeypatch.setattr(memory._log._engine, "sync", fails)  # type: ignore[attr-defined]
        with pytest.raises(StoreReadOnly):
            memory.add("two", user_id="a")
    (failed,) = heard.of("sync failed")
    assert (failed["levelname"], failed["error"]) == ("ERROR", "StoreReadOnly")


def test_nobody_listening_costs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events._logger, "_log", lambda *_, **__: pytest.fail("a record was made"))
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add("one", user_id="a")
        memory.search("one", user_id="a")
