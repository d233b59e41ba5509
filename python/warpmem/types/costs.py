"""What models cost, and what may be spent on them."""

from __future__ import annotations

from datetime import date

import msgspec

from ..errors import InputError
from .items import Scope
from .scalars import float_of


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in whatever money: the sum of both."""

    per_million_tokens: float = 0.0
    per_device_second: float = 0.0

    def __post_init__(self) -> None:
        _check_amounts(self)


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be spent in a day of UTC; None is no limit. Whichever is reached first counts."""

    money: float | None = None
    device_seconds: float | None = None

    def __post_init__(self) -> None:
        _check_amounts(self)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent, of what `by` told apart; the other fields of the first five are None.

    scope: of an owner, None also for those whom the store does not know. lane: "interactive", "ingest",
    "background". job: "search", "context", "add", "embed", "infer", "import", "reembed", "consolidate",
    "reflect", "rerank". device_ms: the share of the batches that the texts were in, by tokens; of rerankers
    and language models the time of the call. tokens: of these two an estimate, by bytes. bytes: of the texts,
    in UTF-8. calls: that were served; cache_hits: texts whose vectors were at hand and cost nothing. money:
    by the prices of then.
    """

    day: date | None
    scope: Scope | None
    lane: str | None
    job: str | None
    model: str | None
    device_ms: float
    tokens: int
    bytes: int
    calls: int
    cache_hits: int
    money: float


def _check_amounts(struct: Price | Budget) -> None:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if value is None and isinstance(struct, Budget):
            continue
        number = float_of(value)
        if number is None or not 0.0 <= number < 1e15:
            raise InputError(f"{name} must be a number from 0 to 1e15")
        if type(value) is not float:
            msgspec.structs.force_setattr(struct, name, number)
