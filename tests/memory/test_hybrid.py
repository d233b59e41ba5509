"""Search by words: the k best of a plain Python model over random histories, to the bit; what each mode asks
for; words of what is gone."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from oracle import exact_dot, round_float32
from warpmem import Memory, Ranking, Scope
from warpmem.errors import InputError, InvalidText, InvalidVector, NotSupported
from warpmem.index import blend, partitions
from warpmem.ops.clock import FixedClock, to_datetime
from warpmem.policy import modes
from word_model import WordModel

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
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


def unit(vector: Sequence[int]) -> Any:
    exact = np.array(vector, np.float64)
    return (exact / np.sqrt((exact * exact).sum())).astype(np.float32)


class Model:
    """A store beside the versions it holds."""

    def __init__(self, path: Path | None, seed: int, backend: Any, columns: bool) -> None:
        self.random = random.Random(seed)
        self.clock = FixedClock(START)
        self.path, self.backend = path, backend
        self.columns = {"n": "number"} if columns else {}
        self.rows: list[Version] = []
        self.ordinals = {"ann": 0, "bob": 0}
        self.follower: Memory | None = None
        self.most_k = 40
        self.open()

    def open(self) -> None:
        self.memory = warpmem.open(
            self.path,
            dimension=DIM,
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
        result: Any = self.memory.add(
            row.text, user_id=user, agent_id=agent, run_id=run, kind=kind, key=key, metadata={"n": row.n},
            priority=row.priority, vector=row.vector, expires_at=expires,
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
            self.memory.update(row.id, text=text, vector=vector)
            self.revise(row, text=text, vector=vector)

    def delete(self) -> None:
        if self.current():
            gone = self.random.choice(self.current()).id
            self.memory.delete(gone)
            self.rows = [row for row in self.rows if row.id != gone]

    def rarely(self) -> None:
        if self.random.random() < 0.5 and self.current():
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
                words.put((row.id, row.version), run, row.ordinal, row.text)
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
        options: dict[str, Any] = {
            "k": k,
            "kinds": kinds,
            "filters": None if least_n is None else {"metadata.n": {"gte": least_n}},
            "min_similarity": least,
            "as_of": at if back else None,
            "known_at": known_at,
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
            if (
                not groups
                or not known
                or not row.valid_from <= at < row.valid_to
                or row.expires_at <= at
                or (kinds is not None and row.kind not in kinds)
                or (least_n is not None and row.n < least_n)
                or (least is not None and similarity < np.float32(least))
            ):
                continue
            total, lexical, adjacent = totals[row.user][row.id, row.version]
            if not ranking.similarity and not total:
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


@pytest.fixture(params=[False, True], ids=["as it is", "many rounds"])
def rounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a search begins with one row, so that it goes round often and reaches the last round."""
    if request.param:
        monkeypatch.setattr(blend, "_SCANNED", 1)
        monkeypatch.setattr(blend, "_WORDED", 1)
        monkeypatch.setattr(blend, "_GROWTH", 2)
        monkeypatch.setattr(blend, "MOST", 24)
    return bool(request.param)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("columns", [False, True], ids=["bitmap", "columns"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_random_histories(
    seed: int, columns: bool, backend: str, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_SPARE_NAMES", 8)  # partitions are dropped and rebuilt all the time
    model = Model(None, seed, backend, columns)
    if rounds:
        model.most_k = 8
    for _ in range(60):
        model.change()
        for _ in range(3):
            model.search()
    model.close()


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_random_histories_on_disk(seed: int, tmp_path: Path) -> None:
    """Reopened now and then, from the index's checkpoint or the log; a follower finds the same."""
    model = Model(tmp_path / "store", 100 + seed, "cpu", bool(seed % 2))
    for _ in range(80):
        model.change()
        if model.follower is None and model.random.random() < 0.3:
            model.follower = warpmem.open(model.path, follow=True, clock=model.clock)
        for _ in range(2):
            model.search()
    model.close()


# ------------------------------------------------------------------------------------------------ modes


@pytest.fixture
def memory(clock: FixedClock) -> Iterator[Memory]:
    with warpmem.open(embedder="hashing", clock=clock) as opened:
        yield opened


NOTES = (
    "The red tower stands in Porto.",
    "It was painted last year.",
    "Nothing to see here.",
    "A cafe called Alphabet.",
    "Tea at four.",
    "Invoice INV-20931 is open.",
)


def texts(result: Any) -> list[str]:
    return [hit.item.text for hit in result]


def test_many_searches_are_as_one_by_one(memory: Memory) -> None:
    rng = random.Random(3)
    for user in "uvw":
        memory.add_many(
            [" ".join(rng.choices(WORDS, k=4)) for _ in range(60)], user_id=user, run_id="r", kind="event"
        )
    queries = [" ".join(rng.choices(WORDS, k=2)) for _ in range(12)]
    scopes = [Scope(user_id=rng.choice("uvwx")) for _ in queries]
    for mode in ("dense", "lexical", "hybrid"):
        many = memory.search_many(queries, scopes=scopes, k=7, mode=mode)
        for query, scope, result in zip(queries, scopes, many, strict=True):
            assert list(result) == list(memory.search(query, scope=scope, k=7, mode=mode))
    assert len(memory.search_many(["tower"], scopes=[Scope(user_id="nobody")], mode="hybrid")[0]) == 0


def test_lexical_finds_only_what_holds_a_word(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    assert texts(memory.search("inv-20931?", user_id="u", mode="lexical")) == [NOTES[5]]
    assert texts(memory.search("towers", user_id="u", mode="lexical")) == [NOTES[0]]
    assert texts(memory.search("unheard", user_id="u", mode="lexical")) == []
    assert texts(memory.search("?!", user_id="u", mode="lexical")) == []
    near = memory.search("tower", user_id="u", ranking=Ranking(similarity=0.0, lexical=1.0, adjacent=0.5))
    assert texts(near) == [NOTES[0], NOTES[1], NOTES[2]]
    assert [set(hit.parts) for hit in near] == [{"lexical", "adjacent"}] * 3
    first = near[0].parts["lexical"]
    assert [hit.parts["adjacent"] for hit in near] == [0.0, first, first / 2]


def test_adjacent_alone_goes_by_the_words_of_neighbours(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    hits = memory.search("alphabet", user_id="u", ranking=Ranking(similarity=0.0, adjacent=1.0))
    assert texts(hits) == [NOTES[2], NOTES[4], NOTES[1], NOTES[5]]
    with pytest.raises(InputError, match="query text"):
        memory.search(vector=np.ones(memory.stats().dimension), user_id="u", ranking=Ranking(adjacent=1.0))


@pytest.mark.parametrize("other", [{"run_id": "s"}, {"kind": "fact"}, {"agent_id": "a"}, {"user_id": "v"}])
def test_who_is_not_of_the_run_is_no_neighbour(memory: Memory, other: dict[str, Any]) -> None:
    base = {"user_id": "u", "run_id": "r", "kind": "message"}
    memory.add("tower", **base)
    memory.add("filler", **base | other)
    memory.add("sunset", **base)
    ranking = Ranking(similarity=0.0, lexical=1.0, adjacent=1.0)
    assert texts(memory.search("tower", user_id="u", ranking=ranking)) == ["tower", "sunset"]


def test_a_store_of_given_vectors_is_searched_by_words_without_one() -> None:
    with warpmem.open(dimension=DIM) as memory:
        for i, text in enumerate(NOTES):
            memory.add(text, user_id="u", vector=np.eye(DIM)[i % DIM])
        (hit,) = memory.search("alphabet", user_id="u", mode="lexical")
        assert hit.item.text == NOTES[3]
        assert set(hit.parts) == {"lexical"}
        assert hit.score == hit.parts["lexical"]
        (hit,) = memory.search("alphabet", vector=np.eye(DIM)[3], user_id="u", mode="lexical")
        assert hit.parts["similarity"] == 1.0
        with pytest.raises(InputError):
            memory.search(vector=np.eye(DIM)[0], user_id="u", mode="lexical")
        with pytest.raises(InputError):
            memory.search(user_id="u", mode="lexical")
        with pytest.raises(InputError):
            memory.search(vector=np.eye(DIM)[0], user_id="u", mode="hybrid")
        for broken in (np.full(DIM, np.nan), np.zeros(DIM), np.full(DIM, np.inf)):
            for mode in ("lexical", "hybrid"):
                with pytest.raises(InvalidVector):
                    memory.search("alphabet", vector=broken, user_id="u", mode=mode)


def test_recency_and_priority_alone_need_no_word(memory: Memory) -> None:
    for i, text in enumerate(NOTES):
        memory.add(text, user_id="u", priority=i / 10)
    for ranking in (Ranking(similarity=0.0, priority=1.0), Ranking(similarity=0.0, recency=1.0)):
        assert len(memory.search("unheard", user_id="u", ranking=ranking)) == len(NOTES)


def test_the_parts_explain_the_score(memory: Memory) -> None:
    memory.add_many(NOTES, user_id="u", run_id="r", kind="message")
    for hit in memory.search("red tower", user_id="u", mode="hybrid", explain=True):
        names = ("similarity", "lexical", "adjacent", "recency", "priority")
        total = sum(hit.parts[name] * hit.parts[f"weight_{name}"] for name in names)
        assert hit.score == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("mode", ["Dense", "", "bm25", 1, ["hybrid"], b"hybrid"])
def test_unknown_modes(memory: Memory, mode: Any) -> None:
    with pytest.raises(InputError, match="mode"):
        memory.search("x", user_id="u", mode=mode)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_mode_and_its_weights_beside_it(memory: Memory, mode: Any) -> None:
    for name in ("similarity", "lexical", "adjacent"):
        with pytest.raises(InputError, match="sets the weights"):
            memory.search("x", user_id="u", mode=mode, ranking=Ranking(**{name: 0.5}))
    ranking: Any = {"recency": 1.0}
    with pytest.raises(InputError, match=r"warpmem\.Ranking"):
        memory.search("x", user_id="u", mode=mode, ranking=ranking)
    memory.search("x", user_id="u", mode=mode, ranking=Ranking(recency=0.5))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), "1", True])
def test_refused_weights(weight: Any) -> None:
    for name in ("lexical", "adjacent"):
        with pytest.raises(InputError, match=name):
            Ranking(**{name: weight})


def test_texts_that_are_none(memory: Memory) -> None:
    memory.add("tower", user_id="u")
    for mode in ("lexical", "hybrid"):
        for text in ("\ud800", "tower \udfff"):
            with pytest.raises(InvalidText):
                memory.search(text, user_id="u", mode=mode)
        query: Any = 3
        with pytest.raises(InputError):
            memory.search(query, user_id="u", mode=mode)
    with pytest.raises(NotSupported):
        memory.search("x", user_id="u", ranking=Ranking(diversity=1.0))


# --------------------------------------------------------------------------------------- what is gone


@pytest.mark.parametrize("how", ["delete", "erase", "delete_all", "erase_all"])
@pytest.mark.parametrize("loaded", [False, True], ids=["words read later", "words read before"])
def test_what_is_gone_leaves_nothing_in_the_scores(tmp_path: Path, how: str, loaded: bool) -> None:
    ranking = Ranking(lexical=4.0, adjacent=1.6)
    query = "red tower alphabet cafe to"
    answers = []
    for extra in (False, True):
        with warpmem.open(tmp_path / f"{extra}", embedder="hashing", clock=FixedClock(START)) as memory:
            gone: list[Any] = []
            for i, text in enumerate(NOTES):
                memory.add(text, user_id="u", run_id="r", kind="message")
                if extra:
                    words = f"red red red red red tower {i} zebra alphabet cafe"
                    gone.append(memory.add(words, user_id="u", run_id="r", agent_id="x", kind="message"))
            if loaded:
                memory.search(query, user_id="u", ranking=ranking)
            if extra:
                if how.endswith("all"):
                    getattr(memory, how.removesuffix("_all") + ("_all" if how == "delete_all" else ""))(
                        user_id="u", agent_id="x"
                    )
                elif how == "erase":
                    memory.erase([result.id for result in gone])
                else:
                    for result in gone:
                        memory.delete(result.id)
            hits = memory.search(f"{query} zebra", user_id="u", ranking=ranking, k=20)
            answers.append([(hit.item.text, hit.score, hit.parts) for hit in hits])
    assert answers[0] == answers[1]


def test_an_updated_text_is_found_by_its_new_words_and_its_old_ones_then(
    memory: Memory, clock: FixedClock
) -> None:
    item: Any = memory.add("the red tower", user_id="u", kind="event", valid_from=START - HOUR)
    assert texts(memory.search("tower", user_id="u", mode="lexical")) == ["the red tower"]
    then = to_datetime(clock.now())
    clock.advance(HOUR)
    memory.update(item.id, text="the blue house")
    assert texts(memory.search("tower", user_id="u", mode="lexical")) == []
    assert texts(memory.search("house", user_id="u", mode="lexical")) == ["the blue house"]
    past = memory.search("tower", user_id="u", mode="lexical", known_at=then)
    assert texts(past) == ["the red tower"]
