"""A progress line on stderr: percent, rate and time to go."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_INTERVAL = 0.2
_WIDTH = 24


class Progress:
    """Shows how far a long task is, at most five times a second.

    total: what `done` counts up to, or None when it is not known. On a terminal the line is rewritten in
    place; elsewhere each state is a line of its own, and only one in five seconds. unit: what is counted.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        enabled: bool,
        stream: TextIO | None = None,
        unit: str = "lines",
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._label = label
        self._unit = unit
        self._total = total
        self._enabled = enabled
        self._in_place = self._stream.isatty()
        self._interval = _INTERVAL if self._in_place else 25 * _INTERVAL
        self._started = time.monotonic()
        self._shown = float("-inf")
        self._width = 0

    def update(self, done: int, count: int) -> None:
        """`done` of the total is behind us, which was `count` lines."""
        now = time.monotonic()
        if self._enabled and now - self._shown >= self._interval:
            self._shown = now
            self._write(self.line(done, count, now - self._started))

    def finish(self, done: int, count: int) -> None:
        """Show the last state and end the line."""
        if self._enabled:
            self._write(self.line(done, count, time.monotonic() - self._started))
            if self._in_place:
                self._stream.write("\n")
            self._stream.flush()

    def line(self, done: int, count: int, seconds: float) -> str:
        """The text shown after `seconds`."""
        rate = count / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._label}: {count} {self._unit}, {rate:,.0f}/s"
        share = min(1.0, done / self._total)
        bar = "#" * round(share * _WIDTH)
        eta = "" if share in (0.0, 1.0) else f", {_duration(seconds * (1 - share) / share)} to go"
        return f"{self._label}: [{bar:<{_WIDTH}}] {share:4.0%}, {count} {self._unit}, {rate:,.0f}/s{eta}"

    def _write(self, line: str) -> None:
        if self._in_place:
            self._stream.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def show_task(task: str, done: int, total: int | None) -> None:
    """A line on stderr about what takes long, rewritten in place until all is done."""
    share = f"{done:,}" if not total else f"{min(1.0, done / total):4.0%} of {total:,}"
    sys.stderr.write(f"\r{task}: {share}" + ("\n" if total == done else ""))
    sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
