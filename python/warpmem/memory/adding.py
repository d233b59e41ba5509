"""The items of an addition on their way into one change, and calls that were made before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ..config import IDEMPOTENCY_DAYS
from ..ops.ids import parse_id
from ..policy import reconcile
from ..policy.similar import Near, derived_from
from ..protocols import Transaction
from ..types import AddResult, Owner

_WINDOW = IDEMPOTENCY_DAYS * 24 * 3600 * 1_000_000


class Call(msgspec.Struct, frozen=True):
    """An idempotent call: whose, under which key, with which content."""

    owner: Owner
    digest: bytes
    payload: bytes


Calls = Sequence[tuple[Call | None, Sequence[int]]]
"""The idempotent calls that a list of items is made of, each with the numbers of its items."""


def _known(transaction: Transaction, call: Call) -> list[AddResult] | None:
    owner = transaction.owner(call.owner)
    known = reconcile.idempotent_result(transaction, owner, call.digest, call.payload, _WINDOW)
    return None if known is None else [AddResult(*fields) for fields in known]


def replay(transaction: Transaction, calls: Calls) -> tuple[AddResult, ...] | None:
    """The remembered results when every call was made before: then there is nothing to embed."""
    results: list[AddResult] = []
    for call, _ in calls:
        known = None if call is None else _known(transaction, call)
        if known is None:
            return None
        results += known
    return tuple(results)


class Adding:
    """The items of a call on their way into one change: later ones see what became of those before.

    extract: leave it to be done that a language model makes memories of them."""

    def __init__(
        self,
        transaction: Transaction,
        prepared: Sequence[reconcile.Prepared],
        together: Mapping[int, Sequence[tuple[int, float]]],
        put: Callable[[Transaction, reconcile.Prepared], AddResult],
        followers: Mapping[int, Sequence[int]],
        extract: bool,
    ) -> None:
        self._extract = extract
        self.transaction = transaction
        self._prepared = prepared
        self._together = together
        self._put = put
        self._followers = followers
        self._stored: dict[int, str] = {}

    def add(self, numbers: Sequence[int]) -> list[AddResult]:
        """Add the items of these numbers, and what follows from each."""
        results = []
        for number in numbers:
            results.append(self._add(number))
            if self._extract and results[-1].action in ("added", "queued"):
                self.transaction.leave("extract", parse_id(results[-1].id), 1)
            for follower in self._followers.get(number, ()):
                self._add(follower, results[-1].id)
        return results

    def _add(self, number: int, source: str | None = None) -> AddResult:
        entry = self._prepared[number]
        if source is not None:
            item = msgspec.structs.replace(entry.item, sources=derived_from(source, entry.item.sources))
            entry = msgspec.structs.replace(entry, item=item, told=True)
        if number in self._together:
            near = [*self._before(number), *entry.near]
            entry = msgspec.structs.replace(entry, near=near)
        result = self._put(self.transaction, entry)
        self._stored[number] = result.id
        return result

    def _before(self, number: int) -> Iterator[Near]:
        """What stands near an item among those before it, unless that became part of another wording."""
        for earlier, cosine in self._together[number]:
            known = self._stored.get(earlier)
            record = None if known is None else self.transaction.get(parse_id(known))
            if record is not None and record.item.text == self._prepared[earlier].item.text:
                yield Near(record.key, record.item.version, cosine)


def add_group(adding: Adding, call: Call | None, numbers: Sequence[int]) -> Sequence[AddResult]:
    """Add the items of one call, or find what became of them when it was made before."""
    if call is None:
        return adding.add(numbers)
    transaction = adding.transaction
    known = _known(transaction, call)
    if known is not None:
        return known
    results = adding.add(numbers)
    outcome = [[result.id, result.action, result.replaced] for result in results]
    transaction.remember(transaction.owner(call.owner), call.digest, call.payload, outcome, _WINDOW)
    return results
