"""Search: vectors by id (VectorIndex), backends and their choice, and the index of a store over them."""

from .vector_index import VectorIndex

__all__ = ["VectorIndex"]
