"""The span of a store that traces nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Final


class NoSpan:
    """Does nothing; one object stands for all. See protocols.Span."""

    __slots__ = ()

    def __enter__(self) -> NoSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def set(self, **sizes: int | str) -> None:
        """Nobody is told."""


NO_SPAN: Final = NoSpan()
