"""Faults of processes that follow, mended."""

from __future__ import annotations

from pathlib import Path

import warpmem
from warpmem import AddResult


def test_a_deletion_that_left_the_tables_between_two_refreshes_is_seen(tmp_path: Path) -> None:
    """RocksDB kept a value that it had read from a log in memory, after tables had neither it nor its end."""
    with warpmem.open(tmp_path, embedder="hashing") as memory:
        added = memory.add("has a cat", user_id="ann")
        assert isinstance(added, AddResult)
        with warpmem.open(tmp_path, embedder="hashing", follow=True, follow_ms=0) as follower:
            assert follower.get(added.id).text == "has a cat"
            memory.delete(added.id)
            everything = [(family, b"", b"\xff" * 64) for family in ("items", "vectors", "listing")]
            memory._log._engine.compact(everything)  # type: ignore[attr-defined]
            follower.refresh()
            assert follower.get_many([added.id]) == (None,)
