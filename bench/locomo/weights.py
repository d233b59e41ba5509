"""Weights of hybrid chosen without the conversation that they are measured on.

For each conversation the weights with the best mean recall@10 on all others, over turns and observations and
both embedders at equal shares, which is how the preset's were chosen on all five.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from recalled import GRANULARITIES, fill, questions

import warpmem
from warpmem.cli.locomo import Conversation
from warpmem.policy.modes import PRESETS
from warpmem.protocols import Embedder

K = 10
LEXICAL = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
ADJACENT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""As a share of the weight of lexical."""
PRESET = PRESETS["hybrid"]
GRID = [(lexical, round(lexical * share, 3)) for lexical in LEXICAL for share in ADJACENT]
GRID.append((PRESET.lexical, PRESET.adjacent))
_ALL = 4096


def shares(
    conversations: Sequence[Conversation], granularity: str, embedder: Embedder
) -> dict[str, np.ndarray[Any, Any]]:
    """By conversation (questions, weights) float64: recall@10 of each question under each pair of GRID."""
    out: dict[str, list[list[float]]] = {}
    weights = np.array(GRID).T
    with warpmem.open(embedder=embedder) as memory:
        fill(memory, conversations, granularity)
        for conversation, question, wanted in questions(conversations):
            hits = memory.search(
                question.question,
                user_id=conversation.sample_id,
                k=_ALL,
                mode="hybrid",
            )
            names = ("similarity", "lexical", "adjacent")
            parts = np.array([[hit.parts[name] for name in names] for hit in hits])
            scores = parts[:, :1] + parts[:, 1:] @ weights
            best = np.argsort(-scores, axis=0, kind="stable")[:K]
            turns = [frozenset(hit.item.metadata["turns"]) & wanted for hit in hits]
            row = [
                len(frozenset().union(*(turns[i] for i in column))) / len(wanted)
                for column in best.T.tolist()
            ]
            out.setdefault(conversation.sample_id, []).append(row)
    return {name: np.array(rows) for name, rows in out.items()}


def leave_one_out(conversations: Sequence[Conversation], embedders: Mapping[str, Embedder]) -> dict[str, Any]:
    """Held-out recall@10 by embedder and granularity beside the preset's, and the weights of each turn."""
    tables = {
        (name, granularity): shares(conversations, granularity, embedder)
        for name, embedder in embedders.items()
        for granularity in GRANULARITIES
    }
    names = [conversation.sample_id for conversation in conversations]
    chosen: dict[str, int] = {}
    for held in names:
        means = [
            np.concatenate([table[name] for name in names if name != held]).mean(axis=0)
            for table in tables.values()
        ]
        chosen[held] = int(np.mean(means, axis=0).argmax())
    at = GRID.index((PRESET.lexical, PRESET.adjacent))
    return {
        "grid": GRID,
        "weights": {
            held: dict(zip(("lexical", "adjacent"), GRID[i], strict=True)) for held, i in chosen.items()
        },
        "recall_at_10": {
            f"{name}, {granularity}": {
                "held out": statistics.fmean(
                    value for held in names for value in table[held][:, chosen[held]].tolist()
                ),
                "preset": statistics.fmean(value for held in names for value in table[held][:, at].tolist()),
            }
            for (name, granularity), table in tables.items()
        },
    }
