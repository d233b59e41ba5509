"""Spans: how long parts of calls took, for whoever traces whole programs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Span(Protocol):
    """A part of a call that is under way. Sizes are numbers and names of this package's parts, never a text,
    an id or an owner's name."""

    def set(self, **sizes: int | str) -> None:
        """Tell what is known now."""
        ...


class Tracer(Protocol):
    """Makes spans. Thread-safe."""

    def span(self, name: str, **sizes: int | str) -> AbstractContextManager[Span]:
        """A span for as long as its block lasts, within the one that its thread is in. An exception that
        leaves the block is noted by its class alone."""
        ...
