"""The language model and the reranker of a store, made when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ..protocols import LanguageModel, Reranker

T = TypeVar("T")


class Later(Generic[T]):
    """Makes something at the first call and keeps it; where that raises, the next call tries again.
    Thread-safe."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None

    def __call__(self) -> T:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made


class Reasoning(NamedTuple):
    """How a store gets them. Both raise InputError when it has none.

    has_language_model: whether there is one to be made
    """

    language_model: Callable[[], LanguageModel]
    reranker: Callable[[], Reranker]
    has_language_model: bool


class Reasoned:
    """The part of Memory that hands out models. See Memory."""

    _reasoning: Reasoning
    _check_open: Callable[[], None]

    @property
    def language_model(self) -> LanguageModel:
        """The language model that `open` was given or the configuration names. Raises InputError when there
        is none, and what making it raises."""
        self._check_open()
        return self._reasoning.language_model()
