"""What was spent today by owners and by jobs, and whether more may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ..config import Config
from ..errors import Overloaded
from ..ops.costs import DAY, Amounts, day_of
from ..types import Budget, Owner

Known = Callable[[int, Owner | str], Iterable[Amounts]]
"""(day, owner or job) -> what the store has of it."""


class Budgets:
    """The budgets of a configuration. Not thread-safe.

    known: asked once a day for each owner and each job, when it is first met.
    """

    def __init__(self, config: Config, known: Known) -> None:
        self._owner: Final = config.owner_budget
        self._limit: Final = config.owner_limit
        self._jobs: Final = config.job_budgets
        self._known = known
        self._day = 0
        self._spent: dict[Owner | str, Amounts] = {}
        self.any = bool(_bounded(self._owner) or _bounded(self._limit) or self._jobs)
        """Whether there is anything to keep to."""

    def spend(self, day: int, owner: Owner, job: str, amounts: Amounts) -> None:
        """Take in what is being spent, before it is stored."""
        for who in (owner, job):
            self._of(day, who).add(amounts)

    def check(self, now: int, owners: Iterable[Owner], lane: str, job: str) -> None:
        """Raise Overloaded until the end of the day where more may not be spent. now: microseconds."""
        day, background = day_of(now), lane == "background"
        left = (DAY - now % DAY) / 1e6
        for owner in owners:
            spent = self._of(day, owner)
            if _reached(self._limit, spent):
                raise Overloaded("this owner's limit of the day is spent", left, one_owner=True)
            if background and _reached(self._owner, spent):
                why = "this owner's budget of the day for work in the background is spent"
                raise Overloaded(why, left, one_owner=True)
        budget = self._jobs.get(job) if background else None
        if budget is not None and _reached(budget, self._of(day, job)):
            raise Overloaded(f"the budget of the day for the job {job!r} is spent", left)

    def forget(self, erased: Callable[[Owner], bool]) -> None:
        """Drop every owner of whom `erased` is true."""
        for who in [who for who in self._spent if isinstance(who, Owner) and erased(who)]:
            del self._spent[who]

    def _of(self, day: int, who: Owner | str) -> Amounts:
        if day < self._day:  # it was yesterday when this began
            return Amounts()
        if day > self._day:
            self._day, self._spent = day, {}
        found = self._spent.get(who)
        if found is None:
            found = Amounts()
            for amounts in self._known(day, who):
                found.add(amounts)
            self._spent[who] = found
        return found


def _bounded(budget: Budget) -> bool:
    return budget.money is not None or budget.device_seconds is not None


def _reached(budget: Budget, spent: Amounts) -> bool:
    return (budget.money is not None and spent.money >= budget.money) or (
        budget.device_seconds is not None and spent.seconds >= budget.device_seconds
    )
