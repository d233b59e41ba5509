"""Streams of texts to train with: who agreed, each once, resumable, in shards that share nothing."""

from __future__ import annotations

import io
import json
import random
import sys
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory, NewItem, Scope, TrainingRecord
from warpmem.errors import InputError
from warpmem.ingest.normalize import normalize_text

YES = {"consent": {"training": True}}


def fill(memory: Memory, rng: random.Random, count: int) -> None:
    for number in range(count):
        text = rng.choice(["A b", "a  B", *(f"text {rng.randrange(count)}" for _ in range(6))])
        memory.add(
            NewItem(text=text, metadata=rng.choice([YES, YES, YES, {}])),
            user_id=f"u{rng.randrange(5)}",
            kind=rng.choice(["fact", "event"]),
            priority=number % 2,
        )  # fmt: skip


def test_only_what_was_agreed_to_and_what_is_current(memory: Memory) -> None:
    kept = memory.add(NewItem(text="yes", metadata=YES, sources=("doc",)), user_id="ann").id
    for refused in (
        {},
        {"consent": {"training": False}},
        {"consent": {"training": "yes"}},
        {"consent": True},
    ):
        memory.add(NewItem(text=f"no {refused}", metadata=refused), user_id="ann")
    memory.add(NewItem(text="unsure", metadata=YES, trust=0.4), user_id="ann")
    memory.add(NewItem(text="old", metadata=YES, key="k"), user_id="ann")
    new = memory.add(NewItem(text="new", metadata=YES, key="k"), user_id="ann").id
    memory.delete(memory.add(NewItem(text="gone", metadata=YES), user_id="ann").id)
    first, second = memory.training_stream()
    assert (first.ids, second.ids) == ((kept,), (new,))
    assert first == TrainingRecord(
        text="yes", ids=(kept,), kind="fact", at=memory.get(kept).valid_from, sources=("doc",), consent=True
    )
    assert {record.text for record in memory.training_stream(consent=None, min_trust=0.0)} >= {
        "unsure",
        "yes",
    }
    assert next(memory.training_stream(consent=None)).consent is None
    memory.add(NewItem(text="asked", metadata={"consent.training": True}), user_id="ann")
    assert [r.text for r in memory.training_stream(consent='"consent.training"')] == ["asked"]
    assert [r.text for r in memory.training_stream(filters={"text": "new"})] == ["new"]
    assert not list(memory.training_stream(kinds=["event"]))
    assert not list(memory.training_stream([Scope(user_id="bob")]))


def test_each_text_once_whoever_said_it(memory: Memory) -> None:
    for user in ("ann", "bob"):
        for text in ("Hello there", "HELLO  there", "ｈello there", f"I am {user}"):
            memory.add(NewItem(text=text, metadata=YES), user_id=user, kind="event")
    assert [record.text for record in memory.training_stream()] == ["Hello there", "I am ann", "I am bob"]


def test_pairs_are_a_user_and_the_assistant_who_answers_in_the_same_run(memory: Memory) -> None:
    said = [
        ("r1", "user", "q1"), ("r2", "user", "q2"), ("r1", "assistant", "a1"), ("r2", "tool", "t"),
        ("r2", "assistant", "not an answer to the user"), ("r1", "assistant", "a1 goes on"),
        ("r1", "user", "q3"), ("r1", "user", "q4"), ("r1", "assistant", "a4"), ("r1", "user", "open"),
    ]  # fmt: skip
    for run, role, text in said:
        memory.add({"role": role, "content": text}, user_id="ann", run_id=run, metadata=YES)
    refused = memory.add({"role": "user", "content": "private"}, user_id="ann", run_id="r3")
    memory.add({"role": "assistant", "content": "answer"}, user_id="ann", run_id="r3", metadata=YES)
    pairs = list(memory.training_stream(pairs=True))
    assert [(pair.text, pair.response) for pair in pairs] == [("q1", "a1"), ("q4", "a4")]
    assert all(len(pair.ids) == 2 and refused.id not in pair.ids for pair in pairs)


@pytest.mark.parametrize("pairs", [False, True])
def test_shards_share_nothing_and_are_everything(memory: Memory, pairs: bool) -> None:
    rng = random.Random(7)
    for number in range(120):
        memory.add(
            {"role": ("user", "assistant")[number % 2], "content": f"text {rng.randrange(60)}"},
            user_id=f"u{number % 3}", metadata=YES,
        )  # fmt: skip
    whole = [record.ids for record in memory.training_stream(pairs=pairs)]
    shards = [
        [
            (record.ids, record.text, record.response)
            for record in memory.training_stream(pairs=pairs, shard=(number, 4))
        ]
        for number in range(4)
    ]  # fmt: skip
    assert all(shards) and sorted(ids for shard in shards for ids, _, _ in shard) == sorted(whole)
    texts = [{(text, response) for _, text, response in shard} for shard in shards]
    assert len(set.union(*texts)) == sum(map(len, texts)) == len(whole)


@pytest.mark.parametrize("scopes", [None, [Scope(user_id="u3"), Scope(user_id="u1")]])
def test_a_cursor_goes_on_behind_every_record(memory: Memory, scopes: list[Scope] | None) -> None:
    fill(memory, random.Random(3), 60)
    stream = memory.training_stream(scopes)
    assert stream.cursor is None
    seen, cursors = [], []
    for record in stream:
        seen.append(record)
        cursors.append(stream.cursor)
    assert len(seen) > 10
    assert len({normalize_text(record.text) for record in seen}) == len(seen)
    for place, cursor in enumerate(cursors, 1):
        assert list(memory.training_stream(scopes, cursor=cursor)) == seen[place:]
    gone = seen[5]
    memory.delete(gone.ids[0])
    rest = [record.ids for record in memory.training_stream(scopes, cursor=cursors[5])]
    assert rest[-1] == seen[-1].ids and gone.ids not in rest


def test_write_appends_lines_and_goes_on(memory: Memory, tmp_path: Path) -> None:
    fill(memory, random.Random(5), 40)
    whole = io.BytesIO()
    total = memory.training_stream().write(whole)
    file, cursor, count = tmp_path / "texts.jsonl", None, 0
    while True:
        stream = memory.training_stream(cursor=cursor)
        wrote = stream.write(file, limit=7)
        count += wrote
        if not wrote:
            break
        cursor = stream.cursor
    assert count == total > 14 and file.read_bytes() == whole.getvalue()
    line = json.loads(file.read_bytes().splitlines()[0])
    assert line["consent"] is True and line["ids"] and datetime.fromisoformat(line["at"]).tzinfo == UTC
    with pytest.raises(InputError, match="cannot write"):
        memory.training_stream().write(tmp_path / "no" / "file")
    with pytest.raises(InputError, match="limit"):
        memory.training_stream().write(file, limit=0)


def test_bad_arguments(memory: Memory) -> None:
    fill(memory, random.Random(1), 20)
    stream = memory.training_stream()
    next(stream)
    cursor = stream.cursor
    assert cursor is not None and "text" not in cursor
    bad: list[dict[str, Any]] = [
        {"kinds": []}, {"kinds": ["No"]}, {"filters": {"x": 1}}, {"min_trust": 2}, {"consent": ""},
        {"consent": "a..b"}, {"consent": 3}, {"pairs": 1}, {"shard": (1, 1)}, {"shard": (-1, 2)},
        {"shard": 3}, {"shard": (True, 2)}, {"shard": (0, 1 << 30)}, {"cursor": "?"}, {"cursor": 4},
        {"cursor": cursor[:-4]},
        {"cursor": cursor, "kinds": ["fact"]}, {"cursor": cursor, "shard": (0, 2)}, {"scopes": []},
        {"cursor": "wAAA"}, {"cursor": "k8QIAAAAAAAAAAAAoA=="},
    ]  # fmt: skip
    for arguments in bad:
        with pytest.raises(InputError):
            memory.training_stream(**arguments)
    with warpmem.open(None, embedder="hashing") as other, pytest.raises(InputError, match="another store"):
        other.training_stream(cursor=cursor)


# ------------------------------------------------------------------------------------------------ torch


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """TrainingDataset over a stand-in for what it takes of torch; tests/real has the real one."""
    workers: list[tuple[int, int]] = []

    class IterableDataset:
        def __class_getitem__(cls, item: Any) -> type:
            return cls

    data = types.ModuleType("torch.utils.data")
    data.IterableDataset = IterableDataset  # type: ignore[attr-defined]
    data.get_worker_info = lambda: (  # type: ignore[attr-defined]
        types.SimpleNamespace(id=workers[-1][0], num_workers=workers[-1][1]) if workers else None
    )
    for name in ("torch", "torch.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch.utils.data", data)
    monkeypatch.delitem(sys.modules, "warpmem.integrations.torch", raising=False)
    from warpmem.integrations.torch import TrainingDataset

    def made(*arguments: Any, worker: tuple[int, int] | None = None, **named: Any) -> Any:
        workers.clear()
        if worker is not None:
            workers.append(worker)
        return TrainingDataset(*arguments, **named)

    yield made
    sys.modules.pop("warpmem.integrations.torch", None)


def test_workers_and_ranks_of_a_dataset_share_nothing(tmp_path: Path, dataset: Callable[..., Any]) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing") as memory:
        fill(memory, random.Random(11), 50)
        whole = sorted(record.ids for record in memory.training_stream())
        found = []
        for rank in range(2):
            for worker in range(3):
                made = dataset(path, shard=(rank, 2), transform=lambda record: record.ids, worker=(worker, 3))
                part = list(made)
                found += part
                assert list(made) == part, "the second epoch"
        assert sorted(found) == whole


def test_a_dataset_goes_on_from_its_state(tmp_path: Path, dataset: Callable[..., Any]) -> None:
    path = tmp_path / "store"
    with warpmem.open(path, embedder="hashing") as memory:
        fill(memory, random.Random(12), 30)
    first = dataset(path)
    running = iter(first)
    begun = [next(running) for _ in range(4)]
    state = json.loads(json.dumps(first.state_dict()))
    running.close()
    second = dataset(path)
    second.load_state_dict(state)
    assert [*begun, *second] == list(dataset(path))
    assert list(second) == list(dataset(path)) and second.state_dict() == {"cursors": {}}
    for wrong in ({}, {"cursors": 1}, {"cursors": {"0/1": 4}}, 3):
        with pytest.raises(InputError):
            second.load_state_dict(wrong)
    with pytest.raises(InputError, match="cursors"):
        dataset(path, cursor="x")


def test_a_look_at_a_dataset_costs_nothing_of_it(tmp_path: Path, dataset: Callable[..., Any]) -> None:
    """An iteration that was given up left its cursor behind, and the next one began there."""
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        fill(memory, random.Random(12), 30)
    made = dataset(tmp_path / "store")
    first = next(iter(made))
    assert next(iter(made)) == first and list(made) == list(dataset(tmp_path / "store"))
