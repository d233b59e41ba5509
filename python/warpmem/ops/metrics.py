"""Numbers about a running store, and the text in which Prometheus reads them.

The text follows Prometheus' exposition format 0.0.4: a family is a name, what it counts, and samples told
apart by labels. Labels are words of this package; nothing that a user wrote is ever one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

BOUNDS: Final = (
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of durations in seconds, inclusive; what is longer counts under +Inf alone."""

Labels = Mapping[str, str]


class Histogram:
    """Durations by bound. Not thread-safe."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def samples(self, labels: Labels) -> list[Sample]:
        """As Prometheus wants them: how many were at most so long, for each bound; their sum and number."""
        found, total = [], 0
        for bound, count in zip((*map(repr, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            found.append(Sample({**labels, "le": bound}, total, "_bucket"))
        return [*found, Sample(labels, self._sum, "_sum"), Sample(labels, total, "_count")]


class Sample(NamedTuple):
    """One number of a family. suffix: of the family's name, for the parts of a histogram."""

    labels: Labels
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """Numbers of one meaning. A counter's name ends in _total."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


def exposition(families: Iterable[Family]) -> str:
    """The text; families without a sample are left out."""
    lines: list[str] = []
    for name, kind, help, samples in families:
        if samples:
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{each.suffix}{_labels(each.labels)} {_number(each.value)}" for each in samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value)).replace("inf", "Inf")
