"""LangMem in its own process: its memory tools over LangGraph's store, and vectors that were made before.

    python peer_langmem.py FOLDER TEXTS.json VECTORS.npy sqlite|memory

"sqlite" is the store that keeps what it was given, "memory" the one of its documentation, which does not. The
store embeds the memory's text alone (`fields`) and not the JSON around it, so that both sides have the same
vectors. It searches by meaning only. What LangMem's language model would do is not done: no memories are
drawn from messages, and no queries are made from the question.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])

import pysqlite3 as sqlite3  # Python's own may be built without extensions, and sqlite-vec is one

sys.modules["sqlite3"] = sqlite3

import numpy as np
from langgraph.store.base import BaseStore, PutOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from langmem import create_manage_memory_tool, create_search_memory_tool
from served import offline, serve


def make(kind: str) -> tuple[BaseStore, str]:
    """The store, and how it syncs what it is given."""
    texts = json.loads(Path(sys.argv[2]).read_text())
    vectors = np.load(sys.argv[3])
    known = dict(zip(texts, vectors.tolist(), strict=True))

    def embed(some: list[str]) -> list[list[float]]:
        return [known[text] for text in some]

    fields = ["content"]  # the store on disk reads them by another name than it documents
    index: Any = {"dims": vectors.shape[1], "embed": embed, "fields": fields, "text_fields": fields}
    if kind == "memory":
        return InMemoryStore(index=index), "nothing is kept"
    connection = sqlite3.connect(FOLDER / "store.db", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")  # faster than its default, and as durable
    store = SqliteStore(connection, index=index)
    store.setup()
    synced = connection.execute("PRAGMA synchronous").fetchone()[0]
    return store, f"journal {connection.execute('PRAGMA journal_mode').fetchone()[0]}, synchronous {synced}"


def main() -> None:
    offline()
    store, synced = make(sys.argv[4])
    tools: dict[str, tuple[Any, Any]] = {}

    def of(user: str) -> tuple[Any, Any]:
        if user not in tools:
            namespace = ("memories", user)
            form: Any = "content_and_artifact"
            tools[user] = (
                create_manage_memory_tool(namespace, store=store),
                create_search_memory_tool(namespace, store=store, response_format=form),
            )
        return tools[user]

    def fill(user: str, texts: list[str], days: list[str]) -> None:
        """Store what is numbered from 0."""
        puts = [PutOp(("memories", user), str(i), {"content": text}) for i, text in enumerate(texts)]
        store.batch(puts)

    def add(user: str, texts: list[str], numbers: list[int]) -> float:
        """Seconds for all, one call of the tool each."""
        manage, _ = of(user)
        started = time.perf_counter()
        for text in texts:
            manage.invoke({"content": text, "action": "create"})
        return time.perf_counter() - started

    def add_batch(user: str, texts: list[str]) -> float:
        """Seconds for all in one call of the store, which the tool has none for."""
        puts = [
            PutOp(("memories", user), f"{time.time_ns()}-{i}", {"content": text})
            for i, text in enumerate(texts)
        ]
        started = time.perf_counter()
        store.batch(puts)
        return time.perf_counter() - started

    def search(user: str, query: str, k: int) -> tuple[list[int], float, float]:
        """(numbers of what was found, best first, seconds, seconds of processor)."""
        _, find = of(user)
        call = {"name": "search_memory", "args": {"query": query, "limit": k}, "id": "1", "type": "tool_call"}
        started, worked = time.perf_counter(), time.process_time()
        found = find.invoke(call).artifact
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        return [int(one.key) for one in found], seconds, processor

    def about() -> dict[str, Any]:
        names = ("langmem", "langgraph", "langgraph-checkpoint", "langgraph-checkpoint-sqlite")
        return {**{name: importlib.metadata.version(name) for name in names}, "synced": synced}

    serve({"fill": fill, "add": add, "add_batch": add_batch, "search": search, "about": about})


main()
