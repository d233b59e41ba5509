"""What a change need not read of owners, since a change before it wrote it."""

from __future__ import annotations

from typing import Final

from ..types import Owner
from .values import OwnerValue

_MOST: Final = 65_536

Told = tuple[dict[Owner, int], dict[int, OwnerValue]]
"""Numbers that a change read or gave out, and counters that it wrote."""


class OwnerBook:
    """Numbers and counters of owners as the engine has them: the committer is their only writer, and this
    belongs to its thread."""

    def __init__(self) -> None:
        self.numbers: dict[Owner, int] = {}
        self.values: dict[int, OwnerValue] = {}

    def take(self, told: Told | None) -> None:
        """What the last change that was written has told; None: it took names away. Before the next change
        begins, and again where that failed: between a write and what it leads to nothing may fail, as this
        may for want of memory."""
        if told is None or len(self.numbers) > _MOST or len(self.values) > _MOST:
            self.numbers.clear()
            self.values.clear()
        if told is not None:
            self.numbers.update(told[0])
            self.values.update(told[1])
