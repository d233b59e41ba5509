"""near_duplicate: other wordings of what is stored come in its place, and what is not another wording does
not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.errors import InputError
from warpmem.ops.clock import FixedClock


@pytest.fixture(params=["memory", "disk"])
def near(request: pytest.FixtureRequest, clock: FixedClock, tmp_path: Path) -> Iterator[Memory]:
    path = None if request.param == "memory" else tmp_path / "store"
    with warpmem.open(path, dimension=3, clock=clock, durability="os", near_duplicate=0.95) as opened:
        yield opened


def add(memory: Memory, text: str, vector: list[float], **fields: object) -> warpmem.AddResult:
    result = memory.add(NewItem(text=text, vector=vector, **fields), user_id="u")  # type: ignore[arg-type]
    assert isinstance(result, warpmem.AddResult)
    return result


def test_another_wording_becomes_the_next_version(near: Memory) -> None:
    first = add(near, "she likes tea", [1, 0, 0], sources=["a"], entities=["x"], priority=0.25)
    second = add(near, "she enjoys tea", [1, 0.1, 0], sources=["b"], entities=["x"])
    assert (second.id, second.action) == (first.id, "merged")
    item = near.get(first.id)
    assert (item.text, item.version, item.sources, item.entities) == ("she enjoys tea", 2, ("a", "b"), ("x",))
    assert item.priority == 0.5
    last = near.history(first.id)[-1]
    assert (last.operation, last.reason) == ("merge", "another wording of version 1: cosine 0.9950")
    assert near.search(vector=[1, 0.1, 0], user_id="u")[0].score == pytest.approx(1.0)
    assert near.revert(first.id, 1).text == "she likes tea"
    assert add(near, "She likes tea", [1, 0, 0]).action == "touched"


@pytest.mark.parametrize(
    "other",
    [
        {"text": "she meets them at 10"},
        {"text": "Ann meets them at 9"},
        {"kind": "preference"},
        {"metadata": {"a": 1}},
        {"key": "meeting"},
        {"modality": "code"},
        {"trust": 0.75},
        {"scope": warpmem.Scope(user_id="u", agent_id="a")},
        {"vector": [1, 1, 0]},
        {"kind": "event"},
    ],
)
def test_what_says_more_than_another_wording_is_added(near: Memory, other: dict[str, object]) -> None:
    add(near, "she meets them at 9", [1, 0, 0])
    fields = {"text": "she will meet them at 9", "vector": [1, 0.1, 0], **other}
    assert add(near, **fields).action == "added"  # type: ignore[arg-type]


def test_items_of_one_call_are_compared_too(near: Memory) -> None:
    results = near.add_many(
        [
            NewItem(text="she likes tea", vector=[1, 0, 0]),
            NewItem(text="it rains", vector=[0, 1, 0]),
            NewItem(text="she enjoys tea", vector=[1, 0.1, 0]),
            NewItem(text="tea is what she likes", vector=[1, 0, 0.05]),
        ],
        user_id="u",
    )
    assert [result.action for result in results] == ["added", "added", "merged", "merged"]
    assert {result.id for result in results[2:]} == {results[0].id}
    assert near.count(user_id="u") == 2


def test_writers_at_the_same_time_add_one(near: Memory) -> None:
    wordings = [f"{word} likes tea" for word in ("she", "he", "it", "one", "who", "that", "this", "they")]
    start = threading.Barrier(len(wordings))

    def write(text: str) -> None:
        start.wait()
        add(near, text, [1, 0, 0])

    threads = [threading.Thread(target=write, args=(text,)) for text in wordings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert near.count(user_id="u") == 1
    assert len(near.history(near.list(user_id="u").items[0].id)) == len(wordings)


def test_without_a_threshold_only_equal_texts_are_duplicates(clock: FixedClock) -> None:
    with warpmem.open(dimension=3, clock=clock) as memory:
        add(memory, "she likes tea", [1, 0, 0])
        assert add(memory, "she enjoys tea", [1, 0, 0]).action == "added"


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, float("nan")])
def test_a_threshold_is_a_cosine(threshold: float) -> None:
    with pytest.raises(InputError, match="near_duplicate"):
        warpmem.open(dimension=3, near_duplicate=threshold)
