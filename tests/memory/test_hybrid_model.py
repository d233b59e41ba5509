"""Search by words: the k best of a plain Python model over random histories, to the bit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from oracle import exact_dot, round_float32
from pools import without_adding
from warpmem import Memory, Ranking, Scope
from warpmem.embed.callable import CallableEmbedder
from warpmem.index import blend, partitions
from warpmem.ops.clock import FixedClock, to_datetime
from warpmem.policy import modes
from word_model import WordModel

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
FOREVER = datetime.max.replace(tzinfo=UTC)
DIM = 4
WORDS = ["alpha", "alphabet", "beta", "x7", "2024", "to", "tower", "towers", "cafe", "red"]
WEIGHTS = (
    {"mode": "hybrid"},
    {"mode": "lexical"},
    {"ranking": Ranking(lexical=2.0)},
    {"ranking": Ranking(adjacent=1.0)},
    {"ranking": Ranking(similarity=0.0, lexical=1.0, adjacent=0.5, recency=1.0, half_life=HOUR)},
    {"ranking": Ranking(lexical=0.5, adjacent=0.5, recency=3.0, priority=2.0, half_life=HOUR)},
    {"mode": "hybrid", "ranking": Ranking(priority=2.0)},
)


@dataclasses.dataclass
class Version:
    """One version of one item."""

    id: str
    version: int
    ordinal: int
    user: str
    agent: str | None
    run: str | None
    kind: str
    key: str | None
    text: str
    n: int
    priority: float
    vector: list[int]
    valid_from: datetime
    recorded_at: datetime
    valid_to: datetime = FOREVER
    retired_at: datetime = FOREVER
    expires_at: datetime = FOREVER
    waits: bool = False


def vector_of(text: str) -> list[int]:
    """What the model of stores that embed later makes of a text."""
    rng = random.Random(text)
    while not any(vector := [rng.randint(-1, 1) for _ in range(DIM)]):
        pass
    return vector


def unit(vector: Sequence[int]) -> Any:
    exact = np.array(vector, np.float64)
    return (exact / np.sqrt((exact * exact).sum())).astype(np.float32)


class Model:
    """A store beside the versions it holds. queue: some items are stored without their vectors."""

    def __init__(
        self, path: Path | None, seed: int, backend: Any, columns: bool, queue: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.queue = queue
        self.clock = FixedClock(START)
        self.path, self.backend = path, backend
        self.columns = {"n": "number"} if columns else {}
        self.rows: list[Version] = []
        self.ordinals = {"ann": 0, "bob": 0}
        self.follower: Memory | None = None
        self.most_k = 40
        self.open()

    def open(self) -> None:
        model: dict[str, Any] = {"dimension": DIM}
        if self.queue:
            embedder = CallableEmbedder(lambda texts: np.array([*map(vector_of, texts)]), "by text", DIM)
            model = {"embedder": embedder, "background_work": False}
        self.memory = warpmem.open(
            self.path,
            **model,
            clock=self.clock,
            durability="os",
            backend=self.backend,
            columns=self.columns,
        )

    def close(self) -> None:
        if self.follower is not None:
            self.follower.close()
            self.follower = None
        self.memory.close()

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def vector(self) -> list[int]:
        while not any(vector := [self.random.randint(-1, 1) for _ in range(DIM)]):
            pass
        return vector

    def text(self) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(self.random.randint(1, 5)))

    def current(self) -> list[Version]:
        return [row for row in self.rows if row.retired_at == FOREVER]

    # ---------------------------------------------------------------------------------- changes

    def change(self) -> None:
        self.clock.advance(HOUR)
        self.pick(*[self.add] * 10, *[self.update] * 4, *[self.delete] * 3, self.rarely)()

    def add(self) -> None:
        now, user = to_datetime(self.clock.now()), self.pick("ann", "ann", "bob")
        agent, run = self.pick(None, "a", "b"), self.pick(None, "r", "r", "s")
        kind, key = self.pick("event", "event", "note"), self.pick(None, None, None, "k1", "k2")
        kind = "event" if key is None else kind  # notes without a key could be duplicates
        expires = now + self.random.randint(5, 20) * HOUR if self.random.random() < 0.2 else None
        row = Version(
            id="",
            version=1,
            ordinal=self.ordinals[user],
            user=user,
            agent=agent,
            run=run,
            kind=kind,
            key=key,
            text=self.text(),
            n=self.random.randint(0, 3),
            priority=self.pick(0.0, 0.5, 1.0),
            vector=self.vector(),
            valid_from=now,
            recorded_at=now,
            expires_at=expires or FOREVER,
        )
        how: dict[str, Any] = {"vector": row.vector}
        if self.queue and self.random.random() < 0.7:
            row.vector, row.waits, how = vector_of(row.text), True, {"embed": "later"}
        result: Any = self.memory.add(
            row.text, user_id=user, agent_id=agent, run_id=run, kind=kind, key=key, metadata={"n": row.n},
            priority=row.priority, expires_at=expires, **how,
        )  # fmt: skip
        row.id = result.id
        if result.action == "touched":
            return
        if key is not None and result.replaced is not None:
            (old,) = [one for one in self.current() if one.id == result.replaced]
            self.revise(old, valid_to=now)
        self.ordinals[user] += 1
        self.rows.append(row)
        found = self.memory.search(row.text, user_id=user, agent_id=agent, run_id=run, mode="lexical", k=200)
        assert row.id in {hit.item.id for hit in found}

    def revise(self, row: Version, **changes: Any) -> None:
        now = to_datetime(self.clock.now())
        row.retired_at = now
        new = {"recorded_at": now, "retired_at": FOREVER, "version": row.version + 1, **changes}
        self.rows.append(dataclasses.replace(row, **new))

    def update(self) -> None:
        if self.current():
            row, text = self.random.choice(self.current()), self.text()
            vector = self.pick(row.vector, self.vector())
            if row.waits and self.random.random() < 0.5:
                n = self.random.randint(0, 3)
                self.memory.update(row.id, metadata={"n": n})
                self.revise(row, n=n)
                return
            self.memory.update(row.id, text=text, vector=vector)
            self.revise(row, text=text, vector=vector, waits=False)

    def delete(self) -> None:
        if self.current():
            gone = self.random.choice(self.current()).id
            self.memory.delete(gone)
            self.rows = [row for row in self.rows if row.id != gone]

    def rarely(self) -> None:
        if self.queue and self.random.random() < 0.3:
            waiting = [row for row in self.rows if row.waits]
            assert self.memory.embed_pending() == len(waiting)
            for row in waiting:
                row.waits = False
        elif self.random.random() < 0.5 and self.current():
            gone = self.random.choice(self.current()).id
            self.memory.erase([gone])
            self.rows = [row for row in self.rows if row.id != gone]
        elif self.path is not None:
            if self.random.random() < 0.5:
                self.memory.checkpoint()
            self.close()
            self.open()

    # ----------------------------------------------------------------------------------- search

    def words_of(self, user: str) -> WordModel:
        words = WordModel()
        for row in self.rows:
            if row.user == user:
                ended = row.valid_to != FOREVER or row.retired_at != FOREVER
                run = None if ended or row.run is None else (row.kind, row.agent, row.run)
                words.put((row.id, row.version), run, row.ordinal, row.text, counts=not ended)
        return words

    def search(self) -> None:
        now = to_datetime(self.clock.now())
        weights = dict(self.random.choice(WEIGHTS))
        query, vector = self.text(), self.vector()
        scopes = [
            Scope(user_id=self.pick("ann", "bob"), agent_id=self.pick(None, "a"), run_id=self.pick(None, "r"))
            for _ in range(self.pick(1, 1, 2, 3))
        ]
        k, kinds = self.pick(1, 2, 5, self.most_k), self.pick(None, None, ["event"], ["note", "other"])
        least_n = self.pick(None, None, 1, 3)
        least = self.pick(None, None, 0.0, 0.4)
        back, known_back = self.pick(0, 0, 0, 3, 9), self.pick(None, None, None, 0, 5)
        at = now - back * HOUR
        known_at = None if known_back is None else now - known_back * HOUR
        during = self.pick(None, None, None, (9, 3), (4, -2), (None, 5), (2, None))
        since, until = at, at + MICROSECOND
        if during is not None:
            first, end = (None if hours is None else now - hours * HOUR for hours in during)
            since, until, back = first or LONG_AGO, end or FOREVER, 0
        options: dict[str, Any] = {
            "k": k,
            "kinds": kinds,
            "filters": None if least_n is None else {"metadata.n": {"gte": least_n}},
            "min_similarity": least,
            "as_of": at if back else None,
            "known_at": known_at,
            "during": None if during is None else (first, end),
            "vector": vector,
            **weights,
        }
        ranking = modes.weights(weights.get("mode"), weights.get("ranking"))
        totals = {
            user: self.words_of(user).totals(query, ranking.lexical, ranking.adjacent)
            for user in ("ann", "bob")
        }
        direction = [float(x) for x in unit(vector)]
        expected = []
        for row in self.rows:
            groups = [
                place
                for place, scope in enumerate(scopes)
                if scope.user_id == row.user
                and scope.agent_id in (None, row.agent)
                and scope.run_id in (None, row.run)
            ]
            known = (
                row.retired_at == FOREVER
                if known_at is None
                else row.recorded_at <= known_at < row.retired_at
            )
            similarity = round_float32(exact_dot(direction, [float(x) for x in unit(row.vector)]))
            similarity = np.float32(0.0) if row.waits else similarity
            if (
                not groups
                or not known
                or not (row.valid_from < until and since < row.valid_to)
                or row.expires_at <= since
                or (kinds is not None and row.kind not in kinds)
                or (least_n is not None and row.n < least_n)
                or (least is not None and similarity < np.float32(least))
            ):
                continue
            total, lexical, adjacent = totals[row.user][row.id, row.version]
            if (row.waits or not ranking.similarity) and not total:
                continue
            age = max(timedelta(0), now - row.valid_from) / ranking.half_life
            scan = round_float32(
                ranking.similarity * similarity
                + ranking.recency * 2.0**-age
                + ranking.priority * row.priority
            )
            score = round_float32(scan + float(total))
            expected.append((-score, min(groups), row.ordinal, row.id, row.version, lexical, adjacent))
        expected.sort()
        for memory in (self.memory, self.follower):
            if memory is None:
                continue
            if memory is self.follower:
                memory.refresh()
            result = memory.search(query, scopes=scopes, **options)
            got = [
                (
                    -hit.score,
                    hit.item.id,
                    hit.item.version,
                    hit.parts.get("lexical", 0.0),
                    hit.parts.get("adjacent", 0.0),
                )
                for hit in result
            ]
            wanted = [
                (
                    score,
                    item,
                    version,
                    float(lexical) if ranking.lexical else 0.0,
                    float(adjacent),
                )
                for score, _, _, item, version, lexical, adjacent in expected[:k]
            ]
            assert got == wanted, (options, scopes, query)


@pytest.fixture(params=["added", "blended", "many rounds"])
def rounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the scan adds what words say, or cannot; and then, whether a search begins with one row, so
    that it goes round often and reaches the last round."""
    if request.param != "added":
        without_adding(monkeypatch)
    if request.param == "many rounds":
        monkeypatch.setattr(blend, "_SCANNED", 1)
        monkeypatch.setattr(blend, "_WORDED", 1)
        monkeypatch.setattr(blend, "_GROWTH", 2)
        monkeypatch.setattr(blend, "MOST", 24)
    return bool(request.param == "many rounds")


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("columns", [False, True], ids=["bitmap", "columns"])
@pytest.mark.parametrize("queue", [False, True], ids=["embedded", "some later"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_random_histories(
    seed: int, queue: bool, columns: bool, backend: str, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_SPARE_NAMES", 8)  # partitions are dropped and rebuilt all the time
    model = Model(None, seed, backend, columns, queue)
    if rounds:
        model.most_k = 8
    for _ in range(60):
        model.change()
        for _ in range(3):
            model.search()
    model.close()


@pytest.mark.parametrize("queue", [False, True], ids=["embedded", "some later"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_random_histories_on_disk(seed: int, queue: bool, tmp_path: Path) -> None:
    """Reopened now and then, from the index's checkpoint or the log; a follower finds the same."""
    model = Model(tmp_path / "store", 100 + seed, "cpu", bool(seed % 2), queue)
    for _ in range(80):
        model.change()
        if model.follower is None and model.random.random() < 0.3:
            model.follower = warpmem.open(model.path, follow=True, clock=model.clock)
        for _ in range(2):
            model.search()
    model.close()
