"""policy/revision.py against what any comparison of editions must satisfy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warpmem.policy.revision import revise

EDITIONS = st.lists(st.sampled_from("abcdef"), max_size=12)


@given(EDITIONS, EDITIONS)
def test_every_old_chunk_is_kept_replaced_or_removed_once(old: list[str], new: list[str]) -> None:
    places, kept, removed = revise(old, new)
    taken = [place for place in places if place is not None]
    assert sorted([*taken, *removed]) == list(range(len(old)))
    assert len(places) == len(kept) == len(new)
    for said, place, is_kept in zip(new, places, kept, strict=True):
        assert not is_kept or (place is not None and old[place] == said)
    common = sum(min(old.count(said), new.count(said)) for said in set(new))
    assert sum(kept) == common


def test_a_changed_chunk_takes_the_place_after_its_predecessor() -> None:
    assert revise("abcd", "axcd") == ([0, 1, 2, 3], [True, False, True, True], [])
    assert revise("abcd", "xabcd") == ([None, 0, 1, 2, 3], [False, True, True, True, True], [])
    assert revise("abc", "xyzabc")[0] == [None, None, None, 0, 1, 2]
    assert revise("abc", "xyz") == ([0, 1, 2], [False] * 3, [])
    assert revise("aa", "a") == ([0], [True], [1])
