"""A Memory as LangGraph's store: beside LangGraph's own in memory, under LangMem's tools, and in a graph.
Prints a report as JSON."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
)
from langgraph.store.memory import InMemoryStore
from langmem import create_manage_memory_tool, create_search_memory_tool
from typing_extensions import TypedDict

import warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError
from warpmem.integrations.langgraph import MemoryStore

USERS = ("ann", "bob")
WORDS = ["tea", "coffee", "harbour", "train", "violin", "garden", "winter", "letter", "bridge", "lemon"]


def told(item: Any) -> Any:
    """What two stores have to agree on."""
    return None if item is None else (item.namespace, item.key, json.dumps(item.value, sort_keys=True))


def alike(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether these are the same scores, one computed in float32 and the other in float64."""
    return len(left) == len(right) and all(abs(a - b) < 1e-5 for a, b in zip(left, right, strict=True))


def value(pick: random.Random) -> dict[str, Any]:
    """Something to remember."""
    made: dict[str, Any] = {"text": " ".join(pick.choices(WORDS, k=4)), "level": pick.randrange(5)}
    if pick.random() < 0.5:
        made["about"] = {"town": pick.choice(["Porto", "Faro"]), "deep": {"seen": pick.random() < 0.5}}
    if pick.random() < 0.3:
        made["gone"] = None
    if pick.random() < 0.5:
        made["about.town"] = {"is": pick.choice(["Porto", "Faro"]), '"is"': 1}
    return made


def condition(pick: random.Random) -> dict[str, Any] | None:
    """A filter, or none."""
    return pick.choice(
        [
            None,
            {"level": 3},
            {"level": {"$ne": 2}},
            {"level": {"$gte": 1, "$lt": 4}},
            {"about": {"town": "Faro"}},
            {"gone": None},
            {"about": {"deep": {"seen": True}}, "level": {"$gt": 0}},
            {"text": {"$eq": "tea"}},
            {"about.town": {"is": "Faro", '"is"': {"$gte": 1}}},
        ]
    )


def beside(ours: BaseStore, theirs: BaseStore, steps: int) -> dict[str, int]:
    """The same random operations on both; counts of what was compared. Raises AssertionError."""
    pick = random.Random(7)
    counts = {"get": 0, "list": 0, "search": 0, "namespaces": 0, "found": 0}
    for step in range(steps):
        user = pick.choice(USERS)
        space = ("memories", user, *pick.choice([(), ("likes",), ("likes", "food"), ("plans",)]))
        key = f"k{pick.randrange(12)}"
        draw = pick.random()
        if draw < 0.45:
            kept = value(pick)
            for store in (ours, theirs):
                store.put(space, key, kept)
        elif draw < 0.55:
            for store in (ours, theirs):
                store.delete(space, key)
        elif draw < 0.7:
            counts["get"] += 1
            assert told(ours.get(space, key)) == told(theirs.get(space, key)), step
        elif draw < 0.8:
            counts["list"] += 1
            prefix, where = space[: pick.randrange(2, len(space) + 1)], condition(pick)
            lists = [sorted(map(told, s.search(prefix, filter=where, limit=1000))) for s in (ours, theirs)]
            assert lists[0] == lists[1], (step, where, lists)
            counts["found"] += len(lists[0])
            paged = [
                told(item)
                for n in range(0, 60, 7)
                for item in ours.search(prefix, filter=where, limit=7, offset=n)
            ]
            assert sorted(paged) == lists[0], step
        elif draw < 0.95:
            counts["search"] += 1
            prefix, where = space[: pick.randrange(2, len(space) + 1)], condition(pick)
            query, limit = " ".join(pick.choices(WORDS, k=2)), pick.choice([1, 3, 100])
            both = [s.search(prefix, query=query, filter=where, limit=limit) for s in (ours, theirs)]
            assert alike(*([item.score for item in found] for found in both)), step
            if limit == 100:
                left, right = ({told(item): item.score for item in found} for found in both)
                assert left.keys() == right.keys(), step
                assert alike(list(left.values()), [right[key] for key in left]), step
        else:
            counts["namespaces"] += 1
            conditions = (
                MatchCondition("prefix", ("memories", user)),
                MatchCondition("suffix", ("*", "food")),
            )
            for wanted in (conditions, conditions[:1]):
                for depth in (None, 3):
                    (left,), (right,) = (s.batch([ListNamespacesOp(wanted, depth)]) for s in (ours, theirs))
                    # Theirs keeps the name of a namespace that was emptied.
                    assert set(left) <= set(right) and sorted(left) == left, (step, left, right)
                    assert all(ours.search(space, limit=1) for space in left)
    return counts


def embed(texts: list[str]) -> list[list[float]]:
    """The vectors that the store makes of texts."""
    return [vector.tolist() for vector in HashingEmbedder().embed(texts, role="document")]


def refusals(store: BaseStore) -> list[str]:
    """What is refused, by the names of the errors."""
    calls: list[Any] = [
        lambda: store.put(("memories",), "k", {"text": "nobody's"}),
        lambda: store.search((), query="tea"),
        lambda: store.list_namespaces(),
        lambda: store.batch([PutOp(("memories", "a.b"), "k", {"text": "x"})]),
        lambda: store.search(("memories", "ann"), filter={"a": {"$regex": "x"}}),
        lambda: store.search(("memories", "ann"), filter={"a": [1]}),
        lambda: store.search(("memories", "ann"), filter={1: 1}),
        lambda: MemoryStore(warpmem.AsyncMemory(warpmem.open(None, embedder="hashing")), user=1),
        lambda: store.search(("memories", "ann"), filter={"a": {}}),
        lambda: store.put(("memories", "ann"), "k", {"text": "x"}, ttl=1e12),
        lambda: store.put(("memories", "ann"), "k", {"text": "x"}, ttl=float("nan")),
        lambda: store.put(("memories", "ann"), "k", {"text": "x" * 70_000}),
        lambda: store.put(("memories", "ann"), "k", {"when": datetime.now(UTC)}),
        lambda: store.batch([GetOp((), "k")]),
    ]  # fmt: skip
    names = []
    for call in calls:
        try:
            call()
            names.append("none")
        except (InputError, InvalidNamespaceError) as error:
            names.append(type(error).__name__)
    return names


class State(TypedDict):
    """The state of a graph of one node."""

    said: str


def graph(store: BaseStore) -> str:
    """What a node of a compiled graph finds."""

    def node(state: State, *, store: BaseStore) -> State:
        found = store.search(("memories", "ann"), query="tea at the harbour", limit=1)
        return {"said": found[0].value["text"]}

    built = StateGraph(State)
    built.add_node("node", node)
    built.add_edge(START, "node")
    built.add_edge("node", END)
    said: str = built.compile(store=store).invoke({"said": ""})["said"]
    return said


def main(folder: str) -> None:
    """Everything, one after the other."""
    report: dict[str, Any] = {}
    path = f"{folder}/store"
    with warpmem.open(path, embedder="hashing", durability="os") as memory:
        ours = MemoryStore(memory, user=1, fields=["text"], mode="dense")
        theirs = InMemoryStore(index={"dims": memory.stats().dimension, "embed": embed, "fields": ["text"]})
        report["counts"] = beside(ours, theirs, 1500)
        report["refused"] = refusals(ours)

        space = ("memories", "eve")
        tool = create_manage_memory_tool(("memories", "{user_id}"), store=ours)
        asked = {"configurable": {"user_id": "eve"}}
        told_id = tool.invoke({"content": "Eve likes tea at the harbour.", "action": "create"}, asked)
        (item,) = ours.search(space, limit=10)
        report["created"] = item.key in told_id
        tool.invoke({"content": "Eve likes coffee.", "action": "update", "id": item.key}, asked)
        again = ours.get(space, item.key)
        report["updated"] = again.value["content"], again.created_at == item.created_at < again.updated_at
        looking = create_search_memory_tool(("memories", "{user_id}"), store=ours)
        report["found"] = [
            found["value"]["content"] for found in json.loads(looking.invoke({"query": "coffee"}, asked))
        ]
        report["timeline"] = [item.text for item in memory.timeline(user_id="eve").items]
        tool.invoke({"action": "delete", "id": item.key}, asked)
        report["deleted"] = ours.get(space, item.key) is None

        for store in (ours, theirs):
            store.put(space, "plain", {"text": "tea in winter"})
            store.put(space, "hidden", {"text": "tea in secret"}, index=False)
        report["unindexed"] = [item.key for item in ours.search(space, query="tea")]
        report["hidden"] = ours.get(space, "hidden").value
        report["several"] = asyncio.run(several(ours))
        report["touched"] = touched(ours, memory)
        report["ttl"] = ttl(ours, memory)
        ours.put(("memories", "ann"), "t", {"text": "tea at the harbour"})
        report["graph"] = graph(ours)
        (known,) = memory.list(user_id="short", filters={"metadata.langgraph.key": "read"}).items
        memory.update(known.id, expires_at=datetime.now(UTC) + timedelta(minutes=20))
    with warpmem.open(path, embedder="hashing", read_only=True) as memory:
        store = MemoryStore(memory, user=1)
        report["kept"] = store.get(("memories", "eve"), "plain").value
        report["short"] = store.get(("memories", "short"), "read").value
    print(json.dumps(report))


async def several(store: BaseStore) -> int:
    """Values put by many tasks at a time."""
    await asyncio.gather(
        *(store.aput(("memories", "many"), f"k{n}", {"text": f"tea {n}"}) for n in range(50))
    )
    return len(await store.asearch(("memories", "many"), limit=100))


def touched(store: BaseStore, memory: warpmem.Memory) -> list[int]:
    """How many items there are after the same value was put twice, and another under its key."""
    space, counts = ("memories", "twice"), []
    for text in ("tea", "tea", "coffee"):
        store.put(space, "k", {"text": text})
        counts.append(memory.count(user_id="twice", include_past=True))
    return counts


def ttl(store: BaseStore, memory: warpmem.Memory) -> dict[str, Any]:
    """What becomes of values with a time to live."""
    space = ("memories", "short")
    store.put(space, "gone", {"text": "tea"}, ttl=0.005)
    store.put(space, "read", {"text": "tea"}, ttl=60)
    (known,) = (
        item for item in memory.list(user_id="short").items if item.metadata["langgraph"]["key"] == "read"
    )
    earlier = datetime.now(UTC) + timedelta(minutes=20)
    memory.update(known.id, expires_at=earlier)  # as if forty minutes had passed
    store.get(space, "read", refresh_ttl=False)
    kept = memory.get(known.id).expires_at == earlier
    before = store.get(space, "read", refresh_ttl=False).updated_at
    store.get(space, "read")
    assert store.get(space, "read", refresh_ttl=False).updated_at == before
    renewed = memory.get(known.id).expires_at
    assert renewed is not None
    time.sleep(0.4)
    return {
        "gone": store.get(space, "gone") is None,
        "kept": kept,
        "renewed": renewed - earlier > timedelta(minutes=39),
        "left": [item.key for item in store.search(space, query="tea")],
    }


if __name__ == "__main__":
    main(sys.argv[1])
