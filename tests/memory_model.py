"""A list of plain Python rows that a Memory on disk should behave as, and the changes and questions to both.

A step is a change, or one of the QUESTIONS asked after it; a reopening and a crash are changes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import warpmem
from warpmem import NewItem, Scope
from warpmem.ops.clock import FixedClock, to_datetime

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FOREVER = datetime.max.replace(tzinfo=UTC)
DIM = 4
CHANGES = 313  # of a store
QUESTIONS = 7  # two listings, the feed, four searches
STEPS_OF_A_CHANGE = 1 + QUESTIONS
ERASURES = 0.2


@dataclasses.dataclass
class Version:
    """One version of one item, as a row."""

    id: str
    ordinal: int
    user: str
    agent: str | None
    kind: str
    key: str | None
    text: str
    n: int
    vector: list[int]
    valid_from: datetime
    valid_to: datetime
    recorded_at: datetime
    retired_at: datetime
    expires_at: datetime


def unit(vector: list[int]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [float(np.float32(x / length)) for x in vector]


def cosine(a: list[int], b: list[int]) -> float:
    return float(np.float32(math.fsum(x * y for x, y in zip(unit(a), unit(b), strict=True))))


class Model:
    """The store beside the rows that it should be equal to."""

    def __init__(self, folder: Path, source: random.Random) -> None:
        self.folder = folder
        self.random = source
        self.clock = FixedClock(START)
        self.rows: list[Version] = []
        self.ordinals: dict[str, int] = {"ann": 0, "bob": 0}
        self.texts = 0
        self.crashes = 0
        self.open()

    def open(self) -> None:
        self.memory = warpmem.open(self.store, dimension=DIM, clock=self.clock, durability="os")

    @property
    def store(self) -> Path:
        """Where it is by now: each crash moves it."""
        return self.folder / f"store-{self.crashes}"

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def vector(self) -> list[int]:
        vector = [self.random.randint(-2, 2) for _ in range(DIM)]
        return vector if any(vector) else [1, *vector[1:]]

    def step(self) -> None:
        change = self.pick(
            *[self.add] * 12,
            *[self.update] * 8,
            *[self.delete] * 5,
            self.delete_all,
            self.reopen,
            self.crash,
            self.rarely_erase,
            self.refused,
        )
        change()
        self.ask()

    def ask(self) -> None:
        self.listings_agree()
        self.the_feed_has_no_gap()
        for _ in range(4):
            self.search()

    def now(self) -> datetime:
        return to_datetime(self.clock.now())

    def tick(self) -> None:
        self.clock.advance(HOUR)

    def current(self) -> list[Version]:
        return [row for row in self.rows if row.retired_at == FOREVER]

    # ---------------------------------------------------------------------------------- changes

    def add(self) -> None:
        self.tick()
        self.texts += 1
        user, agent = self.pick("ann", "ann", "ann", "bob"), self.pick(None, None, "a")
        kind, key = self.pick("fact", "event"), self.pick("k1", "k1", "k2", None)
        n, vector = self.random.randint(0, 3), self.vector()
        offset, ttl = self.pick(0, 0, 0, -1, -2, -5, -9, 2), self.random.randint(0, 12)
        now = self.now()
        begins = now + offset * HOUR
        expires = now + ttl * HOUR if ttl > 6 else None
        text = f"text {self.pick(self.texts, self.random.randint(0, 2))}"
        result = self.memory.add(
            text,
            user_id=user,
            agent_id=agent,
            kind=kind,
            key=key,
            metadata={"n": n},
            vector=vector,
            valid_from=begins,
            expires_at=expires,
        )
        assert isinstance(result, warpmem.AddResult)
        known = [row for row in self.current() if (row.user, row.agent) == (user, agent)]
        chain = [row for row in known if key is not None and row.key == key]
        ends = min((row.valid_from for row in chain if row.valid_from > begins), default=FOREVER)
        for row in known:
            same = (row.kind, row.key, row.text, row.n) == (kind, key, text, n) and kind != "event"
            valid = row.valid_from <= begins < row.valid_to and ends <= row.valid_to
            if same and valid and row.expires_at > max(begins, now):
                assert result == warpmem.AddResult(result.id, "touched")
                (row,) = [one for one in known if one.id == result.id]
                if (expires or FOREVER) > row.expires_at:
                    self.revise(row, expires_at=expires or FOREVER)
                return
        assert result.action != "touched"
        before = sorted(
            (row for row in chain if row.valid_from <= begins), key=lambda r: (r.valid_from, r.id)
        )
        if before and before[-1].valid_to > begins:
            assert result.replaced == before[-1].id
            self.revise(before[-1], valid_to=begins)
        self.rows.append(
            Version(
                id=result.id,
                ordinal=self.ordinals[user],
                user=user,
                agent=agent,
                kind=kind,
                key=key,
                text=text,
                n=n,
                vector=vector,
                valid_from=begins,
                valid_to=ends,
                recorded_at=now,
                retired_at=FOREVER,
                expires_at=expires or FOREVER,
            )
        )
        self.ordinals[user] += 1

    def revise(self, row: Version, **changes: Any) -> None:
        row.retired_at = self.now()
        self.rows.append(dataclasses.replace(row, recorded_at=self.now(), retired_at=FOREVER, **changes))

    def update(self) -> None:
        if not self.current():
            return
        self.tick()
        row, n = self.random.choice(self.current()), self.random.randint(0, 3)
        vector = self.pick(None, self.vector())
        if vector is None:
            self.memory.update(row.id, metadata={"n": n})
            self.revise(row, n=n)
        else:
            self.memory.update(row.id, metadata={"n": n}, vector=vector)
            self.revise(row, n=n, vector=vector)

    def delete(self) -> None:
        if not self.current():
            return
        self.tick()
        row = self.random.choice(self.current())
        self.memory.delete(row.id, scope=Scope(user_id=row.user))
        self.rows = [other for other in self.rows if other.id != row.id]

    def delete_all(self) -> None:
        self.tick()
        user, agent = self.pick("ann", "bob"), "a"
        doomed = {row.id for row in self.rows if (row.user, row.agent) == (user, agent)}
        assert self.memory.delete_all(user_id=user, agent_id=agent) == len(doomed)
        self.rows = [row for row in self.rows if row.id not in doomed]

    def rarely_erase(self) -> None:
        """An erasure takes as long as a hundred other changes."""
        if self.random.random() < ERASURES:
            self.erase()

    def erase(self) -> None:
        """An item, half of what one has, or all of it; then nothing of it is left in the past either."""
        self.tick()
        user, agent = self.pick("ann", "bob"), self.pick("a", None)
        if agent is None and self.random.random() < 0.5 and self.current():
            ids = [self.random.choice(self.current()).id]
            self.memory.erase(ids)
        else:
            self.memory.erase(user_id=user, agent_id=agent)
            ids = [r.id for r in self.rows if r.user == user and agent in (None, r.agent)]
            if agent is None:
                self.ordinals[user] = 0
        self.rows = [row for row in self.rows if row.id not in ids]
        assert self.memory.get_many(ids) == (None,) * len(ids)

    def reopen(self) -> None:
        self.memory.close()
        self.open()

    def crash(self) -> None:
        """Go on in what a kill would leave: the files as they are while the store is open. What was
        acknowledged is with the system (durability "os"), and must be there."""
        memory, left = self.memory, self.store
        self.crashes += 1
        while True:
            before = files_of(left)
            with contextlib.suppress(shutil.Error):  # a compaction has just removed a file
                shutil.copytree(left, self.store)
            if files_of(left) == before:
                break
            shutil.rmtree(self.store)
        memory.close()
        shutil.rmtree(left)
        self.open()

    def refused(self) -> None:
        user, vector = "ann", self.vector()
        items = [NewItem(text="fine", vector=vector), NewItem(text=" ", vector=vector)]
        try:
            self.memory.add_many(items, user_id=user)
        except warpmem.errors.InvalidText:
            return
        raise AssertionError("an empty text was stored")

    # ------------------------------------------------------------------------------------ reads

    def search(self) -> None:
        user, agent, vector = self.pick("ann", "ann", "bob"), self.pick(None, None, None, "a"), self.vector()
        k, kind, least = (
            self.random.randint(1, 12),
            self.pick(None, None, "fact"),
            self.pick(None, None, 0, 2),
        )
        back, known_back = self.pick(0, 0, 1, 2, 3, 5, 8, 13, 40), self.pick(None, None, None, 0, 1, 3, 8, 40)
        at = self.now() - back * HOUR
        known_at = None if known_back is None else self.now() - known_back * HOUR
        expected = []
        for row in self.rows:
            known = (
                row.retired_at == FOREVER
                if known_at is None
                else row.recorded_at <= known_at < row.retired_at
            )
            if (
                row.user == user
                and (agent is None or row.agent == agent)
                and (kind is None or row.kind == kind)
                and (least is None or row.n >= least)
                and row.valid_from <= at < row.valid_to
                and row.expires_at > at
                and known
            ):
                expected.append((-cosine(row.vector, vector), row.ordinal, row.id, row.n))
        expected.sort()
        result = self.memory.search(
            vector=vector, user_id=user, agent_id=agent, k=k, kinds=None if kind is None else [kind],
            filters=None if least is None else {"metadata.n": {"gte": least}},
            as_of=at if back else None, known_at=known_at,
        )  # fmt: skip
        got = [(hit.item.id, hit.item.metadata["n"], hit.score) for hit in result]
        assert [(item_id, n) for item_id, n, _ in got] == [(item_id, n) for _, _, item_id, n in expected[:k]]
        for (_, _, score), (minus, _, _, _) in zip(got, expected, strict=False):
            assert abs(score + minus) < 1e-6

    def listings_agree(self) -> None:
        for user in ("ann", "bob"):
            ids = [row.id for row in sorted(self.current(), key=lambda row: row.ordinal) if row.user == user]
            assert [item.id for item in self.memory.list(user_id=user, include_past=True)] == ids
        assert self.memory.stats().items == len(self.current())

    def the_feed_has_no_gap(self) -> None:
        sequence = self.memory.stats().sequence
        since = max(0, sequence - 200)
        cursors = [change.cursor for change in self.memory.changes(since, limit=10_000)]
        assert cursors == list(range(since + 1, sequence + 1))


def files_of(store: Path) -> set[tuple[str, int, int]]:
    """Names, lengths and times of a store's files, but for RocksDB's own notes."""
    found = set()
    for file in store.iterdir():
        if not file.name.startswith("LOG"):
            with contextlib.suppress(FileNotFoundError):
                found.add((file.name, file.stat().st_size, file.stat().st_mtime_ns))
    return found


def run(folder: Path, first: int, count: int) -> Counter[str]:
    """Changes `first` to `first + count`, each followed by its questions, compared with the model; a new
    store every CHANGES. Says how many steps, changes and crashes there were."""
    counts: Counter[str] = Counter()
    for begin in range(first, first + count, CHANGES):
        (folder / f"{begin}").mkdir()
        model = Model(folder / f"{begin}", random.Random(begin))
        changes = min(CHANGES, first + count - begin)
        for _ in range(changes):
            model.step()
        model.memory.close()
        counts += Counter(changes=changes, steps=changes * STEPS_OF_A_CHANGE, crashes=model.crashes)
    return counts
