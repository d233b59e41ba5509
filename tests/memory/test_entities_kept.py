"""Entities and relations after a reopening and an import, in spaces of their own, and for asyncio."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import warpmem
from entity_calls import add, names, triples
from warpmem import AsyncMemory, NewItem, NewRelation
from warpmem.embed.hashing import HashingEmbedder

DAY = timedelta(days=1)


def test_they_are_there_after_a_reopen_a_reembedding_and_an_import(tmp_path: Path) -> None:
    with warpmem.open(tmp_path / "a", embedder="hashing") as memory:
        memory.name_entity("Ada Lovelace", aliases=["Ada"], kind="person", user_id="ann")
        memory.relate("Ada", "lives in", "Paris", functional=True, user_id="ann")
        memory.relate("Ada", "lives in", "Rome", functional=True, user_id="ann")
        known = list(memory.entities(user_id="ann"))
        memory.export(str(tmp_path / "lines"))
    with warpmem.open(tmp_path / "a", embedder="hashing") as memory:
        assert list(memory.entities(user_id="ann")) == known
        memory.reembed("wordllama")
        assert list(memory.entities(user_id="ann")) == known
    with warpmem.open(tmp_path / "b", embedder="hashing") as memory:
        memory.import_(str(tmp_path / "lines"))
        (ada, rome) = memory.entities(user_id="ann")
        assert (ada.name, ada.aliases, ada.kind, ada.items, rome.name) == (
            "Ada Lovelace", ("Ada",), "person", 1, "Rome",
        )  # fmt: skip
        assert triples(memory, "ada", include_past=True) == [
            "Ada Lovelace lives in Paris",
            "Ada Lovelace lives in Rome",
        ]
        memory.relate("Ada", "lives in", "Oslo", functional=True, user_id="ann")
        assert triples(memory, "ada") == ["Ada Lovelace lives in Oslo"]


def test_items_in_spaces_of_their_own_name_entities_too() -> None:
    models = {"embedder": HashingEmbedder(32), "embedders": {"code": HashingEmbedder(16)}}
    with warpmem.open(**models) as memory:
        memory.name_entity("Ada Lovelace", aliases=["Ada"], user_id="ann")
        add(memory, "likes tea", "Ada")
        memory.add(
            [
                NewItem(text="def engine(): pass", modality="code", entities=["ada", "Engine"]),
                NewRelation(subject="Ada", predicate="writes", object="Engine"),
            ],
            user_id="ann",
        )
        ada, engine = memory.entities(user_id="ann")
        assert (ada.name, ada.aliases, ada.items) == ("Ada Lovelace", ("Ada",), 3)
        assert (engine.name, engine.items) == ("Engine", 2)
        assert names(memory, query="the engine of Ada") == ["Ada Lovelace", "Engine"]
        assert triples(memory, "ENGINE") == ["Ada Lovelace writes Engine"]


def test_asyncio() -> None:
    async def talk() -> None:
        async with await AsyncMemory.open(embedder="hashing") as memory:
            await memory.name_entity("Ada", kind="person", user_id="ann")
            await memory.relate("Ada", "knows", "Bob", user_id="ann")
            assert [one.name for one in await memory.entities(user_id="ann")] == ["Ada", "Bob"]
            assert len(await memory.relations(user_id="ann", entity="bob")) == 1

    asyncio.run(talk())
