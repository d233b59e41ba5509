"""Images, code and logs beside texts: each in the space of its own model, searched together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from image_models import BLUE, GREEN, GREY, RED, ColourEmbedder, ColourTextEmbedder, picture
from warpmem import Media, Memory, NewItem, Ranking, Scope
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, InvalidText, InvalidVector

TEXTS = HashingEmbedder(32)


def opened(path: Path | None = None, **options: Any) -> Memory:
    given = {"embedder": TEXTS, "embedders": {"image": ColourTextEmbedder()}, **options}
    return warpmem.open(path, **given)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with opened() as memory:
        yield memory


def found(result: Any) -> list[tuple[str, str | None, str]]:
    return [(hit.item.text, hit.item.blob, hit.space) for hit in result]


def test_an_image_is_found_by_one_like_it(memory: Memory) -> None:
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        memory.add(image=picture(colour, seed=1), blob=f"s3://pictures/{name}.ppm", user_id="u")
    memory.add("A text about red.", user_id="u")
    hits = memory.search(image=picture(GREEN, seed=2), user_id="u", k=3)
    assert [hit.item.blob for hit in hits] == [
        f"s3://pictures/{name}.ppm" for name in ("green", "blue", "red")
    ]
    assert {hit.space for hit in hits} == {"image"}
    assert hits[0].item.modality == "image"
    assert hits[0].item.text == ""
    assert hits[0].item.model_id == "colours-and-words-2"
    assert memory.search(image=picture(GREEN, seed=1), user_id="u")[0].score == pytest.approx(1.0)
    assert len(memory.search(image=picture(GREEN), user_id="somebody else")) == 0


def test_what_refers_to_a_blob(memory: Memory, tmp_path: Path) -> None:
    data = picture(RED)
    file = tmp_path / "red.ppm"
    file.write_bytes(data)
    for given, reference in (
        (data, f"sha256:{hashlib.sha256(data).hexdigest()}"),
        (bytearray(picture(BLUE)), f"sha256:{hashlib.sha256(picture(BLUE)).hexdigest()}"),
        (file, str(file)),
        (str(file), str(file)),
    ):
        result = memory.add("caption", image=given, user_id="u")
        assert isinstance(result, warpmem.types.AddResult)
        assert memory.get(result.id).blob == reference
    assert memory.add(image=data, user_id="u").action == "added"  # type: ignore[union-attr]
    assert memory.add(image=data, user_id="u").action == "touched"  # type: ignore[union-attr]
    assert memory.count(user_id="u") == 4


def test_a_text_is_asked_of_every_space_that_understands_it(memory: Memory) -> None:
    memory.add("The red bridge is closed.", user_id="u")
    memory.add("Nadia likes tea.", user_id="u")
    memory.add("at dusk", image=picture(RED), blob="red", user_id="u")
    memory.add(image=picture(BLUE), blob="blue", user_id="u")
    hits = memory.search("red", user_id="u", k=10, mode="dense")
    assert {hit.item.blob or hit.item.text for hit in hits} == {
        "The red bridge is closed.", "Nadia likes tea.", "red", "blue",
    }  # fmt: skip
    assert found(hits)[0] == ("at dusk", "red", "image")
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    ranking = Ranking(similarity=1.0, spaces={"image": 0.5})
    half = memory.search("red", user_id="u", k=10, ranking=ranking, explain=True)
    by_blob = {hit.item.blob: hit for hit in half}
    assert by_blob["red"].score == pytest.approx(hits[0].score / 2)
    assert by_blob["red"].parts["weight_similarity"] == 0.5
    assert by_blob[None].parts["weight_similarity"] == 1.0
    only = memory.search("red", user_id="u", ranking=Ranking(spaces={"image": 0}))
    assert {hit.space for hit in only} == {"text"}
    only = memory.search("red", user_id="u", ranking=Ranking(spaces={"text": 0}), return_vectors="numpy")
    assert {hit.space for hit in only} == {"image"}
    assert only.vectors.shape == (2, ColourEmbedder.dimension)
    with pytest.raises(InputError, match="return_vectors is for one space"):
        memory.search("red", user_id="u", return_vectors="numpy")
    with pytest.raises(InputError, match="leaves out every space"):
        memory.search("red", user_id="u", ranking=Ranking(spaces={"text": 0, "image": 0}))
    texts = memory.search(vector=TEXTS.embed(["tea"], role="query")[0], user_id="u")
    assert {hit.space for hit in texts} == {"text"}


def test_the_best_of_all_spaces_are_the_best_of_each_in_order() -> None:
    """Against every hit of every space, by score, then scope, then age."""
    rng = np.random.default_rng(5)
    with opened(embedders={"image": ColourTextEmbedder(), "code": HashingEmbedder(48)}) as memory:
        scopes = [Scope(user_id="ann"), Scope(user_id="bob")]
        for n in range(120):
            scope = scopes[n % 2]
            match n % 3:
                case 0:
                    memory.add(f"red text {n % 7}", scope=scope, metadata={"n": n % 4}, kind="event")
                case 1:
                    colour = tuple(rng.integers(0, 2, 3) * 200)
                    memory.add(image=picture(colour), blob=f"b{n}", scope=scope, metadata={"n": n % 4})
                case 2:
                    memory.add(code=f"red = {n % 5}", scope=scope, metadata={"n": n % 4}, kind="event")
        for filters in (None, {"metadata.n": {"in": [1, 2]}}):
            for ranking in (
                None,
                Ranking(priority=0.1, lexical=0.3),
                Ranking(spaces={"image": 0.3, "code": 2}),
            ):
                options: dict[str, Any] = {"scopes": scopes, "filters": filters, "ranking": ranking}
                weights = ranking or Ranking()
                each = []
                for name in ("text", "code", "image"):
                    left = {n: 0.0 for n in ("text", "code", "image") if n != name}
                    alone = {**weights.spaces, **left}
                    one = Ranking(priority=weights.priority, lexical=weights.lexical, spaces=alone)
                    each += memory.search("red", k=200, **{**options, "ranking": one})
                assert len(each) == len({hit.item.id for hit in each}) > 50
                rank = {"ann": 0, "bob": 1}
                each.sort(
                    key=lambda h: (-h.score, rank[h.item.scope.user_id or ""], h.item.created_at, h.item.id)
                )
                for k in (1, 7, 40, 200):
                    wanted = [(hit.item.id, hit.score, hit.space) for hit in each[:k]]
                    got = memory.search("red", k=k, **options)
                    assert [(hit.item.id, hit.score, hit.space) for hit in got] == wanted
        many = memory.search_many(["red", "red"], scopes=scopes, k=5)
        for scope, result in zip(scopes, many, strict=True):
            assert found(result) == found(memory.search("red", scope=scope, k=5))


def test_a_model_without_words_is_asked_by_the_words_of_captions() -> None:
    with opened(embedders={"image": ColourEmbedder()}) as memory:
        memory.add("a zeppelin over Porto", image=picture(GREY), user_id="u")
        memory.add("Porto is a city.", user_id="u")
        assert {hit.space for hit in memory.search("zeppelin", user_id="u", mode="dense")} == {"text"}
        for mode in ("lexical", "hybrid"):
            hits = memory.search("zeppelin", user_id="u", mode=mode)
            assert ("a zeppelin over Porto", "image") in {(hit.item.text, hit.space) for hit in hits}
        assert memory.search("zeppelin", user_id="u", mode="lexical")[0].space == "image"
        hits = memory.search("zeppelin", user_id="u", mode="hybrid", min_similarity=-1.0)
        assert {hit.space for hit in hits} == {"text"}


def test_a_store_of_given_vectors_is_asked_for_its_images() -> None:
    with opened(embedder=None, dimension=8) as memory:
        memory.add("something red", vector=np.eye(8)[0], user_id="u")
        memory.add("a red bridge", image=picture(RED), user_id="u")
        memory.add(image=picture(BLUE), user_id="u")
        assert {hit.space for hit in memory.search("red", user_id="u", mode="dense")} == {"image"}
        hits = memory.search("red", user_id="u")
        assert {hit.item.text for hit in hits} == {"something red", "a red bridge", ""}
        with pytest.raises(InputError, match="no embedder"):
            memory.search("red", user_id="u", ranking=Ranking(similarity=1.0, spaces={"image": 0}))


def test_code_and_logs_are_texts_of_their_own_models() -> None:
    with opened(embedders={"code": HashingEmbedder(48), "log": HashingEmbedder(16)}) as memory:
        memory.add(code="def fold(items): ...", user_id="u")
        memory.add(log="09:00 worker 7 restarted", user_id="u")
        memory.add("Nadia folds paper.", user_id="u")
        memory.add(NewItem(text="def unfold(): ...", modality="code"), user_id="u")
        result = memory.search("def fold(items): ...", user_id="u", mode="dense")
        hits = {hit.item.text: hit for hit in result}
        assert hits["def fold(items): ..."].score == pytest.approx(1.0)
        assert {text: hit.space for text, hit in hits.items()} == {
            "def fold(items): ...": "code", "def unfold(): ...": "code",
            "09:00 worker 7 restarted": "log", "Nadia folds paper.": "text",
        }  # fmt: skip
        changed = memory.update(hits["def fold(items): ..."].item.id, text="def map(items): ...")
        again = memory.search("def map(items): ...", user_id="u", mode="dense")[0]
        assert (again.item.id, again.space) == (changed.id, "code")
        assert again.score == pytest.approx(1.0)


def test_a_modality_without_a_model_goes_to_the_texts() -> None:
    with opened(embedders={"image": ColourEmbedder()}) as memory:
        memory.add("birdsong at dawn", audio="bird.wav", user_id="u")
        hit = memory.search("birdsong at dawn", user_id="u")[0]
        assert (hit.space, hit.item.modality, hit.item.blob) == ("text", "audio", "bird.wav")
        with pytest.raises(InvalidText):
            memory.add(audio="bird.wav", user_id="u")
        with pytest.raises(InputError, match="no embedder for audio"):
            memory.search(audio=b"data", user_id="u")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"image": b""}, "image is empty"),
        ({"image": 7}, "must be bytes, the path of a file or a URI"),
        ({"image": "no/such/file.ppm"}, "cannot be read"),
        ({"image": "a\0b"}, "cannot be read"),
        ({"image": "https://example.org/a.ppm"}, "fetches nothing"),
        ({"image": b"GIF89a"}, "not a picture in PPM"),
        ({"image": b"x", "audio": b"y"}, "give one of"),
        ({"code": "x", "content": "y"}, "code is the text"),
        ({"content": ["a", "b"], "image": b"x"}, "caption of image must be a string"),
        ({"content": "a", "blob": "x"}, "blob refers to"),
        ({"content": NewItem(text="a", media=b"x")}, "media is for the modalities"),
        ({"content": NewItem(text="a", modality="image")}, "comes with media= or vector="),
        ({"image": b"x", "blob": "x" * 600}, "blob must be 1 to 512 bytes"),
    ],
)
def test_bad_input_is_told_and_stores_nothing(memory: Memory, call: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        memory.add(**call, user_id="u")
    assert memory.count(user_id="u") == 0


def test_bad_searches(memory: Memory) -> None:
    for call, message in (
        ({"query": "a", "image": picture(RED)}, "or for one image"),
        ({"image": b"GIF"}, "not a picture"),
        ({"image": picture(RED), "mode": "hybrid"}, "needs a query text"),
        ({"image": picture(RED), "rerank": True}, "reads the query"),
    ):
        with pytest.raises(InputError, match=message):
            memory.search(**call, user_id="u")  # type: ignore[arg-type]
    for spaces in ({"smell": 1.0}, {"image": -1}, {"image": True}, 3):
        with pytest.raises(InputError, match="ranking spaces"):
            Ranking(spaces=spaces)  # type: ignore[arg-type]


def test_vectors_that_come_along(memory: Memory) -> None:
    memory.add(image=picture(RED), vector=np.eye(24)[3], user_id="u")
    with pytest.raises(InvalidVector):
        memory.add(image=picture(RED), vector=np.eye(32)[3], user_id="u")
    items = [NewItem(text="", modality="image", blob=f"b{i}") for i in range(3)]
    memory.add_many(items, vectors=np.eye(24)[:3], user_id="u")
    with pytest.raises(InputError, match="one list of vectors is of one space"):
        memory.add_many([*items, NewItem(text="t")], vectors=np.eye(24)[:4], user_id="u")
    assert memory.count(user_id="u") == 4


def test_a_batch_of_several_spaces_is_stored_whole_or_not_at_all(memory: Memory) -> None:
    items = [
        NewItem(text="a text"),
        NewItem(text="", modality="image", media=picture(RED)),
        NewItem(text="some code", modality="code"),
        NewItem(text="", modality="image", media=b"not a picture"),
    ]
    with pytest.raises(InputError):
        memory.add_many(items, user_id="u")
    assert memory.count(user_id="u") == 0
    first = memory.add_many(items[:3], user_id="u", idempotency_key="once")
    assert memory.add_many(items[:3], user_id="u", idempotency_key="once") == first
    assert {hit.space for hit in memory.search("red", user_id="u")} == {"text", "image"}


def test_a_caption_is_corrected_without_the_picture(memory: Memory) -> None:
    result = memory.add("Porto", image=picture(RED), user_id="u")
    assert isinstance(result, warpmem.types.AddResult)
    before = memory.search(image=picture(RED), user_id="u")[0].score
    memory.update(result.id, text="Lisbon")
    memory.update(result.id, text="")
    hit = memory.search(image=picture(RED), user_id="u")[0]
    assert (hit.item.text, hit.item.version, hit.score) == ("", 3, before)
    memory.update(result.id, vector=np.eye(24)[0])
    assert memory.search(image=picture(RED), user_id="u")[0].score != before
    block = memory.context(image=picture(RED), user_id="u")
    assert "image sha256:" in block.text
    memory.delete(result.id)
    assert len(memory.search(image=picture(RED), user_id="u")) == 0


def test_past_versions_and_filters_in_another_space(memory: Memory) -> None:
    import datetime

    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for n in range(6):
        memory.add(
            image=picture(RED, seed=n), key="cover", valid_from=start + timedelta(days=n), user_id="u",
            metadata={"n": n},
        )  # fmt: skip
    assert len(memory.search(image=picture(RED), user_id="u")) == 1
    hits = memory.search(image=picture(RED), user_id="u", as_of=start + timedelta(days=2, hours=1))
    assert [hit.item.metadata["n"] for hit in hits] == [2]
    assert memory.warm(user_id="u") >= 0
    memory.evict(user_id="u")


def test_by_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "warpmem.toml"
    file.write_text(
        'embedder = "hashing"\n[embedders.code]\nname = "hashing"\n[embedders.code.options]\ndimension = 20\n'
    )
    with warpmem.open(tmp_path / "store", config=file, embedders={"image": ColourEmbedder()}) as memory:
        memory.add(code="x = 1", user_id="u")
        memory.add(image=picture(RED), user_id="u")
        spaces = memory.stats().spaces
        assert {name: space["dimension"] for name, space in spaces.items()} == {"code": 20, "image": 24}
    with warpmem.open(None, embedders={"text": "hashing", "code": {"name": "hashing"}}) as memory:
        assert memory.stats().model_id.startswith("hashing")
    for embedders, message in (
        ({"smell": "hashing"}, "keys of"),
        ({"code": "gpt"}, "the embedder for code"),
        ({"code": {"name": "hashing", "size": 3}}, "the embedder for code"),
        ({"image": "hashing"}, "must have model_id, dimension and embed_media"),
        ({"image": ColourEmbedder}, "the class ColourEmbedder"),
        (["image"], "must be a dict"),
    ):
        with pytest.raises(InputError, match=message):
            warpmem.open(None, embedders=embedders)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not both"):
        warpmem.open(None, embedder="hashing", embedders={"text": "hashing"})


def test_media_counts_its_bytes() -> None:
    assert (len(Media(data=b"abc")), len(Media(uri="https://example.org/a"))) == (3, 1)
