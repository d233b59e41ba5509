"""Faults where one part did not know of another."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

import warpmem
from warpmem import Memory, NewItem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import Overloaded
from warpmem.ops.clock import FixedClock
from warpmem.reason.fakes import ScriptedLanguageModel

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def test_vectors_are_exported_with_the_model_that_made_them() -> None:
    """After a change of the model they bore the old one's name, and a store of that took them in."""

    def model(seed: float) -> dict[str, Any]:
        def embed(texts: Any) -> Any:
            return [[float(len(text)), seed] for text in texts]

        return {"embedder": embed, "dimension": 2, "model_id": f"model {seed}"}

    with warpmem.open(None, **model(1.0)) as memory:
        item = memory.add("one", user_id="ann").id
        memory.reembed(**model(9.0))
        assert memory.update(item, text="two").model_id == "model 9.0"
        memory.add("three", user_id="ann")
        exported = io.BytesIO()
        memory.export(exported, vectors=True)
    assert exported.getvalue().count(b'"model_id":"model 9.0"') == 2
    with warpmem.open(None, **model(1.0)) as memory:
        memory.import_(io.BytesIO(exported.getvalue()))
        assert memory.search("two", user_id="ann", k=1, mode="dense")[0].score == pytest.approx(1.0)


def test_no_export_gives_a_vector_the_name_of_the_model_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of models between reading the vector and naming it: an import would have believed it."""

    class Mirrored(HashingEmbedder):
        model_id = "mirrored"

        def embed(self, texts: Any, **options: Any) -> Any:
            return -super().embed(texts, **options)

    with warpmem.open(embedder=HashingEmbedder(256)) as memory:
        memory.add("one", user_id="ann")
        vectors = {memory.stats().model_id: vector_of(memory)}
        read = memory._log.vector

        def read_and_switch(*arguments: Any) -> Any:
            vector = read(*arguments)
            monkeypatch.undo()
            memory.reembed(Mirrored(256))
            return vector

        monkeypatch.setattr(memory._log, "vector", read_and_switch)
        exported = exported_line(memory)
        vectors["mirrored"] = vector_of(memory)
        assert memory.stats().model_id == "mirrored" != exported["model_id"]
    assert exported["vector"] == vectors[exported["model_id"]] != vectors["mirrored"]


def vector_of(memory: Memory) -> str:
    return str(exported_line(memory)["vector"])


def exported_line(memory: Memory) -> dict[str, Any]:
    out = io.BytesIO()
    assert memory.export(out, vectors=True) == 1
    line: dict[str, Any] = json.loads(out.getvalue().splitlines()[0])
    return line


@pytest.fixture
def revoked() -> Any:
    with warpmem.open(None, embedder="hashing") as memory:
        yield memory


def test_what_names_a_revoked_source_is_not_believed_by_a_revert_or_an_update(revoked: Memory) -> None:
    memory = revoked
    item = memory.add(NewItem(text="as it was", sources=("web",)), user_id="ann").id
    memory.update(item, text="corrected")
    other = memory.add("from nowhere", user_id="ann").id
    memory.revoke("web")
    assert memory.revert(item, 1).trust == 0.0
    assert memory.update(other, sources=["web"]).trust == 0.0
    assert not memory.search("as it was", user_id="ann")
    assert memory.reinstate("web") == 2
    assert {memory.get(item).trust, memory.get(other).trust} == {1.0}
    memory.revoke("web")
    assert memory.update(item, trust=0.9).trust == 0.9, "who says it is to be believed is"


def test_a_spent_budget_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from warpmem.memory.embed_later import EmbedLater

    with warpmem.open(None, embedder="hashing", background_work=False) as memory:
        for user in ("ann", "bob"):
            memory.add(f"{user} says this", user_id=user, embed="later")
        embed = EmbedLater._embed

        def refuse(self: Any, batch: Any, serving: Any) -> int:
            texts = [self._log.get_version(work.key, work.version).item.text for work in batch]
            if any("ann" in text for text in texts):
                raise Overloaded("her budget is spent", 3600.0)
            return embed(self, batch, serving)

        monkeypatch.setattr(EmbedLater, "_embed", refuse)
        with pytest.raises(Overloaded):
            memory.embed_pending()
        assert memory.stats().pending["embed"].waiting == 1
        assert len(memory.search("bob says this", user_id="bob")) == 1


def test_one_kind_of_work_that_fails_does_not_keep_the_next_waiting() -> None:
    from warpmem.memory.pending import Runner

    done = []

    class Fails:
        def run(self, again: bool) -> Any:
            raise Overloaded("not now", 60.0)

    class Works:
        def run(self, again: bool) -> Any:
            done.append(1)
            yield from ()

    runner = Runner([Fails(), Works()], in_background=True)
    runner.wake()
    for _ in range(500):
        if done:
            break
        runner.wait(0.01)
    runner.stop()
    assert done


def test_a_message_that_changed_while_a_model_read_it_is_read_again() -> None:
    memories: list[Memory] = []

    class Reading(ScriptedLanguageModel):
        def complete(self, *arguments: Any, **named: Any) -> str:
            (message,) = memories[0].list(user_id="ann", kinds=["message"]).items or (None,)
            if message is not None:
                memories[0].update(message.id, trust=0.0)
            return super().complete(*arguments, **named)

    answer = '{"memories": [{"message": 1, "text": "Ann has a cat", "kind": "fact", "verdict": "new"}]}'
    model = Reading([answer] * 4)
    options: dict[str, Any] = {"language_model": model, "background_work": False, "clock": FixedClock(NOW)}
    with warpmem.open(None, embedder=HashingEmbedder(), **options) as memory:
        memories.append(memory)
        memory.add({"role": "user", "content": "I have a cat"}, user_id="ann", infer="llm")
        memory.extract_pending()
        assert all(item.quarantined for item in memory.list(user_id="ann", quarantined=True))
        assert memory.count(user_id="ann") == 0
