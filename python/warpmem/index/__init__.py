"""Search: vectors by id (VectorIndex), backends and their choice, and the index of a store over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .vector_index import VectorIndex

__all__ = ["VectorIndex"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: a store does not need it.
    if name == "VectorIndex":
        from .vector_index import VectorIndex

        return VectorIndex
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
