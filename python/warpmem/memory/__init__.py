"""The facade: orchestration of the parts that compose.py hands it."""

from .facade import Memory

__all__ = ["Memory"]
