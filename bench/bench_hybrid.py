"""Search by words beside search by meaning, and what an add costs an owner whose words are loaded (gated)."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import CHUNK, alternate, unit_rows

import warpmem
from warpmem import NewItem, Scope

ITEMS, SMALL, LARGE, K = 10_000, 1_000, 50_000, 10
QUERIES = 400
ROWS = unit_rows(LARGE + 2_000)
MAX_HYBRID, MAX_ADD = 2.0, 1.3
MODES: tuple[Any, ...] = ("dense", "lexical", "hybrid")
_RNG = random.Random(11)
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_VOCABULARY = ["".join(_RNG.choices(_LETTERS, k=_RNG.randint(2, 9))) for _ in range(20_000)]
_WEIGHTS = [1.0 / (rank + 3) for rank in range(len(_VOCABULARY))]


def sentences(n: int, words: int) -> list[str]:
    """Of words as frequent as Zipf's law has them."""
    return [" ".join(_RNG.choices(_VOCABULARY, _WEIGHTS, k=words)) for _ in range(n)]


def fill(memory: warpmem.Memory, user: str, n: int, words: int = 15) -> None:
    """Messages in runs of 40, without a sync until the end."""
    texts = sentences(n, words)
    for start in range(0, n, CHUNK):
        items = [
            NewItem(text=text, kind="message", scope=Scope(user_id=user, run_id=f"run {(start + i) // 40}"))
            for i, text in enumerate(texts[start : start + CHUNK])
        ]
        memory.add_many(items, vectors=ROWS[start : start + len(items)], durability="os")
    memory.flush()


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warpmem.Memory]:
    with warpmem.open(tmp_path_factory.mktemp("store") / "store") as opened:  # the default embedder
        fill(opened, "one", ITEMS)
        opened.search("warm up", user_id="one", mode="hybrid")
        yield opened


@pytest.mark.parametrize("given", [True, False], ids=["vectors given", "queries embedded"])
def test_hybrid_over_dense(memory: warpmem.Memory, given: bool, report: Callable[[str], None]) -> None:
    """k = 10 of 10,000 messages by a question of eight words. The modes take turns at each query."""
    queries = sentences(QUERIES + 20, 8)

    def search(mode: Any) -> Callable[[int], object]:
        def ask(i: int) -> object:
            vector = ROWS[ITEMS + i] if given else None
            return memory.search(queries[i], vector=vector, user_id="one", k=K, mode=mode)

        return ask

    medians = [alternate([search(mode) for mode in MODES], QUERIES) for _ in range(3)]
    dense, lexical, hybrid = (statistics.median(column) for column in zip(*medians, strict=True))
    how = "vectors given" if given else "queries embedded"
    report(
        f"{how}: dense {dense * 1e6:.0f} us, lexical {lexical * 1e6:.0f} us, "
        f"hybrid {hybrid * 1e6:.0f} us; lexical {lexical / dense:.2f}, hybrid {hybrid / dense:.2f} of dense "
        f"(gate {MAX_HYBRID})"
    )
    assert hybrid <= MAX_HYBRID * dense


def test_add_is_flat(tmp_path: Path, report: Callable[[str], None]) -> None:
    """One add to an owner whose words are loaded, at 1,000 and at 50,000 items; and to one without words."""
    with warpmem.open(tmp_path / "store", dimension=ROWS.shape[1]) as memory:
        for user, n in (("small", SMALL), ("large", LARGE), ("wordless", SMALL)):
            fill(memory, user, n)
            memory.search("warm up", vector=ROWS[0], user_id=user, mode="dense")
        for user in ("small", "large"):
            started = time.perf_counter()
            memory.search("warm up", vector=ROWS[0], user_id=user, mode="hybrid")
            report(f"{user}: the first search by words took {(time.perf_counter() - started) * 1e3:.1f} ms")
        texts = sentences(620, 15)

        def add(user: str) -> Callable[[int], object]:
            return lambda i: memory.add(
                texts[i], user_id=user, run_id="new", kind="message", vector=ROWS[i], durability="os"
            )

        small, large, wordless = alternate([add(user) for user in ("small", "large", "wordless")], 600)
    report(
        f"an add at {SMALL:,} items {small * 1e6:.0f} us, at {LARGE:,} {large * 1e6:.0f} us: "
        f"{large / small:.2f} times (gate {MAX_ADD}); without words {wordless * 1e6:.0f} us"
    )
    assert large <= MAX_ADD * small
