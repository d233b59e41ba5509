"""A torch DataLoader over a training stream, with workers of both kinds. Prints a report as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

import warpmem
from warpmem import NewItem, TrainingRecord
from warpmem.integrations.torch import TrainingDataset


def text_of(record: TrainingRecord) -> str:
    """What the model is trained with."""
    return record.text


def as_list(batch: Sequence[Any]) -> list[Any]:
    """A batch as it is."""
    return list(batch)


def texts(path: str, workers: int, start: str | None) -> list[str]:
    """All texts of a loader, in the order of their batches."""
    dataset = TrainingDataset(path, transform=text_of)
    loader = DataLoader(
        dataset, batch_size=7, num_workers=workers, collate_fn=as_list, multiprocessing_context=start
    )
    return [text for batch in loader for text in batch]


def main(folder: str) -> None:
    """Fill a store, and read it in every way."""
    path = f"{folder}/store"
    agreed = {"consent": {"training": True}}
    with warpmem.open(path, embedder="hashing") as memory:
        memory.add_many(
            [NewItem(text=f"text {n % 90}", metadata=agreed) for n in range(120)], user_id="ann", kind="event"
        )
    report = {"torch": torch.__version__, "alone": texts(path, 0, None)}
    report["fork"] = sorted(texts(path, 2, "fork"))
    with warpmem.open(path, embedder="hashing") as memory:
        memory.count(user_id="ann")
        report["spawn"] = sorted(texts(path, 2, "spawn"))
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
