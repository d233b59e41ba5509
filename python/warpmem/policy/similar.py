"""What a near-duplicate is, beyond the nearness of its vector, and what becomes of it.

Vectors of "meets at nine" and "meets at ten", or of what two people like, are as near as those of two
wordings. So a near-duplicate must also name the same names and numbers: words that begin with a capital
letter, and words with a digit, have to be the same ones in both texts, the same number of times.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..config import MAX_NAMES
from ..ops.clock import open_end, to_micros
from ..ops.ids import is_id, parse_id
from ..records import Record
from ..types import MemoryItem

_WORD = re.compile(r"[^\W_]+")
_MOST_FOLLOWED: Final = 4096
"""Sources of sources that are looked at inside a change."""


class Near(NamedTuple):
    """A stored item near a new one: its key, the version that was compared, and the cosine."""

    key: bytes
    version: int
    similarity: float


def same_names_and_numbers(one: str, other: str) -> bool:
    """Whether two texts have the same words with a digit and the same capitalised words."""
    return names_and_numbers(one) == names_and_numbers(other)


def shared_words(one: str, other: str) -> float:
    """Words that both texts have, as a share of all words of both (Jaccard index); from 0 to 1."""
    words, others = (set(_WORD.findall(text.casefold())) for text in (one, other))
    return len(words & others) / max(1, len(words | others))


def names_and_numbers(text: str) -> frozenset[tuple[str, int]]:
    """The words of a text that another wording of it has too, with how many times."""
    found = Counter(
        word.casefold()
        for word in _WORD.findall(text)
        if word[0].isupper() or any(character.isdigit() for character in word)
    )
    return frozenset(found.items())


def united(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...] | None:
    """Both without repetitions; None where an item cannot have so many names: it is not joined then, for a
    source that is left out could neither be revoked nor erased."""
    names = tuple(dict.fromkeys((*one, *other)))
    return names if len(names) <= MAX_NAMES else None


def derived_from(item_id: str, sources: Sequence[str]) -> tuple[str, ...]:
    """The sources of what is made of an item that has room for one more: the item and what it names."""
    return tuple(dict.fromkeys((item_id, *sources)))


def sources_of_both(known: MemoryItem, item: MemoryItem) -> tuple[str, ...] | None:
    """What an item names as its sources once another says the same: those of the one that is trusted more,
    else of both, so that revoking one that is doubted takes nothing from one that is not. None where these
    are too many, as for united()."""
    new = tuple(name for name in item.sources if name != known.id)
    if item.trust == known.trust:
        return united(known.sources, new)
    return new if item.trust > known.trust else tuple(known.sources)


def comes_from(sources: Sequence[str], item_id: str, get: Callable[[bytes], Record | None]) -> bool:
    """Whether sources lead to an item through others, which `get` reads; so does what is too long to follow.
    One that is the item itself does not count: it can be left out."""
    waiting = [name for name in sources if name != item_id and is_id(name)]
    seen = set(waiting)
    while waiting and len(seen) <= _MOST_FOLLOWED:
        record = get(parse_id(waiting.pop()))
        if record is not None:
            more = [name for name in record.item.sources if name not in seen and is_id(name)]
            if item_id in more:
                return True
            seen.update(more)
            waiting += more
    return bool(waiting)


def says_the_same(known: Record, item: MemoryItem, now: int) -> bool:
    """Whether `item`, whose vector is near that of `known`, is another wording of it and no more.

    Same scope, kind, metadata, key, modality and blob, same names and numbers, true at the same time as far
    as both say, not less trusted, and with no more sources and entities than one item may have."""
    old = known.item
    begins = to_micros(item.valid_from, "valid_from")
    return (
        (old.scope, old.kind, old.metadata, old.key, old.modality, old.blob)
        == (item.scope, item.kind, item.metadata, item.key, item.modality, item.blob)
        and to_micros(old.valid_from, "valid_from") <= begins < open_end(old.valid_to, "valid_to")
        and open_end(item.valid_to, "valid_to") == open_end(old.valid_to, "valid_to")
        and open_end(old.expires_at, "expires_at") > max(begins, now)
        and item.trust >= old.trust
        and united(old.entities, item.entities) is not None
        and sources_of_both(old, item) is not None
        and same_names_and_numbers(old.text, item.text)
    )
