"""Stores whose items wait for their vectors, and what they show of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from reembedding import Hooked
from warpmem import Memory
from warpmem.errors import InvalidText, WarpmemError

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIMENSION = 16
EVERYTHING = np.ones(DIMENSION, np.float32)
QUIET: dict[str, Any] = {"durability": "os", "background_work": False}


class Moody(Hooked):
    """The hashing embedder, which can be down or refuse texts with a word."""

    def __init__(self, dimension: int = DIMENSION) -> None:
        super().__init__(dimension, self._mood)
        self.error: WarpmemError | None = None
        self.refuses: str | None = None
        self.asked = 0

    def _mood(self, texts: Sequence[str]) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.refuses is not None and any(self.refuses in text for text in texts):
            raise InvalidText("a text holds nothing that the model can read")


def later(memory: Memory, content: Any, **options: Any) -> Any:
    return memory.add(content, user_id="ann", embed="later", **options)


def waiting(memory: Memory) -> int:
    return memory.stats().pending["embed"].waiting


def dense(memory: Memory, **options: Any) -> list[str]:
    return sorted(hit.item.text for hit in memory.search(vector=EVERYTHING, user_id="ann", k=100, **options))


def worded(memory: Memory, query: str, mode: str = "lexical", **options: Any) -> list[str]:
    return [hit.item.text for hit in memory.search(query, user_id="ann", mode=mode, k=100, **options)]
