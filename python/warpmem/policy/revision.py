"""What a new edition of a document does to the chunks of the one before it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Revision(NamedTuple):
    """places: for each new chunk, which old one it stands in the place of, None where it has none. kept: for
    each new chunk, whether it is that old one, word for word. removed: the old chunks without a successor."""

    places: list[int | None]
    kept: list[bool]
    removed: list[int]


def revise(old: Sequence[Hashable], new: Sequence[Hashable]) -> Revision:
    """Compare two editions, each a list of what its chunks say.

    A chunk that says what an old one said is that one, wherever it stands now; of several that say the same
    the first is the first. Any other takes the place of the old chunk that followed its predecessor, if that
    one is gone. Takes a time in proportion to both.
    """
    waiting: dict[Hashable, deque[int]] = defaultdict(deque)
    for number, said in enumerate(old):
        waiting[said].append(number)
    places: list[int | None] = [waiting[said].popleft() if waiting.get(said) else None for said in new]
    kept = [place is not None for place in places]
    taken = {place for place in places if place is not None}
    before = -1
    for number, place in enumerate(places):
        if place is None and before + 1 < len(old) and before + 1 not in taken:
            place = places[number] = before + 1
            taken.add(place)
        before = before if place is None else place
    return Revision(places, kept, [number for number in range(len(old)) if number not in taken])
