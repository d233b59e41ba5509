"""The numbers of a store as families of metrics, from its Stats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from ..ops.metrics import Family, Sample
from ..types import Stats

_GAUGES: Final = {
    "items": "Live items.",
    "owners": "Numbers given out to owners.",
    "sequence": "Number of the last change.",
    "loaded_owners": "Owners whose rows are in the index.",
    "index_rows": "Rows in the index.",
    "index_bytes": "Bytes of the index.",
    "read_only": "1 in a store that refuses writes.",
    "pending_erasures": "Erasures that are not finished.",
    "lag_changes": "Changes that a store which follows has not taken in.",
    "lag_seconds": "Age of the first of them.",
}
_LANES: Final[tuple[tuple[str, Literal["counter", "gauge"], str], ...]] = (
    ("served", "counter", "Requests that were served."),
    ("tokens", "counter", "Tokens of them."),
    ("waiting", "gauge", "Requests that wait."),
    ("refused", "counter", "Calls that were refused as overloaded."),
    ("dropped", "counter", "Requests that left without having been served."),
)
_MODEL: Final[tuple[tuple[str, str, Literal["counter", "gauge"], str], ...]] = (
    ("batches", "batches_total", "counter", "Batches that a model served."),
    ("busy_seconds", "busy_seconds_total", "counter", "Seconds that it was at work."),
    ("turn_seconds", "index_seconds_total", "counter", "Seconds that the index had the model's device."),
    ("rate", "tokens_per_second", "gauge", "Tokens a second of its fastest batches."),
)
_PENDING: Final = {
    "waiting": "Versions of items for which something is still to be done.",
    "refused": "Those of them that a model cannot do.",
    "oldest_seconds": "How long the first of them has waited.",
}
_DEVICE_GAUGES: Final = (
    "lists", "pages", "bytes", "codes_lists", "pinned", "pinned_limit", "allocated", "limit", "waiting",
)  # fmt: skip


def families(stats: Stats, commits: int) -> Iterator[Family]:
    """commits: changes that were made or taken in since the store was opened."""
    yield Family(
        "warpmem_commits_total", "counter", "Changes since the store was opened.", [Sample({}, commits)]
    )
    yield Family(
        "warpmem_lag_errors_total",
        "counter",
        "Times that a store which follows failed to take changes in by itself.",
        [Sample({}, stats.lag_errors)],
    )
    yield Family(
        "warpmem_unloaded_owners_total",
        "counter",
        "Times that the index forgot an owner to stay within index_bytes.",
        [Sample({}, stats.unloaded_owners)],
    )
    for name, help in _GAUGES.items():
        yield Family(f"warpmem_{name}", "gauge", help, [Sample({}, _plain(getattr(stats, name)))])
    yield Family(
        "warpmem_storage_bytes", "gauge", "Bytes on disk and in memory, by part.",
        [Sample({"part": part}, size) for part, size in stats.storage.items()],
    )  # fmt: skip
    for name, help in _PENDING.items():
        samples = [Sample({"kind": kind}, getattr(work, name)) for kind, work in stats.pending.items()]
        yield Family(f"warpmem_pending_{name}", "gauge", help, samples)
    models = {name: counts for name, counts in stats.models.items() if "served" in counts}
    for name, kind, help in _LANES:
        yield Family(
            f"warpmem_lane_{name}{'_total' if kind == 'counter' else ''}", kind, help,
            [
                Sample({"model": model, "lane": lane}, number)
                for model, counts in models.items()
                for lane, number in counts[name].items()
            ],
        )  # fmt: skip
    for key, name, kind, help in _MODEL:
        samples = [Sample({"model": model}, counts[key]) for model, counts in models.items()]
        yield Family(f"warpmem_{name}", kind, help, samples)
    caches: dict[str, Mapping[str, Any]] = {"items": stats.item_cache}
    if stats.models.get("cache"):
        caches["vectors"] = stats.models["cache"]
    for key, help in (("hits", "Found in a cache."), ("misses", "Not found in a cache.")):
        samples = [Sample({"cache": name}, counts[key]) for name, counts in caches.items()]
        yield Family(f"warpmem_cache_{key}_total", "counter", help, samples)
    if stats.device:
        yield Family(
            "warpmem_device_failed", "gauge", "1 while the device answers nothing, and the CPU does.",
            [Sample({}, int(stats.device["failure"] is not None))],
        )  # fmt: skip
    for key, number in stats.device.items():
        if isinstance(number, (int, float)) and not isinstance(number, bool) and key != "device":
            gauge = key in _DEVICE_GAUGES
            yield Family(
                f"warpmem_device_{key}{'' if gauge else '_total'}", "gauge" if gauge else "counter",
                "What of the index lies on a device, and what that did.", [Sample({}, number)],
            )  # fmt: skip


def _plain(value: float) -> float:
    return int(value) if isinstance(value, bool) else value
