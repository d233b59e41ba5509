"""A search whose kinds or scopes are weighed differently: what the index is asked, and one answer of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..policy.modes import Weights
from ..records import Match, Record
from ..types import Scope, ScopeWeight
from . import arguments

Shares = Sequence[ScopeWeight] | None
"""The scopes of one query with their weights; None where they have none."""


class Piece(NamedTuple):
    """A part of a search that one ranking serves. kinds: None for any; but: kinds left out. share: which of
    the weighted scopes it is, None for all."""

    scopes: Sequence[Scope]
    ranking: Weights
    kinds: tuple[str, ...] | None
    but: tuple[str, ...] = ()
    share: int | None = None


class Joined(NamedTuple):
    """The best of all pieces, with their weighted scores; weights: of their scopes, where these have some."""

    matches: Sequence[Match]
    weights: Sequence[float] | None


class Division:
    """How a search is divided.

    by_text: some ranking asks for words or entities. text_alone: all do, and none for similarity. by_words:
    all ask for words; some_words: some does. hybrid: all ask for words and similarity.

    The k best of each piece hold the k best of the search: where quotas refuse
    one of a scope's k best, other hits have taken all places or the scope has given all that it may."""

    def __init__(self, ranking: Weights, kinds: tuple[str, ...] | None) -> None:
        self._rankings = _rankings(ranking, kinds)
        wordy = [bool(own.lexical or own.adjacent) for own, *_ in self._rankings]
        similar = [bool(own.similarity) for own, *_ in self._rankings]
        text = [words or bool(own.entities) for words, (own, *_) in zip(wordy, self._rankings, strict=True)]
        self.by_text = any(text)
        self.text_alone = all(text) and not any(similar)
        self.some_words, self.by_words = any(wordy), all(wordy)
        self.hybrid = self.by_words and all(similar)

    @property
    def some_entities(self) -> bool:
        """Whether some ranking asks for entities."""
        return any(own.entities for own, *_ in self._rankings)

    def pieces(self, scopes: Sequence[Scope], shares: Shares) -> list[Piece]:
        """Of one query over its scopes; where these are weighted, in their order."""
        if shares is None:
            return [Piece(scopes, *own) for own in self._rankings]
        return [
            Piece((share.scope,), *own, place) for place, share in enumerate(shares) for own in self._rankings
        ]

    def joined(
        self,
        pieces: Sequence[Piece],
        found: Sequence[Sequence[Match]],
        records: Mapping[tuple[bytes, int], Record],
        k: int,
        shares: Shares,
    ) -> Joined:
        """The k best of what was found of each piece, in the order that one scan would give: score, place of
        the scope, then earlier added first."""
        if len(pieces) == 1 and shares is None:
            return Joined(found[0], None)
        candidates = []
        for piece, matches in zip(pieces, found, strict=True):
            weight = 1.0 if piece.share is None or shares is None else shares[piece.share].weight
            for match in matches:
                record = records.get(match[2:4])
                if record is None:
                    continue
                place = piece.share
                if place is None:
                    covering = (i for i, scope in enumerate(piece.scopes) if scope.covers(record.item.scope))
                    place = next(covering, len(piece.scopes))
                candidates.append((-weight * match[0], place, record.ordinal, match, weight))
        candidates.sort(key=lambda candidate: candidate[:3])
        best = _within_quotas(candidates, k, shares)
        if shares is None:
            return Joined([match for match, _ in best], None)
        return Joined(
            [(weight * match[0], *match[1:]) for match, weight in best], [weight for _, weight in best]
        )


def _within_quotas(
    candidates: Iterable[tuple[float, int, int, Match, float]], k: int, shares: Shares
) -> list[tuple[Match, float]]:
    left = [k if share.quota is None else share.quota for share in shares or ()]
    best: dict[bytes, tuple[Match, float]] = {}
    for _, place, _, match, weight in candidates:
        if match[2] in best or (left and not left[place]):
            continue
        best[match[2]] = match, weight
        if left:
            left[place] -= 1
        if len(best) == k:
            break
    return list(best.values())


def _rankings(
    ranking: Weights, kinds: tuple[str, ...] | None
) -> list[tuple[Weights, tuple[str, ...] | None, tuple[str, ...]]]:
    """(ranking, kinds, kinds left out) of each group of kinds that are scored alike."""
    named = arguments.check_kinds(list(ranking.by_kind)) if ranking.by_kind else ()
    groups: list[tuple[Weights, list[str]]] = []
    for kind in named:
        if kinds is not None and kind not in kinds:
            continue
        own = ranking.by_kind[kind]
        for other, members in groups:
            if other == own:
                members.append(kind)
                break
        else:
            groups.append((own, [kind]))
    found: list[tuple[Weights, tuple[str, ...] | None, tuple[str, ...]]] = [
        (own, tuple(members), ()) for own, members in groups
    ]
    if kinds is None:
        found.append((ranking, None, named))
    elif others := tuple(kind for kind in kinds if kind not in named):
        found.append((ranking, others, ()))
    return found
