"""Entities and relations, as a user sees them."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta
from typing import Any

import pytest

from entity_calls import add, names, triples
from warpmem import Memory, NewEntity, NewItem, NewRelation, Ranking
from warpmem.errors import InputError, InvalidScope, NotFound
from warpmem.index import seen_names
from warpmem.memory import writer
from warpmem.ops.clock import FixedClock

DAY = timedelta(days=1)


def test_an_entity_is_what_items_name(memory: Memory, clock: FixedClock) -> None:
    first = clock.now()
    add(memory, "Ada likes tea", "Ada Lovelace", "tea")
    clock.advance(DAY)
    add(memory, "Ada was born in London", "ADA  LOVELACE", "London")
    page = memory.entities(user_id="ann")
    assert [entity.name for entity in page] == ["Ada Lovelace", "London", "tea"]
    (ada, _, tea), cursor = page.entities, page.cursor
    assert (ada.items, ada.aliases, ada.kind, ada.id, cursor) == (2, (), None, None, None)
    assert ada.last - ada.first == DAY and tea.first == tea.last == ada.first
    assert ada.first.timestamp() * 1e6 == first
    assert names(memory, user="bob") == []


def test_a_record_gives_an_entity_other_names(memory: Memory, clock: FixedClock) -> None:
    add(memory, "Ada likes tea", "ada")
    add(memory, "The countess writes", "Countess")
    record = memory.name_entity(
        "Ada Lovelace", aliases=["Ada", "the Countess", "countess"], kind="person", user_id="ann"
    )
    (ada,) = memory.entities(user_id="ann")
    assert (ada.name, ada.aliases, ada.kind, ada.items, ada.id) == (
        "Ada Lovelace",
        ("Ada", "the Countess", "countess"),
        "person",
        2,
        record.id,
    )
    assert memory.get(record.id).text == "Ada Lovelace (person), also known as Ada, the Countess, countess"
    clock.advance(DAY)
    again = memory.name_entity("ada lovelace", aliases=["AAL"], user_id="ann")
    assert again.replaced == record.id
    assert names(memory) == ["ada", "ada lovelace", "Countess"]
    assert names(memory, as_of=memory.get(record.id).valid_from) == ["Ada Lovelace"]
    memory.delete(again.id)
    assert names(memory) == ["ada", "Countess"]


def test_the_newest_record_says_whose_a_name_is(memory: Memory, clock: FixedClock) -> None:
    add(memory, "Bobby runs", "Bobby")
    for name, *aliases in (
        ("Bob", "Bobby"),
        ("Robert", "Bob"),
        ("Bert", "Robert"),
        ("Robert", "Bert", "Bob"),
    ):
        clock.advance(DAY)
        memory.name_entity(name, aliases=aliases, user_id="ann")
    (one,) = memory.entities(user_id="ann")
    assert (one.name, one.items) == ("Robert", 1)
    assert set(one.aliases) == {"Bob", "Bobby", "Bert"}


def test_a_query_names_entities(memory: Memory) -> None:
    add(memory, "x", "New York", "New York Times", "C", "C++", "Ada", "\u6771\u4eac", "York")
    memory.name_entity("Grace Hopper", aliases=["Amazing Grace"], user_id="ann")
    for query, found in (
        ("does the NEW YORK times cover ada's work?", ["Ada", "New York Times"]),
        ("newyork, New Yorkers and Adam", []),
        ("is it written in C++?", ["C++"]),
        ("or in c?", ["C"]),
        ("\u6771\u4eac\u30bf\u30ef\u30fc", ["\u6771\u4eac"]),
        ("who sang amazing grace", ["Grace Hopper"]),
    ):
        assert names(memory, query=query) == found


def test_pages_follow_each_other(memory: Memory) -> None:
    for n in range(7):
        memory.relate(f"e{n}", "precedes", f"e{n + 1}", user_id="ann")
    seen: list[str] = []
    cursor = None
    while True:
        page = memory.entities(user_id="ann", limit=3, cursor=cursor)
        seen += [entity.name for entity in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"e{n}" for n in range(8)]
    first = memory.relations(user_id="ann", limit=4)
    rest = memory.relations(user_id="ann", limit=4, cursor=first.cursor)
    assert [one.subject for one in (*first, *rest)] == [f"e{n}" for n in range(7)]
    assert (len(first), rest.cursor) == (4, None)


def test_relations_in_time(memory: Memory, clock: FixedClock) -> None:
    start = memory.get(memory.relate("Ada", "lives in", "Paris", functional=True, user_id="ann").id)
    memory.relate("Ada", "knows", "Bob", user_id="ann")
    clock.advance(DAY)
    moved = memory.relate("ADA", "Lives in", "Rome", functional=True, user_id="ann")
    assert (moved.action, moved.replaced) == ("superseded", start.id)
    assert triples(memory, "ada") == ["Ada knows Bob", "ADA Lives in Rome"]
    assert triples(memory, "Ada", as_of=start.valid_from) == ["Ada lives in Paris", "Ada knows Bob"]
    assert triples(memory, "Paris") == []
    assert triples(memory, "Paris", include_past=True) == ["Ada lives in Paris"]
    assert triples(memory, predicate="LIVES IN", include_past=True) == [
        "Ada lives in Paris",
        "ADA Lives in Rome",
    ]
    (paris,) = memory.relations(user_id="ann", entity="Paris", include_past=True)
    assert paris.valid_to is not None and paris.valid_to - paris.valid_from == DAY
    memory.name_entity("Ada Lovelace", aliases=["Ada"], user_id="ann")
    assert triples(memory, "Ada Lovelace", predicate="knows") == ["Ada Lovelace knows Bob"]
    assert triples(memory, "nobody") == triples(memory, "Ada", user="bob") == []


def test_a_relation_known_before_it_was_corrected(memory: Memory, clock: FixedClock) -> None:
    wrong = memory.relate("Ada", "knows", "Bob", user_id="ann")
    recorded = memory.get(wrong.id).recorded_at
    assert triples(memory) == ["Ada knows Bob"]  # from here on names are kept up, not read
    clock.advance(DAY)
    facts = {"subject": "Ada", "predicate": "knows", "object": "Rob"}
    memory.update(wrong.id, text="Ada knows Rob", metadata=facts)
    assert triples(memory) == ["Ada knows Rob"]
    assert memory.get(wrong.id).entities == ("Ada", "Rob")
    assert triples(memory, "bob", known_at=recorded) == ["Ada knows Bob"]
    assert triples(memory, "bob") == []


def test_a_narrower_scope_sees_less(memory: Memory) -> None:
    add(memory, "Ada likes tea", "Ada", agent_id="a")
    memory.name_entity("Ada Lovelace", aliases=["Ada"], user_id="ann", agent_id="b")
    memory.relate("Ada", "knows", "Bob", user_id="ann", agent_id="b")
    assert names(memory) == ["Ada Lovelace", "Bob"]
    assert names(memory, agent_id="a") == ["Ada"]
    assert names(memory, agent_id="c") == triples(memory, agent_id="a") == []
    only = Ranking(similarity=0.0, entities=1.0)
    (hit,) = memory.search("what of Ada and Bob?", user_id="ann", agent_id="a", ranking=only)
    assert hit.parts["entities"] == 1.0, "Bob is no name to this agent"


def test_a_search_counts_shared_entities(memory: Memory) -> None:
    memory.name_entity("Robert Smith", aliases=["Bob"], user_id="ann")
    both = add(memory, "met at the fair", "robert smith", "Ada")
    one = add(memory, "something else", "Bob")
    related = add(memory, "a village", "Aldbury")
    none = add(memory, "nothing", "Zoe")
    memory.relate("Bob", "lives in", "Aldbury", user_id="ann")
    result = memory.search(
        "did Ada see Bob?", user_id="ann", kinds=["fact"], explain=True, ranking=Ranking(entities=0.8)
    )
    shares = {hit.item.id: hit.parts["entities"] for hit in result}
    assert shares == {both: 1.0, one: 0.5, related: 0.25, none: 0.0}
    for hit in result:
        expected = hit.parts["similarity"] + 0.8 * hit.parts["entities"]
        assert hit.score == pytest.approx(expected, abs=1e-6)
        assert hit.parts["weight_entities"] == 0.8
    assert result[0].item.id == both


def test_so_many_entities_and_relations_count(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_names, "MOST_FOUND", 2)
    monkeypatch.setattr(seen_names, "MOST_RELATED", 1)
    ids = [add(memory, f"{name} it is", name) for name in ("Ada", "Bob", "Cy", "Dee")]
    memory.relate("Ada", "knows", "Dee", user_id="ann")
    memory.relate("Ada", "knows", "Cy", user_id="ann")
    result = memory.search("Ada, Bob and Dee", user_id="ann", kinds=["fact"], ranking=Ranking(entities=1.0))
    shares = {hit.item.id: hit.parts["entities"] for hit in result}
    assert [shares[one] for one in ids] == [0.5, 0.5, 0.25, 0.0]


def test_items_of_these_kinds_that_are_older_than_their_meaning(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writer, "named_by", lambda kind, metadata, given: given)
        for kind in ("relation", "entity"):
            add(memory, "something of ours", kind=kind)
            add(memory, "with names", "Ada", "Bob", "Cy", kind=kind, metadata={"predicate": 5, "kind": 5})
    assert triples(memory) == triples(memory, "Ada", predicate="5") == []
    assert [(one.name, one.kind) for one in memory.entities(user_id="ann")] == [("Ada", None)]
    assert len(memory.search("ada", user_id="ann", ranking=Ranking(entities=1.0))) == 4


def test_a_search_by_words_finds_a_name_without_a_word(memory: Memory) -> None:
    memory.name_entity("Robert Smith", aliases=["Bob"], user_id="ann")
    item = add(memory, "works at the mill", "Robert Smith")
    ranking = Ranking(similarity=0.0, lexical=1.0, entities=0.5)
    assert item in [hit.item.id for hit in memory.search("bob?", user_id="ann", ranking=ranking)]
    assert item not in [hit.item.id for hit in memory.search("bob?", user_id="ann", mode="lexical")]
    with pytest.raises(InputError, match="query text"):
        memory.search(vector=[1.0] * 256, user_id="ann", ranking=ranking)


def test_what_is_in_quarantine_names_nothing(memory: Memory) -> None:
    add(memory, "Ada likes tea", "Ada")
    doubted = memory.add(
        [
            NewRelation(subject="Ada", predicate="knows", object="Eve", trust=0.1),
            NewEntity(name="Adam", aliases=["Ada"], trust=0.1),
        ],
        user_id="ann",
    )
    assert names(memory) == ["Ada"] and triples(memory, include_past=True) == []
    only = Ranking(similarity=0.0, entities=1.0)
    hits = memory.search("Adam, Ada or Eve?", user_id="ann", ranking=only, quarantined=True)
    assert {hit.item.text: hit.parts["entities"] for hit in hits}["Ada knows Eve"] == 1.0
    for one in doubted:
        memory.update(one.id, trust=0.9)
    assert names(memory) == ["Adam", "Eve"] and triples(memory) == ["Adam knows Eve"]


def test_sources_of_a_repeated_relation_are_joined(memory: Memory) -> None:
    first, second = add(memory, "I know Bob"), add(memory, "Bob again")
    relation = memory.relate("Ada", "knows", "Bob", sources=[first], user_id="ann")
    again = memory.relate("Ada", "knows", "Bob", sources=[second, first], user_id="ann")
    assert (again.id, again.action) == (relation.id, "touched")
    assert memory.get(relation.id).sources == (first, second)
    memory.relate("Ada", "knows", "Bob", user_id="ann")
    assert memory.get(relation.id).version == 2
    free = memory.relate("Ada", "knows", "Cy", user_id="ann")
    memory.relate("Ada", "knows", "Cy", sources=[first], user_id="ann")
    assert memory.get(free.id).sources == (), "it was true without"
    memory.erase([first])
    (kept, _) = memory.relations(user_id="ann")
    assert kept.sources == (second,)
    memory.erase([second])
    assert triples(memory) == ["Ada knows Cy"]


def test_names_go_with_the_last_item_that_holds_them(memory: Memory) -> None:
    one, two = add(memory, "Ada likes tea", "Ada", "tea"), add(memory, "Ada sings", "Ada")
    memory.relate("Ada", "drinks", "tea", sources=[one], user_id="ann")
    memory.name_entity("Ada Lovelace", aliases=["Ada"], sources=[one], user_id="ann")
    assert names(memory) == ["Ada Lovelace", "tea"]
    memory.erase([one])
    assert names(memory) == ["Ada"] and triples(memory) == []
    memory.delete(two)
    assert names(memory) == []


def test_reading_while_others_write(memory: Memory) -> None:
    """Names come and go under a reader; none of his calls fails, and in the end he sees what is there."""
    done = threading.Event()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                memory.entities(user_id="ann", query="Ada and Bob and Cy")
                memory.relations(user_id="ann", entity="Ada", include_past=True)
                memory.entities(user_id="ann")
                memory.search("Ada, Bob", user_id="ann", ranking=Ranking(lexical=1.0, entities=1.0))
        except BaseException as error:  # noqa: BLE001  shown by the test
            failed.append(error)

    def write(number: int) -> None:
        for n in range(25):
            ids = [add(memory, f"note {number} {n}", f"Ada {n % 3}", "Bob")]
            ids.append(memory.name_entity("Ada", aliases=[f"Ada {n % 3}", "Cy"], user_id="ann").id)
            ids.append(memory.relate("Ada", "knows", f"Bob {n % 2}", functional=True, user_id="ann").id)
            for one in ids[:: 1 + n % 2]:
                with contextlib.suppress(NotFound):  # the other one deleted what both had said
                    memory.delete(one)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert failed == []
    memory.delete_all(user_id="ann")
    assert names(memory) == triples(memory) == []


def test_updates_and_expiry(memory: Memory, clock: FixedClock) -> None:
    item = add(memory, "a note", "Ada")
    add(memory, "for a day", "Bob", expires_at=memory.get(item).valid_from + DAY)
    assert names(memory) == ["Ada", "Bob"]
    memory.update(item, entities=["Eve"])
    assert names(memory) == ["Bob", "Eve"]
    clock.advance(DAY)
    assert names(memory) == ["Eve"]


def test_one_atomic_list_as_an_extraction_makes_it(memory: Memory) -> None:
    source = add(memory, "Hi, I'm Ada from Paris")
    results = memory.add_many(
        [
            NewItem(text="Ada is from Paris", entities=["Ada", "Paris"], sources=[source]),
            NewEntity(name="Ada", kind="person", sources=[source]),
            NewRelation(subject="Ada", predicate="comes from", object="Paris", sources=[source], trust=0.5),
        ],
        user_id="ann",
    )
    assert [memory.get(one.id).kind for one in results] == ["fact", "entity", "relation"]
    assert memory.get(results[2].id).trust == 0.5
    assert memory.get(results[2].id).entities == ("Ada", "Paris")
    with pytest.raises(InputError, match="object"):
        memory.add_many(["x", NewRelation(subject="a", predicate="b", object=" ")], user_id="ann")
    assert names(memory) == ["Ada", "Paris"]


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.relate("", "knows", "Bob", user_id="ann"),
        lambda m: m.relate("Ada", 5, "Bob", user_id="ann"),
        lambda m: m.relate("Ada", "knows", "B" * 513, user_id="ann"),
        lambda m: m.relate("Ada", "knows", "Bob", functional=1, user_id="ann"),
        lambda m: m.relate("Ada", "knows", "Bob", metadata={"subject": "Eve"}, user_id="ann"),
        lambda m: m.name_entity("Ada", aliases="Bob", user_id="ann"),
        lambda m: m.name_entity("Ada", aliases=[" "], user_id="ann"),
        lambda m: m.name_entity("Ada", aliases=["x"] * 256, user_id="ann"),
        lambda m: m.name_entity("Ada", kind=5, user_id="ann"),
        lambda m: m.add("no relation", kind="relation", user_id="ann"),
        lambda m: m.add("no entity", kind="entity", metadata={"name": "Ada", "aliases": "x"}, user_id="ann"),
        lambda m: m.add(
            NewItem(text="Ada", kind="entity", metadata={"name": "Ada"}, entities=["Bob"]), user_id="ann"
        ),
        lambda m: m.add("x", entities="Ada", user_id="ann"),
        lambda m: m.entities(user_id="ann", limit=0),
        lambda m: m.entities(user_id="ann", cursor="%"),
        lambda m: m.relations(user_id="ann", cursor="eA=="),
        lambda m: m.relations(user_id="ann", entity=""),
        lambda m: m.search("x", user_id="ann", ranking=Ranking(entities=-1.0)),
    ],
)
def test_bad_input_is_typed_and_stores_nothing(memory: Memory, call: Any) -> None:
    with pytest.raises(InputError):
        call(memory)
    assert memory.count(user_id="ann") == 0


def test_there_is_no_default_scope(memory: Memory) -> None:
    for call in (memory.entities, memory.relations):
        with pytest.raises(InvalidScope):
            call()
    with pytest.raises(InvalidScope):
        memory.relate("Ada", "knows", "Bob")


def test_an_update_keeps_a_relation_one(memory: Memory) -> None:
    relation = memory.relate("Ada", "knows", "Bob", user_id="ann")
    with pytest.raises(InputError, match="predicate"):
        memory.update(relation.id, metadata={"subject": "Ada", "object": "Bob"})
    with pytest.raises(InputError, match="follow from"):
        memory.update(relation.id, entities=["Ada", "Rob"])
    assert triples(memory) == ["Ada knows Bob"]
