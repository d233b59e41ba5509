"""What else a store does holds for images too: trust, versions, wordings, documents, costs, quotas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from image_models import GREEN, RED, ColourTextEmbedder, picture
from warpmem import Memory, NewItem, Ranking, Scope, ScopeWeight
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError

TEXTS = HashingEmbedder(32)


def opened(path: Path | None = None, **options: Any) -> Memory:
    given = {"embedder": TEXTS, "embedders": {"image": ColourTextEmbedder()}, **options}
    return warpmem.open(path, **given)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with opened() as memory:
        yield memory


def test_weights_of_kinds_and_quotas_of_scopes_hold_over_all_spaces(memory: Memory) -> None:
    for user in ("ann", "bob"):
        for n in range(4):
            memory.add(f"red text {n}", user_id=user, kind="event")
            memory.add(image=picture(RED, seed=n), user_id=user, kind="event" if n % 2 else "fact")
    ann, bob = Scope(user_id="ann"), Scope(user_id="bob")
    shares = [ScopeWeight(scope=ann, quota=2), ScopeWeight(scope=bob, weight=0.5)]
    hits = memory.search("red", scopes=shares, k=6)
    assert [hit.item.scope.user_id for hit in hits] == ["ann"] * 2 + ["bob"] * 4
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    plain = memory.search("red", scopes=[ann], k=2)
    assert [hit.item.id for hit in hits[:2]] == [hit.item.id for hit in plain]
    kinds = Ranking(by_kind={"event": Ranking(similarity=0.5)}, spaces={"image": 0.5})
    for hit in memory.search("red", scopes=[ann], k=20, ranking=kinds):
        factor = (0.5 if hit.item.kind == "event" else 1.0) * (0.5 if hit.space == "image" else 1.0)
        assert hit.score == pytest.approx(factor * hit.parts["similarity"], abs=1e-6)
    for options, message in (
        ({"ranking": Ranking(diversity=0.3)}, "diversity is for one space"),
        ({"scopes": [ScopeWeight(scope=ann, quota=1), Scope(user_id="ann", run_id="r")]}, "quotas of scopes"),
    ):
        given: dict[str, Any] = {"scopes": [ann], **options}
        with pytest.raises(InputError, match=message):
            memory.search("red", **given)
    one = Ranking(diversity=0.3, spaces={"text": 0})
    assert len(memory.search("red", scopes=[ann], ranking=one)) == 4


def test_how_much_a_call_takes(memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("warpmem.ingest.media.MAX_MEDIA_BYTES", 250)
    monkeypatch.setattr("warpmem.memory.writer.MAX_CALL_BYTES", 500)
    items = [NewItem(text="", modality="image", media=picture(RED, seed=n)) for n in range(3)]
    memory.add_many(items[:2], user_id="u")
    with pytest.raises(InputError, match="takes 500 bytes of images"):
        memory.add_many(items, user_id="u")
    large = tmp_path / "large.ppm"
    large.write_bytes(picture(RED, size=9))
    with pytest.raises(InputError, match="has more than 250 bytes"):
        memory.add(image=large, user_id="u")
    assert memory.count(user_id="u") == 2


def test_an_image_of_little_trust_is_in_quarantine(memory: Memory) -> None:
    memory.add(image=picture(RED), blob="seen", user_id="u")
    memory.add(image=picture(RED, seed=1), blob="doubted", sources=["the forger"], user_id="u")
    memory.add(image=picture(RED, seed=2), blob="distrusted", trust=0.1, user_id="u")

    def blobs(**options: Any) -> set[str | None]:
        return {hit.item.blob for hit in memory.search(image=picture(RED), user_id="u", **options)}

    assert blobs() == {"seen", "doubted"}
    memory.revoke("the forger")
    assert blobs() == {"seen"}
    memory.add(image=picture(RED, seed=3), blob="later", sources=["the forger"], user_id="u")
    assert blobs() == {"seen"}
    assert blobs(quarantined=True) == {"seen", "doubted", "distrusted", "later"}


def test_an_image_goes_back_to_an_earlier_version(memory: Memory) -> None:
    result = memory.add("Porto", image=picture(RED), user_id="u")
    assert isinstance(result, warpmem.types.AddResult)
    first = memory.search(image=picture(RED), user_id="u")[0].score
    memory.update(result.id, text="Lisbon", vector=np.eye(24)[0])
    reverted = memory.revert(result.id, 1)
    hit = memory.search(image=picture(RED), user_id="u")[0]
    assert (hit.item.text, hit.score, hit.space) == ("Porto", first, "image")
    assert reverted.model_id == "colours-and-words-2"


def test_what_images_cost_is_charged_to_whom_they_belong(memory: Memory) -> None:
    for user, count in (("ann", 3), ("bob", 1)):
        items = [NewItem(text="", modality="image", media=picture(RED, seed=n)) for n in range(count)]
        memory.add_many(items, user_id=user)
    memory.search(image=picture(RED), user_id="bob")
    spent = {
        (row.scope.user_id, row.job): row
        for row in memory.costs(by=["scope", "job", "model"])
        if row.model == "colours-and-words-2" and row.scope is not None
    }
    assert {name for name, _ in spent} == {"ann", "bob"}
    assert len(spent) == 3
    assert all(row.tokens > 0 for row in spent.values())


def test_only_texts_have_other_wordings() -> None:
    with opened(near_duplicate=0.5) as memory:
        memory.add("the green lorry is in Porto", image=picture(GREEN), user_id="u")
        items = [
            NewItem(text="the red lorry is in Porto"),
            NewItem(text="the red lorry is in Porto", modality="image", media=picture(RED)),
            NewItem(text="the red lorry is now in Porto"),
            NewItem(text="the red lorry is in Porto", modality="image", media=picture(RED, seed=1)),
        ]
        results = memory.add_many(items, user_id="u")
        assert [result.action for result in results] == ["added", "added", "merged", "added"]
        assert len(memory.search(image=picture(RED), user_id="u")) == 3


def test_a_document_of_code_lies_among_code(tmp_path: Path) -> None:
    file = tmp_path / "fold.py"
    file.write_text("def fold(items):\n    return sum(items)\n")
    with opened(tmp_path / "store", embedders={"code": HashingEmbedder(48)}) as memory:
        memory.add_document(file, user_id="u")
        hits = memory.search("def fold(items):", user_id="u")
        assert {hit.space for hit in hits} <= {"code", "text"}
        assert "code" in {hit.space for hit in hits}
        assert all((hit.item.modality == "code") == (hit.space == "code") for hit in hits)
    assert warpmem.verify(tmp_path / "store").ok
