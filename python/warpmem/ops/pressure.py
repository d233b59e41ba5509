"""What a search can still do in the time that it has: decisions without a clock of their own."""

from __future__ import annotations

from typing import Final

_MEAN: Final = 0.125
_DEVIATION: Final = 0.25
_DEVIATIONS: Final = 4.0
_DOUBT: Final = 0.8
_KEPT: Final = 0.2
"""Of what is left: threads that wait for one model time out together, and wake one after the other."""
_MOST_KEPT: Final = 0.5


class Pace:
    """How long something takes, by how long it took: mean and mean deviation, smoothed (Jacobson,
    "Congestion Avoidance and Control", 1988). Threads that use it at once may lose a measurement."""

    __slots__ = ("_deviation", "_mean", "_seen")

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self._seen = 0

    @property
    def expected(self) -> float:
        """Seconds that it takes and seldom exceeds; 0 while nothing is known."""
        return self._mean + _DEVIATIONS * self._deviation

    def seen(self, seconds: float) -> None:
        """It took so long. The first is not believed: it may have loaded what the others find."""
        self._seen += 1
        if self._seen <= 2:
            self._mean = seconds if self._seen == 2 else 0.0
            return
        error = seconds - self._mean
        self._mean += _MEAN * error
        self._deviation += _DEVIATION * (abs(error) - self._deviation)

    def left_out(self) -> None:
        """It was not done because it was expected to take too long. That is believed a little less each time,
        so that it comes to be tried again: nothing else could show that it became faster."""
        self._mean *= _DOUBT
        self._deviation *= _DOUBT


def time_before(left: float, rest: Pace) -> float:
    """Seconds that a part of a search may take of those that are left, so that what takes its place, the
    search without that, is still in time."""
    return left - min(max(rest.expected, _KEPT * left), _MOST_KEPT * left)


def too_late(left: float | None, *paces: Pace) -> bool:
    """Whether things that take as long as they did before, one after the other, would not be in time."""
    return left is not None and sum(pace.expected for pace in paces) > left
