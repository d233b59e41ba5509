"""Workloads under a budget: each gets a result, or the reason why there is none.

A result is a dict: workload, family; ours_ms; floor_ms; peers, name -> ms and its ratio to ours, or why it
was skipped; correct; targets, what was wanted, what came, and whether that meets it; met, whether all do, or
null where one could not be measured; seconds that all of it took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import peers
from device import Device
from peer_process import ON_DEVICE

Result = dict[str, Any]
T = TypeVar("T")
PEERS_SHARE = 0.4
"""Of the seconds that are left, what one peer in a process of its own may take."""


@dataclass
class Sizes:
    """How much there is of everything. A fill stops when it has taken its seconds."""

    rows: int = 1_000_000
    batches: tuple[int, ...] = (1, 32, 1024)
    owners: int = 4096
    owner_rows: int = 10_000
    zipf_most: int = 1_000_000
    zipf_least: int = 100
    fill_seconds: float = 30.0
    ivf_rows: int = 1_000_000
    ivf_dim: int = 768
    ivf_queries: int = 1024
    changed: int = 100_000
    change_dim: int = 384
    memory_items: int = 100_000
    searches: int = 4000
    threads: int = 64
    cache_lists: int = 1000
    cache_rows: int = 2048
    cache_searches: int = 20_000
    exponents: tuple[float, ...] = (0.8, 1.0, 1.2, 1.4)
    cluster_rows: int = 262_144
    clusters: tuple[int, ...] = (1024, 4096)
    iterations: int = 30
    encode_rows: int = 1_000_000
    wide: int = 768
    select: tuple[tuple[int, int], ...] = (
        (1, 10_000), (1, 1_000_000), (32, 100_000), (100, 1_000_000), (1000, 10_000), (4096, 1_000),
    )  # fmt: skip
    ks: tuple[int, ...] = (1, 10, 100, 1000)
    collections: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    texts: int = 256
    tokens: int = 64
    layers: int = 6
    span: float = 4.0
    rounds: int = 15


QUICK = Sizes(
    owners=512, fill_seconds=6.0, ivf_rows=200_000, memory_items=20_000, searches=800, cache_lists=300,
    cache_searches=3000, exponents=(1.0,), clusters=(1024,), select=((1, 1_000_000), (1000, 10_000)),
    ks=(1, 100, 1000), collections=(10_000, 300_000), span=1.0, rounds=5,
)  # fmt: skip
"""Every workload with every peer once, so that what breaks is known before the time is spent."""

TINY = Sizes(
    rows=3000, batches=(1, 5), owners=12, owner_rows=70, zipf_most=300, zipf_least=3, fill_seconds=5.0,
    ivf_rows=1500, ivf_dim=32, ivf_queries=20, changed=200, change_dim=24, memory_items=150, searches=12,
    threads=3, cache_lists=24, cache_rows=40, cache_searches=120, exponents=(1.0, 1.4), cluster_rows=400,
    clusters=(8,), iterations=4, encode_rows=300, wide=32, select=((1, 300), (4, 64)), ks=(1, 10),
    collections=(64, 256), texts=4, tokens=8, layers=1, span=0.1, rounds=3,
)  # fmt: skip


@dataclass
class Prices:
    """Of an hour, in any one currency: a host without and with a device."""

    cpu_hour: float = 0.80
    gpu_hour: float = 4.00


@dataclass
class Bench:
    """Runs workloads until `seconds` are over. only: parts of names, of which a workload has to have one;
    none are all. copy: bytes a second of a copy, matrix: operations a second of a large product, or None."""

    device: Device
    sizes: Sizes
    seconds: float
    only: Sequence[str] = ()
    prices: Prices = field(default_factory=Prices)
    report: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds
        self.copy = self.device.bandwidth()
        self.matrix, self.matrix_type = self.device.matrix_rate()

    def multiplying(self, operations: float) -> float:
        """Seconds that these take at the rate of a large product; 0 where that could not be measured."""
        return operations / self.matrix if self.matrix is not None else 0.0

    def for_peers(self, most: float, share: float = PEERS_SHARE) -> float:
        """Seconds for a peer in a process of its own: a part of what is left."""
        return max(1.0, min(most, share * self.left))

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def wanted(self, name: str) -> bool:
        return not self.only or any(part in name for part in self.only)

    def workload(self, family: str, name: str, needs: float, body: Callable[[Result], None]) -> None:
        """Run one and note its result under `name`. needs: seconds without which it is not begun."""
        if not self.wanted(name):
            return
        result: Result = {"workload": name, "family": family}
        started = time.monotonic()
        needs = 0.0 if self.device.dry else needs
        if self.left < needs:
            result["skipped"] = f"needs about {needs:.0f} s, {max(0.0, self.left):.0f} s were left"
        else:
            try:
                body(result)
            except peers.Unavailable as error:
                result["skipped"] = str(error)
            except Exception as error:  # noqa: BLE001  # whatever a device or a library raises: the others go on
                result["failed"] = f"{type(error).__name__}: {error}"
        if "skipped" in result or "failed" in result:  # what came before that is not to be believed
            for part in ("ours_ms", "peers", "targets"):
                result.pop(part, None)
        if result.get("correct") is False:
            result["met"] = False
        elif "targets" in result:
            met = [entry["met"] for entry in result["targets"]]
            result["met"] = False if False in met else None if None in met else True
        result["seconds"] = round(time.monotonic() - started, 2)
        result |= self._rates()
        self.results.append(result)
        print(json.dumps(result), flush=True)
        self.report(result)

    def _rates(self) -> Result:
        return {"copy_bytes_per_second": self.copy, "matrix_rate": self.matrix, "dry_run": self.device.dry}

    def require(self, result: Result, correct: bool) -> None:
        """Note whether the answers are right; Unavailable, and so no time, when they are not."""
        result["correct"] = bool(correct)
        if not correct:
            raise peers.Unavailable("the answer is wrong")

    def compare(
        self,
        result: Result,
        ours: Callable[[], object],
        floor_seconds: float | None,
        others: Mapping[str, Callable[[], Any]],
    ) -> None:
        """Our median; the floor; each peer's median and its ratio to ours. others: name -> a function that
        makes the call to time, or gives milliseconds."""
        rounds = self.sizes.rounds
        result["ours_ms"] = self.device.milliseconds(ours, rounds)
        if floor_seconds is not None:
            result["floor_ms"] = floor_seconds * 1e3
        self.peers(result, others)

    def there(self, result: Result, ours: Callable[[], object]) -> None:
        """Our median from device arrays to device arrays, told and not judged."""
        result["device_arrays_ms"] = self.device.milliseconds(ours, self.sizes.rounds)

    def peers(
        self, result: Result, others: Mapping[str, Callable[[], Any]], against: str = "ours_ms", how: str = ""
    ) -> None:
        """The peers' part of `compare`, beside the time of ours that is there, `against`. how: in which way
        they are asked that is not how ours is judged; it is told, and judges nothing. Ours is reported before
        a peer is asked, whatever becomes of it."""
        found = result.setdefault("peers", {})
        if against == "device_arrays_ms":
            how = how or "device arrays on both sides"
        other = {"other": how} if how else {}
        if others:
            self.report({**result, **self._rates(), "interim": True})
        for plain, make in others.items():
            name = plain + (ON_DEVICE if other else "")
            try:
                call = make()
                value = call if isinstance(call, float) else self.device.milliseconds(call, self.sizes.rounds)
            except peers.Unavailable as error:
                found[name] = {"skipped": str(error)}
                continue
            except Exception as error:  # noqa: BLE001  # a foreign library's; ours stays
                found[name] = {"skipped": f"{type(error).__name__}: {error}"}
                continue
            finally:
                self.device.release()
            found[name] = {"ms": value, "ratio": value / result[against], **other}


class Once(Generic[T]):
    """What several workloads use: made when the first asks, and not tried again when that fails."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: T | None = None
        self._failure: str | None = None

    def __call__(self) -> T:
        if self._failure is not None:
            raise peers.Unavailable(self._failure)
        if self._value is None:
            try:
                self._value = self._make()
            except Exception as error:
                self._failure = f"what it needs could not be made: {error}"
                raise
        return self._value

    @property
    def made(self) -> bool:
        return self._value is not None

    def clear(self) -> None:
        self._value = None


def target(result: Result, what: str, least: float, got: float | None, *, most: bool = False) -> None:
    """Note what was wanted: at least `least`, or at most; got: None where it could not be measured."""
    met = None if got is None else got <= least if most else got >= least
    wanted = f"{'<=' if most else '>='} {least:g}"
    result.setdefault("targets", []).append({"what": what, "wanted": wanted, "got": got, "met": met})


def beats(result: Result, least: float, *names: str) -> None:
    """Note for each peer whose name begins with one of `names` that ours is `least` times as fast."""
    for name in names:
        there = [
            peer["ratio"]
            for peer_name, peer in result["peers"].items()
            if peer_name.startswith(name) and "ratio" in peer and "other" not in peer
        ]
        target(result, f"{name} / ours", least, min(there) if there else None)


def beats_best(result: Result, least: float) -> None:
    """Note that ours is `least` times as fast as the fastest peer that was measured."""
    there = [peer["ratio"] for peer in result["peers"].values() if "ratio" in peer and not peer.get("other")]
    target(result, "best peer / ours", least, min(there) if there else None)
