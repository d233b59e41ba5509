"""The check after a kill in the middle of a consolidation sees what is missing and what is there twice."""

from __future__ import annotations

import random

import pytest

from durability.consolidations import USERS, check_whole, contents
from jobs_lives import NOW, START, fill, live, opened
from warpmem import NewItem
from warpmem.ops.clock import FixedClock


def test_the_check_sees_what_is_lost_and_what_is_there_twice() -> None:
    with opened(None, FixedClock(NOW)) as memory:
        for user in USERS:
            fill(memory, random.Random(user), 30, user)
        events = frozenset(item.id for user in USERS for item in live(memory, user))
        assert not check_whole(memory, events), "nothing is summed up yet"
        memory.run_jobs(["consolidate"])
        assert not check_whole(memory, events), "nothing is left to be summed up"
        whole = contents(memory)
        summary = live(memory, "bob")[0]
        twin = NewItem(
            text="again", kind="summary", sources=summary.sources, metadata={"n": 1}, valid_from=START
        )
        again = memory.add(twin, user_id="bob").id
        with pytest.raises(AssertionError, match="twice"):
            check_whole(memory, events)
        memory.delete(again)
        assert contents(memory) == whole
        memory.delete(summary.id)
        assert contents(memory) != whole
        with pytest.raises(AssertionError, match="lost"):
            check_whole(memory, events)
