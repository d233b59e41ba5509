"""What keeps a store's vectors keeps those of other spaces: reopening, erasure, another model for the texts,
copies, exports, verify, repair and followers."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from image_models import BLUE, GREEN, GREY, RED, ColourEmbedder, ColourTextEmbedder, picture
from warpmem import Memory, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, ModelMismatch, NotFound

TEXTS = HashingEmbedder(32)


def opened(path: Path | None = None, **options: Any) -> Memory:
    given = {"embedder": TEXTS, "embedders": {"image": ColourTextEmbedder()}, **options}
    return warpmem.open(path, **given)


def found(result: Any) -> list[tuple[str, str | None, str]]:
    return [(hit.item.text, hit.item.blob, hit.space) for hit in result]


def test_a_store_remembers_its_models(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.add(image=picture(RED), blob="red", user_id="u")
        memory.add("red things", user_id="u")
    with opened(tmp_path) as memory:
        assert memory.search(image=picture(RED), user_id="u")[0].score == pytest.approx(1.0)
        assert memory.stats().spaces["image"] == {
            "model_id": "colours-and-words-2", "dimension": 24, "rows": 1,
        }  # fmt: skip
    with pytest.raises(ModelMismatch, match="image vectors are of 'colours-and-words-2'"):
        opened(tmp_path, embedders={"image": ColourEmbedder()})
    with opened(tmp_path, embedders=None) as memory:
        assert [hit.space for hit in memory.search("red", user_id="u")] == ["text"]
        assert memory.count(user_id="u") == 2
        with pytest.raises(InputError, match="opened without the embedder 'colours-and-words-2'"):
            memory.search(image=picture(RED), user_id="u")
        with pytest.raises(InputError, match="opened without the embedder"):
            memory.add(image=picture(BLUE), user_id="u")
        memory.add(image=picture(BLUE), blob="blue", vector=np.eye(24)[1], user_id="u")
    with opened(tmp_path) as memory:
        assert len(memory.search(image=picture(RED), user_id="u")) == 2


@pytest.mark.parametrize("columns", [{}, {"n": "number"}], ids=["", "declared"])
def test_erasure_reaches_every_space(tmp_path: Path, columns: dict[str, Any]) -> None:
    with opened(tmp_path, columns=columns) as memory:
        for user in ("ann", "bob"):
            for n in range(4):
                memory.add(image=picture(RED, seed=n), metadata={"n": n}, user_id=user)
            memory.add("red", user_id=user)
        ids = [hit.item.id for hit in memory.search(image=picture(RED), user_id="ann")]
        memory.erase(ids[:2])
        assert len(memory.search(image=picture(RED), user_id="ann", filters={"metadata.n": {"gte": 0}})) == 2
        memory.erase(scope=Scope(user_id="ann"))
        assert len(memory.search(image=picture(RED), user_id="ann")) == 0
        assert len(memory.search(image=picture(RED), user_id="bob")) == 4
        with pytest.raises(NotFound):
            memory.get(ids[3])
    assert warpmem.verify(tmp_path).ok


def test_the_texts_get_another_model_and_images_keep_theirs(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        for n, colour in enumerate((RED, GREEN, BLUE)):
            memory.add(f"text {n}", user_id="u")
            result = memory.add(f"caption {n}", image=picture(colour), user_id="u")
            memory.update(result.id, priority=0.9)  # type: ignore[union-attr]
        before = [(h.item.id, h.score) for h in memory.search(image=picture(RED), user_id="u")]
        told: list[tuple[int, int]] = []
        assert memory.reembed(HashingEmbedder(64), progress=lambda *at: told.append(at)) == 3
        assert told[-1] == (3, 3)
        assert [(h.item.id, h.score) for h in memory.search(image=picture(RED), user_id="u")] == before
        assert len(memory.search("text 1", user_id="u", k=10)) == 6
        memory.add(image=picture(GREY), user_id="u")
        assert len(memory.search(image=picture(RED), user_id="u")) == 4
    assert warpmem.verify(tmp_path).ok
    with opened(tmp_path, embedder=HashingEmbedder(64)) as memory:
        assert len(memory.search(image=picture(RED), user_id="u")) == 4


def test_images_that_come_while_the_texts_get_another_model(tmp_path: Path) -> None:
    done = threading.Event()
    added: list[str] = []

    def write(memory: Memory) -> None:
        n = 0
        while not done.is_set() or n < 20:
            result: Any = memory.add(f"caption {n}", image=picture(RED, seed=n), blob=f"b{n}", user_id="u")
            added.append(result.id)
            if n % 3 == 0:
                memory.update(result.id, text=f"corrected {n}")
            if n % 5 == 0:
                memory.delete(added.pop())
            memory.add(f"text {n}", user_id="u")
            n += 1

    with opened(tmp_path) as memory:
        for n in range(200):
            memory.add(f"early {n}", user_id="u")
        writer = threading.Thread(target=write, args=(memory,))
        writer.start()
        try:
            for dimension in (64, 16, 32):
                memory.reembed(HashingEmbedder(dimension), batch=16)
                assert {hit.space for hit in memory.search(image=picture(RED), user_id="u")} <= {"image"}
        finally:
            done.set()
            writer.join()
        hits = memory.search(image=picture(RED), user_id="u", k=1000)
        assert sorted(hit.item.id for hit in hits) == sorted(added)
    assert warpmem.verify(tmp_path).ok
    with opened(tmp_path) as memory:
        again = memory.search(image=picture(RED), user_id="u", k=1000)
        assert [(hit.item.id, hit.score) for hit in again] == [(hit.item.id, hit.score) for hit in hits]


def test_export_and_import_with_vectors(tmp_path: Path) -> None:
    file = io.BytesIO()
    with opened() as memory:
        memory.add("red", image=picture(RED), blob="r", user_id="u")
        memory.add("tea", user_id="u")
        memory.add(code="x = 1", user_id="u")
        memory.export(file, vectors=True)
        wanted = found(memory.search("red", user_id="u"))
    file.seek(0)
    with opened() as memory:
        report = memory.import_(file)
        assert report.stored == {"added": 3}
        assert found(memory.search("red", user_id="u")) == wanted
        assert memory.search(image=picture(RED), user_id="u")[0].score == pytest.approx(1.0)
    bare = io.BytesIO()
    with opened() as memory:
        memory.add("red", image=picture(RED), blob="r", user_id="u")
        memory.add("tea", user_id="u")
        memory.export(bare)
    bare.seek(0)
    with opened() as memory:
        report = memory.import_(bare, skip_errors=True)
        assert report.stored == {"added": 1}
        assert "comes with media= or vector=" in report.refused[0][1]


def test_backup_restore_verify_and_repair(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as memory:
        for n in range(5):
            memory.add(f"caption {n}", image=picture(RED, seed=n), user_id="u")
            memory.add(f"red {n}", user_id="u")
        wanted = found(memory.search("red", user_id="u", k=20))
        made = memory.backup(tmp_path / "backups")
        memory.checkpoint()
    warpmem.restore(made.path, tmp_path / "restored")
    report = warpmem.repair(tmp_path / "store", tmp_path / "repaired", embedder=TEXTS)
    assert report.ok
    for name in ("restored", "repaired", "store"):
        assert warpmem.verify(tmp_path / name).ok
        with opened(tmp_path / name) as memory:
            assert found(memory.search("red", user_id="u", k=20)) == wanted


def test_a_repair_does_not_make_a_text_of_an_image(tmp_path: Path) -> None:
    """What lost its vector would come back among the texts, where its caption lies."""
    with opened(tmp_path / "store") as memory:
        result = memory.add("caption", image=picture(RED), user_id="u")
        memory.add("a text", user_id="u")
        engine: Any = memory._log._engine  # type: ignore[attr-defined]
        for key, _ in list(engine.scan("vectors", b"", b"\xff" * 64)):
            engine.write([("vectors", key, None)])
        engine.sync()
    assert not warpmem.verify(tmp_path / "store").ok
    report = warpmem.repair(tmp_path / "store", tmp_path / "repaired", embedder=TEXTS)
    assert report.embedded == 1
    assert [lost.id for lost in report.lost] == [result.id]  # type: ignore[union-attr]


def test_a_repair_finds_out_what_was_known_of_the_models(tmp_path: Path) -> None:
    """The newest item names the model of an identity that is lost, unless it is an image."""
    with opened(tmp_path / "store") as memory:
        memory.add("red", user_id="u")
        memory.add("caption", image=picture(RED), user_id="u")
        engine: Any = memory._log._engine  # type: ignore[attr-defined]
        for key, _ in list(engine.scan("meta", b"", b"\xff" * 64)):
            engine.write([("meta", key, None)])
        engine.write([("lookup", key, None) for key, _ in list(engine.scan("lookup", b"", b"\xff" * 64))])
        engine.sync()
    report = warpmem.repair(tmp_path / "store", tmp_path / "repaired", embedder=TEXTS)
    assert [lost.what for lost in report.lost if "image space" in lost.what]
    assert warpmem.verify(tmp_path / "repaired").ok
    with opened(tmp_path / "repaired") as memory:
        assert {hit.space for hit in memory.search("red", user_id="u")} == {"text", "image"}


def test_a_follower_sees_images(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.add("a text", user_id="u")
        with (
            opened(tmp_path, follow=True, follow_ms=0) as reader,
            opened(tmp_path, embedders=None, follow=True, follow_ms=0) as plain,
            opened(tmp_path, embedders={"image": ColourEmbedder()}, follow=True, follow_ms=0) as other,
        ):
            for each in (reader, plain, other):
                assert len(each.search("a text", user_id="u")) == 1
            assert len(reader.search(image=picture(RED), user_id="u")) == 0
            writer.add(image=picture(RED), user_id="u")
            reader.refresh()
            plain.refresh()
            assert len(reader.search(image=picture(RED), user_id="u")) == 1
            assert len(plain.search("a text", user_id="u")) == 1
            with pytest.raises(ModelMismatch, match="image vectors"):
                other.refresh()
            writer.erase(scope=Scope(user_id="u"))
            reader.refresh()
            assert len(reader.search(image=picture(RED), user_id="u")) == 0
