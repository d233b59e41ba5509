"""The process that writes a store, as one that follows it sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Writer(Protocol):
    """Has changes made by the process that writes. Thread-safe.

    used: whether any were
    """

    used: bool

    def call(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What the Memory's method of that name returns there, once it is as durable as it says. Raises what
        that raises, InputError for arguments that go nowhere else, and WriterUnavailable."""
        ...

    def close(self) -> None: ...
