"""How fast a device or endpoint serves batches, by their size.

What a batch costs whatever it holds can be most of a small one and none of a large one: a server may answer
one text in 50 ms and thirty in 60. So batches are told apart by powers of two of their tokens. A larger batch
is never taken to be slower by the token than a smaller one, and of a size that was never served the best is
believed until it is. What a size showed long ago is forgotten: the device may have become another since."""

from __future__ import annotations

from typing import Final

_SMOOTHING: Final = 0.2
_CLASSES: Final = 64
_SHORT: Final = 7
_GROWTH: Final = 4
_LATELY: Final = 256
"""After so many batches the sizes that were not among them count as never served."""


class Speed:
    """Not thread-safe. rate: tokens a second that are expected at first."""

    def __init__(self, rate: float) -> None:
        self._first = rate
        self._rates = [0.0] * _CLASSES  # 0: never served, or not lately
        self._lately: set[int] = set()
        self._batches = 0
        self.measured = False

    @property
    def best(self) -> float:
        """Tokens a second of the batches that are served fastest by the token."""
        return max(self._rates) if self.measured else self._first

    def seen(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        size = tokens.bit_length()
        rate = tokens / seconds
        known = self._rates[size]
        self._rates[size] = known + _SMOOTHING * (rate - known) if known else rate
        self.measured = True
        self._lately.add(size)
        self._batches += 1
        if self._batches % _LATELY == 0:
            self._rates = [rate if other in self._lately else 0.0 for other, rate in enumerate(self._rates)]
            self._lately.clear()

    def seconds(self, tokens: int, batch: int) -> float:
        """How long so many tokens take, in batches of `batch` at most."""
        size = min(tokens, batch).bit_length()
        if not self.measured:
            return tokens / self._first
        known = max(self._rates[: size + 1])
        if not known:
            return tokens / next(rate for rate in self._rates[size:] if rate)
        if not self._rates[size]:
            last = max(i for i in range(size) if self._rates[i])
            if not any(self._rates[size:]):
                known = max(known, self._rates[last] * (1 << size - last))
        return tokens / known

    def within(self, seconds: float) -> float:
        """How many tokens a batch may hold to take so long. Where even a short text takes more than half of
        that, shorter batches would only be more of them: then twice as long as a short text. And while the
        largest batches take less than half of it, several times their size, to find out."""
        took = [(size, (1 << size) / rate) for size, rate in enumerate(self._rates) if rate]
        if not took:
            return seconds * self._first
        short = min((each for size, each in took if size <= _SHORT), default=0.0)
        tokens = max(seconds, 2 * short) * self.best
        largest, each = took[-1]
        return max(tokens, float(_GROWTH << largest)) if each < seconds / 2 else tokens
