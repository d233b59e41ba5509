"""What is searched for, and how, as the parts of a search hand it on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from ..policy.modes import PRESETS, Weights
from ..types import Scope
from .division import Shares


class Searches(msgspec.Struct, frozen=True, kw_only=True):
    """Searches that go together, with the options of all of them; see Memory.search.

    scopes   of each its own
    queries  one text each, or None where each has a vector alone; vectors: what as_vectors takes
    shares   of each its scopes with their weights, where any has some
    """

    scopes: Sequence[Sequence[Scope]]
    queries: Sequence[str] | None = None
    vectors: Any = None
    k: int = 10
    filters: Any = None
    kinds: Sequence[str] | None = None
    weights: Weights = PRESETS["dense"]
    min_similarity: float | None = None
    as_of: datetime | None = None
    known_at: datetime | None = None
    during: tuple[datetime | None, datetime | None] | None = None
    rerank: Any = None
    now: datetime | None = None
    deadline: float | timedelta | None = None
    explain: bool = False
    return_vectors: Literal["numpy", "dlpack"] | None = None
    quarantined: bool = False
    shares: Sequence[Shares] | None = None
