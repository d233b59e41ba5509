"""What Memory.costs answers: lines of the ledger, added up by what the caller asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, get_args

from ..errors import InputError
from ..ops.clock import to_micros
from ..ops.costs import NOBODY, Amounts, day_of
from ..protocols import Log
from ..types import Cost, Scope
from .costs import CostLedger

CostBy = Literal["day", "scope", "lane", "job", "model"]
_BY: Final = get_args(CostBy)
_EPOCH: Final = date(1970, 1, 1)
_Group = tuple[int | None, int | None, str | None, str | None, str | None]


def costs(
    log: Log,
    ledger: CostLedger,
    scope: Scope | None,
    since: date | datetime | None,
    by: CostBy | Sequence[CostBy],
) -> tuple[Cost, ...]:
    """See Memory.costs."""
    wanted = (by,) if isinstance(by, str) else by
    if not isinstance(wanted, Sequence) or not all(name in _BY for name in wanted):
        raise InputError(f"by must name some of {', '.join(map(repr, _BY))}")
    if scope is not None and scope != _scope_of(scope):
        raise InputError("costs are kept by owner: name the user, or the agent, run or corpus, alone")
    first = _first_day(since)
    sums: dict[_Group, Amounts] = {}
    for day, number, line in ledger.lines(first, None if scope is None else scope.owner):
        told = (day, number, line.lane, line.job, line.model)
        group: Any = tuple(part if name in wanted else None for name, part in zip(_BY, told, strict=True))
        sums.setdefault(group, Amounts()).add(line.amounts)
    names: dict[int, Scope | None] = {}
    rows = []
    for group, amounts in sorted(sums.items(), key=lambda entry: [part or 0 for part in entry[0]]):
        day, number, lane, job, model = group
        if number is not None and number not in names:
            names[number] = scope if scope is not None else _named(log, number)
        rows.append(
            Cost(
                day=None if day is None else _EPOCH + timedelta(days=day),
                scope=None if number is None else names[number],
                lane=lane,
                job=job,
                model=model,
                device_ms=amounts.seconds * 1e3,
                tokens=amounts.tokens,
                bytes=amounts.bytes,
                calls=amounts.calls,
                cache_hits=amounts.hits,
                money=amounts.money,
            )
        )
    return tuple(rows)


def _first_day(since: date | datetime | None) -> int:
    if since is None:
        return 0
    if isinstance(since, datetime):
        return day_of(to_micros(since, "since"))
    if not isinstance(since, date):
        raise InputError(f"since must be a date or an aware datetime, not {type(since).__name__}")
    return max(0, (since - _EPOCH).days)


def _scope_of(scope: Scope) -> Scope:
    return Scope(**{f"{scope.owner.type}_id": scope.owner.id})


def _named(log: Log, number: int) -> Scope | None:
    """An owner's scope; None for nobody's and erased ones."""
    if number == NOBODY:
        return None
    for known, owner in log.owners(number - 1):
        return Scope(**{f"{owner.type}_id": owner.id}) if known == number else None
    return None
