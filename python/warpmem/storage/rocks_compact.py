"""Compaction of a range of RocksDB down to its last level, which drops what was deleted or replaced there."""

from __future__ import annotations

from typing import Any


def compact_range(family: Any, start: bytes, stop: bytes) -> None:
    """Write every table of `family` that holds keys from `start` to `stop` anew. Lets other threads run."""
    from rocksdict import BottommostLevelCompaction, CompactOptions

    options = CompactOptions()
    # Without it tables of the last level stay as they are, and with them what was deleted while in there.
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
    family.compact_range(start, stop, options)


def holding(family: Any, start: bytes, stop: bytes) -> int:
    """Bytes of the tables of `family` that may hold keys from `start` to `stop`."""
    return sum(
        table["size"]
        for table in family.live_files()
        if table["start_key"] <= stop and start <= table["end_key"]
    )
