"""The ledger of costs: what models did for whom, and for what.

What is spent is added up in memory and goes to the store as daily totals, at most once a minute and at the
end, so that a crash costs a minute of them. A name stands here only until then; in the store owners are
numbers, and an erased one's totals are erased with him.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from ..config import Config
from ..errors import StoreCorrupt, StoreError, WarpmemError
from ..ops import events
from ..ops.costs import (
    NOBODY,
    PREFIX,
    Amounts,
    CostLine,
    cost_key,
    day_of,
    merged,
    read_cost_key,
    read_lines,
    shares,
    write_lines,
)
from ..protocols import Log, Transaction
from ..types import Owner, Price
from .budgets import Budgets

_INTERVAL: Final = 60.0
_MOST: Final = 65_536
"""Entries kept in memory; owners who come after are counted as nobody."""

_FREE: Final = Price()


Purpose = tuple[Owner | None, str, str, str]
"""Whose: None for those who are counted together; lane; job; model."""
_Entry = tuple[int, Owner | None, str, str, str]
"""The day, and a purpose."""


class CostLedger:
    """One store's. Thread-safe. A store that is only read, or keeps no days, has its totals in memory.

    clock: seconds, never going back, between two times of storing
    """

    def __init__(self, log: Log, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._prices = config.prices
        self._days = config.cost_days
        self._clock = clock
        self._durable = not log.read_only and self._days > 0
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        self._new: dict[_Entry, Amounts] = {}
        self._epoch = 0
        self._due = clock() + _INTERVAL
        self._tidied = -1
        self._budgets = Budgets(config, self._known)

    # ------------------------------------------------------------------------------------- spending

    def check(self, owners: Iterable[Owner], lane: str, job: str) -> None:
        """Raise Overloaded, until the end of the day, where a budget forbids what is about to be done."""
        if self._budgets.any:
            with self._lock:
                self._budgets.check(self._log.now(), owners, lane, job)

    def account(
        self, texts: Sequence[Any], owners: Sequence[Owner], lane: str, job: str, model: str
    ) -> Callable[[int, float], None]:
        """What is to be told of each batch that texts of one call were in: their tokens and seconds. owners:
        whose each text is. Raises Overloaded as `check`."""
        if self._budgets.any:
            self.check(set(owners), lane, job)
        calls = [1]  # whoever takes it out counts the call
        if len(texts) == 1:
            purpose = (owners[0], lane, job, model)
            size = _size(texts[0])

            def spend_one(tokens: int, seconds: float) -> None:
                self.spend(purpose, tokens, seconds, size, 1)

            return spend_one
        sizes: dict[Owner, int] = {}
        for text, owner in zip(texts, owners, strict=True):
            sizes[owner] = sizes.get(owner, 0) + _size(text)

        def spend(tokens: int, seconds: float) -> None:
            try:
                called = calls.pop()
            except IndexError:
                called = 0
            parts = [tokens] if len(sizes) == 1 else shares([size + 1 for size in sizes.values()], tokens)
            for (owner, size), part in zip(sizes.items(), parts, strict=True):
                self.spend((owner, lane, job, model), part, seconds * part / tokens, size * called, called)

        return spend

    def spend(
        self, purpose: Purpose, tokens: int = 0, seconds: float = 0.0, size: int = 0, calls: int = 0,
        hits: int = 0,
    ) -> None:  # fmt: skip
        """Note what was spent; it cannot be refused any more. size: bytes of the texts. hits: texts that cost
        nothing."""
        price = self._prices.get(purpose[3], _FREE)
        money = price.per_million_tokens * tokens / 1e6 + price.per_device_second * seconds
        day = day_of(self._log.now())
        amounts = Amounts(seconds, tokens, size, calls, hits, money)
        with self._lock:
            if self._budgets.any and purpose[0] is not None:
                self._budgets.spend(day, purpose[0], purpose[2], amounts)
            self._note((day, *purpose), amounts)
        if self._durable and self._clock() > self._due:
            self._store_beside()

    def _note(self, entry: _Entry, amounts: Amounts) -> None:
        known = self._new.get(entry)
        if known is None and len(self._new) >= _MOST:
            entry = (entry[0], None, *entry[2:])
            known = self._new.get(entry)
        if known is None:
            self._new[entry] = amounts
        else:
            known.add(amounts)

    def _known(self, day: int, who: Owner | str) -> Iterator[Amounts]:
        """What the store has of an owner or a job today, for budgets. What cannot be read is nothing: whoever
        spends is in the middle of a batch that others wait for."""
        try:
            if isinstance(who, Owner):
                yield from (line.amounts for line in self._read(cost_key(day, self._number(who))))
            else:
                for _, lines in self._stored(day, day):
                    yield from (line.amounts for line in lines if line.job == who)
        except StoreError as error:
            events.tell(events.WARNING, "costs unreadable", error=type(error).__name__)

    def _read(self, key: bytes) -> list[CostLine]:
        """An owner's day. One that is damaged begins anew, as verify would have told."""
        try:
            payload = self._log.kept(key)
            return [] if payload is None else read_lines(payload)
        except StoreCorrupt:
            events.tell(events.WARNING, "costs unreadable", error="StoreCorrupt")
            return []

    # -------------------------------------------------------------------------------------- storing

    def store(self) -> bool:
        """Put everything in the store; whether that was done. What cannot be put there now stays in memory,
        and the log is told (ops/events.py): costs are no reason to fail for whoever comes by."""
        if not self._durable:
            return True
        with self._storing:
            with self._lock:
                new, self._new = self._new, {}
                epoch, self._due = self._epoch, self._clock() + _INTERVAL
            try:
                if new:
                    self._log.transact(lambda transaction: self._write(transaction, new), "os")
            except BaseException as error:
                with self._lock:
                    if epoch == self._epoch:  # else some of them may be of somebody who was erased
                        for entry, amounts in new.items():
                            self._note(entry, amounts)
                if not isinstance(error, WarpmemError):
                    raise
                events.tell(events.WARNING, "costs not stored", error=type(error).__name__)
                return False
        return True

    def _store_beside(self) -> None:
        """Store on a thread of its own, so that no search waits for the disk."""
        with self._lock:
            if self._clock() <= self._due:
                return
            self._due = self._clock() + _INTERVAL
        with contextlib.suppress(RuntimeError):  # the process may have no more threads, or is about to end
            threading.Thread(target=self.store, name="warpmem-costs").start()

    def _write(self, transaction: Transaction, new: dict[_Entry, Amounts]) -> None:
        by_key: dict[bytes, list[CostLine]] = {}
        for (day, owner, lane, job, model), amounts in new.items():
            key = cost_key(day, self._number(owner))
            by_key.setdefault(key, []).append(CostLine(lane, job, model, amounts))
        for key, lines in by_key.items():
            transaction.keep(key, write_lines(merged([*self._read(key), *lines])))
        today = day_of(transaction.now)
        if today != self._tidied:
            for key, _ in self._log.kept_between(PREFIX, cost_key(max(0, today - self._days), 0)):
                transaction.keep(key, None)
            self._tidied = today

    def forget(self, erased: Callable[[Owner], bool]) -> None:
        """Drop what is in memory of every owner of whom `erased` is true."""
        with self._lock:
            self._epoch += 1
            for entry in [entry for entry in self._new if entry[1] is not None and erased(entry[1])]:
                del self._new[entry]
            self._budgets.forget(erased)

    # -------------------------------------------------------------------------------------- looking

    def lines(self, since: int, owner: Owner | None) -> list[tuple[int, int, CostLine]]:
        """(day, owner's number, line) from a day on; of one owner where one is given."""
        wanted = None if owner is None else self._log.owner(owner)
        found: list[tuple[int, int, CostLine]] = []
        with self._storing:  # nothing is on its way between memory and store
            if owner is None or wanted is not None:
                for (day, number), lines in self._stored(since, (1 << 32) - 2):
                    if wanted is None or number == wanted:
                        found += [(day, number, line) for line in lines]
            with self._lock:
                new = [(entry, Amounts(*_fields(amounts))) for entry, amounts in self._new.items()]
        for (day, whose, lane, job, model), amounts in new:
            if day >= since and (owner is None or whose == owner):
                found.append((day, self._number(whose), CostLine(lane, job, model, amounts)))
        return found

    def _number(self, owner: Owner | None) -> int:
        number = None if owner is None else self._log.owner(owner)
        return NOBODY if number is None else number

    def _stored(self, first: int, last: int) -> Iterator[tuple[tuple[int, int], list[CostLine]]]:
        for key, payload in self._log.kept_between(cost_key(first, 0), cost_key(last + 1, 0)):
            yield read_cost_key(key), read_lines(payload)


def _fields(amounts: Amounts) -> tuple[float, int, int, int, int, float]:
    return amounts.seconds, amounts.tokens, amounts.bytes, amounts.calls, amounts.hits, amounts.money


def _size(piece: Any) -> int:
    """Bytes of a text, or of Media."""
    if not isinstance(piece, str) or piece.isascii():
        return len(piece)
    return len(piece.encode(errors="surrogatepass"))
