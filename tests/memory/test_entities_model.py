"""Random histories of names: a store's answers against a plain model over the versions in history()."""

from __future__ import annotations

import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

import warpmem
from warpmem import Entity, Memory, MemoryItem, Ranking, Scope
from warpmem.ops.clock import FixedClock

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FOREVER = datetime.max.replace(tzinfo=UTC)

NAMES = ["Ada", "ADA", "Ada Lovelace", "Bob", "C", "C++", "New York", "york"]
QUERIES = ["did ada lovelace meet Bob?", "C++ or C, ADA", "new york new york", "nobody", "bob (Ada) york"]
SCOPES = [
    Scope(user_id="ann"),
    Scope(user_id="ann", agent_id="a"),
    Scope(user_id="ann", agent_id="b"),
    Scope(user_id="bob"),
]
WEIGHTS = [
    Ranking(entities=0.5),
    Ranking(similarity=0.0, entities=1.0),
    Ranking(similarity=0.0, priority=0.3, entities=1.0),
    Ranking(lexical=1.0, entities=2.0),
    Ranking(similarity=0.0, lexical=1.0, adjacent=0.5, entities=0.7),
]

name = st.sampled_from(NAMES)
scope = st.sampled_from(SCOPES)
offset = st.sampled_from([0, 0, 0, -3, 2])
change = st.one_of(
    st.tuples(st.just("add"), scope, st.lists(name, max_size=3), offset, st.sampled_from([1.0, 1.0, 0.2])),
    st.tuples(
        st.just("relate"), scope, name, st.sampled_from(["knows", "Knows"]), name, st.booleans(), offset
    ),
    st.tuples(st.just("name"), scope, name, st.lists(name, max_size=2), offset),
    st.tuples(st.just("update"), st.integers(0, 99), st.lists(name, max_size=2)),
    st.tuples(st.just("update"), st.integers(0, 99), st.lists(name, max_size=2)),
    st.tuples(st.just("end"), st.integers(0, 99)),
    st.tuples(st.just("delete"), st.integers(0, 99)),
    st.tuples(st.just("erase"), st.integers(0, 99)),
    st.tuples(st.just("read")),
)
question = st.tuples(
    scope, st.sampled_from([None, -5, -1, 1]), st.sampled_from([None, -4, -2]), st.sampled_from(QUERIES)
)


def fold(text: str) -> str:
    """Good for the names above alone."""
    return " ".join(text.lower().replace("+", " + ").split())


class Seen:
    """What a scope sees at a moment, by brute force."""

    def __init__(
        self, versions: list[MemoryItem], scope: Scope, at: datetime, known: datetime | None
    ) -> None:
        self.known = [
            item
            for item in versions
            if scope.covers(item.scope)
            and not item.quarantined
            and (item.retired_at is None if known is None else item.recorded_at <= known)
            and (known is None or known < (item.retired_at or FOREVER))
        ]
        self.items = [
            item
            for item in self.known
            if item.valid_from <= at < (item.valid_to or FOREVER) and at < (item.expires_at or FOREVER)
        ]
        self.records = sorted(
            (item for item in self.items if item.kind == "entity"),
            key=lambda item: (item.valid_from, item.id),
        )
        forms = {fold(one) for item in self.items for one in item.entities}
        self.root = {form: self.follow(form) for form in forms}

    def follow(self, form: str) -> str:
        mentions = [record for record in self.records if form in map(fold, record.entities)]
        if not mentions or fold(mentions[-1].entities[0]) == form:
            return form
        return self.follow(fold(mentions[-1].entities[0]))

    def roots(self, item: MemoryItem) -> set[str]:
        return {self.root[fold(one)] for one in item.entities}

    def title(self, written: str) -> str:
        root = self.root.get(fold(written), fold(written))
        own = [record.entities[0] for record in self.records if fold(record.entities[0]) == root]
        newest = [record for record in self.records if root in map(fold, record.entities)]
        assert not own or newest[-1].entities[0] == own[-1]
        return own[-1] if own else written

    def entities(self) -> dict[str, tuple[Any, ...]]:
        found = {}
        for root in sorted(set(self.root.values())):
            items = [item for item in self.items if item.kind != "entity" and root in self.roots(item)]
            own = [record for record in self.records if fold(record.entities[0]) == root]
            spelled = own[-1:] + sorted(
                (item for item in self.items if root in self.roots(item)), key=lambda item: item.id
            )
            first = next(one for item in spelled for one in item.entities if fold(one) == root)
            begins = [item.valid_from for item in items or self.items if root in self.roots(item)]
            aliases = {form for form, whose in self.root.items() if whose == root and form != root}
            found[root] = (
                first, aliases, len(items), min(begins), max(begins), own[-1].id if own else None,
            )  # fmt: skip
        return found

    def named(self, text: str) -> list[str]:
        words, found, at = (
            fold(
                text.replace("?", " ? ").replace("(", " ( ").replace(")", " ) ").replace(",", " , ")
            ).split(),
            [],
            0,
        )
        while at < len(words):
            for length in (3, 2, 1):
                form = " ".join(words[at : at + length])
                if form in self.root and at + length <= len(words):
                    found.append(self.root[form])
                    at += length
                    break
            else:
                at += 1
        return list(dict.fromkeys(found))

    def share(self, item: MemoryItem, asked: list[str]) -> float:
        if not asked:
            return 0.0
        links = [self.roots(one) for one in self.items if one.kind == "relation"]
        total = 0.0
        for root in asked:
            near = set().union(*(ends for ends in links if root in ends))
            total += 1.0 if root in self.roots(item) else 0.5 if near & self.roots(item) else 0.0
        return total / len(asked)


class Store:
    """A Memory and the ids of everything it was told."""

    def __init__(self, path: Path | None, backend: Any = "cpu") -> None:
        self.clock = FixedClock(START)
        self.memory = warpmem.open(
            path, embedder="hashing", clock=self.clock, durability="os", backend=backend
        )
        self.ids: list[str] = []
        self.texts = itertools.count()

    def now(self) -> datetime:
        return START + timedelta(microseconds=self.clock.now() - FixedClock(START).now())

    def change(self, what: str, *more: Any) -> None:
        self.clock.advance(HOUR)
        memory, now = self.memory, self.now()
        results: list[Any] = []
        if what == "add":
            scope, names, hours, trust = more
            text = f"note {next(self.texts)} of {' '.join(names)}"
            when = now + hours * HOUR
            results.append(memory.add(text, scope=scope, entities=names, trust=trust, valid_from=when))
        elif what == "relate":
            scope, subject, predicate, other, functional, hours = more
            results.append(
                memory.relate(
                    subject,
                    predicate,
                    other,
                    functional=functional,
                    scope=scope,
                    valid_from=now + hours * HOUR,
                )
            )
        elif what == "name":
            scope, one, aliases, hours = more
            results.append(
                memory.name_entity(one, aliases=aliases, scope=scope, valid_from=now + hours * HOUR)
            )
        elif what == "read":
            memory.entities(scope=SCOPES[0])  # from here on its names are kept up
            memory.search("Ada", scope=SCOPES[0], ranking=WEIGHTS[-1])
        elif what == "update":
            facts = [item for item in memory.get_many(self.ids) if item is not None and item.kind == "fact"]
            if facts:
                memory.update(facts[more[0] % len(facts)].id, entities=more[1])
        elif self.ids:
            item_id = self.ids[more[0] % len(self.ids)]
            (item,) = memory.get_many([item_id])
            if what == "erase":
                memory.erase([item_id], derived="keep")
                self.ids.remove(item_id)
            elif item is not None and what == "delete":
                memory.delete(item_id)
            elif item is not None and item.key is None:
                memory.update(item_id, valid_to=max(now, item.valid_from))
        self.ids += [one.id for one in results if one.id not in self.ids]

    def versions(self) -> list[MemoryItem]:
        live = [one for one in self.ids if self.memory.get_many([one]) != (None,)]
        return [
            version.item for one in live for version in self.memory.history(one) if version.item is not None
        ]


def check(memory: Memory, versions: list[MemoryItem], asked: Any, now: datetime, k: int) -> None:
    scope, at_hours, known_hours, query = asked
    as_of = None if at_hours is None else now + at_hours * HOUR
    known = None if known_hours is None else now + known_hours * HOUR
    when = {"as_of": as_of, "known_at": known}
    seen = Seen(versions, scope, as_of or now, known)
    expected = seen.entities()
    entities = list(memory.entities(scope, **when))
    assert {fold(one.name): shown(one) for one in entities} == expected
    assert [fold(one.name) for one in entities] == list(expected)
    named = seen.named(query)
    assert [fold(one.name) for one in memory.entities(scope, query=query, **when)] == sorted(named)
    for entity, past in itertools.product([None, "ada", "New  York"], (False, True)):
        found = memory.relations(scope, entity, include_past=past, **when)
        root = None if entity is None else seen.root.get(fold(entity), seen.follow(fold(entity)))
        mine = [
            item
            for item in sorted(seen.known if past else seen.items, key=lambda item: item.id)
            if item.kind == "relation"
            and (root is None or any(seen.follow(fold(one)) == root for one in item.entities))
        ]
        assert [(one.id, one.subject, one.object, one.valid_to) for one in found] == [
            (item.id, *(title(seen, one) for one in item.entities), item.valid_to) for item in mine
        ]
    for ranking in WEIGHTS:
        agree_on(memory, seen, query, scope, ranking, when, k)


def title(seen: Seen, written: str) -> str:
    root = seen.follow(fold(written))
    own = [record.entities[0] for record in seen.records if fold(record.entities[0]) == root]
    return own[-1] if own else written


def shown(entity: Entity) -> tuple[Any, ...]:
    aliases = {fold(alias) for alias in entity.aliases}
    assert len(aliases) == len(entity.aliases)
    return entity.name, aliases, entity.items, entity.first, entity.last, entity.id


def agree_on(
    memory: Memory, seen: Seen, query: str, scope: Scope, ranking: Ranking, when: Any, k: int
) -> None:
    plain = msgspec.structs.replace(ranking, entities=0.0)
    base = {
        hit.item.id: hit.score for hit in memory.search(query, scope=scope, k=4096, ranking=plain, **when)
    }
    asked = seen.named(query)
    shares = {item.id: seen.share(item, asked) for item in seen.items}
    if not ranking.similarity:  # a name is enough to be found
        unworded = msgspec.structs.replace(plain, lexical=0.0, adjacent=0.0)
        hits = memory.search(query, scope=scope, k=4096, ranking=unworded, **when)
        base = {hit.item.id: hit.score for hit in hits if shares[hit.item.id]} | base
    expected = sorted(((-(score + ranking.entities * shares[one]), one) for one, score in base.items()))[:k]
    found = memory.search(query, scope=scope, k=k, ranking=ranking, **when)
    assert [(-hit.score, hit.item.id) for hit in found] == expected
    assert [hit.parts["entities"] for hit in found] == [shares[hit.item.id] for hit in found]


def agree_on_scopes(
    memory: Memory, versions: list[MemoryItem], query: str, ranking: Ranking, now: datetime, k: int
) -> None:
    """Several scopes, two of them of one owner: an item counts where it scores best, then in their order."""
    scopes = [SCOPES[2], SCOPES[0], SCOPES[3]]
    plain = msgspec.structs.replace(ranking, entities=0.0)
    best: dict[str, tuple[float, int, str]] = {}
    for place, scope in enumerate(scopes):
        seen = Seen(versions, scope, now, None)
        asked, items = seen.named(query), {item.id: item for item in seen.items}
        for hit in memory.search(query, scope=scope, k=4096, ranking=plain):
            score = hit.score + ranking.entities * seen.share(items[hit.item.id], asked)
            rank = (-score, place, hit.item.id)
            best[hit.item.id] = min(rank, best.get(hit.item.id, rank))
    found = memory.search(query, scopes=scopes, k=k, ranking=ranking)
    assert [(-hit.score, hit.item.id) for hit in found] == [(a, c) for a, _, c in sorted(best.values())[:k]]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(change, min_size=12, max_size=30), st.lists(question, min_size=3, max_size=6), st.integers(1, 6)
)
def test_a_store_answers_as_the_model(changes: list[Any], questions: list[Any], k: int) -> None:
    store = Store(None)
    with store.memory:
        for one in changes:
            store.change(*one)
        versions = store.versions()
        for asked in questions:
            check(store.memory, versions, asked, store.now(), k)
            for ranking in (WEIGHTS[0], WEIGHTS[3]):
                agree_on_scopes(store.memory, versions, asked[-1], ranking, store.now(), k)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(change, min_size=5, max_size=15),
    st.lists(change, max_size=10),
    st.lists(question, min_size=1, max_size=2),
)
def test_so_does_a_process_that_follows_and_a_store_that_was_reopened(
    changes: list[Any], later: list[Any], questions: list[Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        store = Store(path)
        with store.memory:
            for one in changes:
                store.change(*one)
            with warpmem.open(path, follow=True, follow_ms=0, backend="cpu", clock=store.clock) as follower:
                follower.entities(SCOPES[0])
                for one in later:
                    store.change(*one)
                follower.refresh()
                versions = store.versions()
                for asked in questions:
                    check(follower, versions, asked, store.now(), 5)
        with warpmem.open(path, backend="cpu", clock=store.clock) as again:
            for asked in questions:
                check(again, versions, asked, store.now(), 5)
