"""Images through a server with /v1/embeddings: what it is sent, and what its faults become."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import local_servers
import warpmem
from image_models import BLUE, GREEN, RED, ColourTextEmbedder, picture
from local_servers import Handler, openai_body, serving
from warpmem import Media
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.openai import OpenAIEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    ModelError,
    ModelMismatch,
    ModelUnavailable,
)

MODEL = ColourTextEmbedder()


def rows_of(payload: Any) -> Any:
    """Of images and texts, as they come."""
    rows = []
    for one in payload["input"]:
        if isinstance(one, str):
            rows.append(MODEL.embed([one], role="document")[0])
        elif one["image"].startswith("https://pictures.example/"):
            rows.append(MODEL.embed_media([Media(data=picture(BLUE))], role="document")[0])
        else:
            data = base64.b64decode(one["image"], validate=True)
            rows.append(MODEL.embed_media([Media(data=data)], role="document")[0])
    return np.stack(rows)


def sound(handler: Handler, payload: Any) -> None:
    handler.reply(openai_body(rows_of(payload), as_base64=payload.get("encoding_format") == "base64"))


def spoiled(change: Callable[[Any], Any]) -> local_servers.Answer:
    def answer(handler: Handler, payload: Any) -> None:
        handler.reply(openai_body(change(rows_of(payload)), as_base64=True))  # JSON has no NaN

    return answer


def make(url: str, **options: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(f"{url}/v1", "clip", **{"dimension": 24, "check_seconds": 1e9, **options})


def test_images_go_as_base64_and_addresses_as_they_are() -> None:
    with serving(sound) as server:
        embedder = make(server.url, batch=2)
        media = [
            Media(data=picture(RED)),
            Media(uri="https://pictures.example/blue"),
            Media(data=picture(GREEN)),
        ]
        found = embedder.embed_media(media, role="document")
        wanted = MODEL.embed_media(
            [Media(data=picture(colour)) for colour in (RED, BLUE, GREEN)], role="document"
        )
        assert found.tobytes() == wanted.tobytes()
        sent = [payload for _, payload, _ in server.requests]
        assert [len(payload["input"]) for payload in sent] == [1, 2, 1]  # the fixed text first
        assert sent[1]["input"] == [
            {"image": base64.b64encode(picture(RED)).decode()}, {"image": "https://pictures.example/blue"},
        ]  # fmt: skip
        assert sent[1]["model"] == "clip"
        assert embedder.embed_media([], role="query").shape == (0, 24)


def with_nan(rows: Any) -> Any:
    rows = rows.astype(np.float64)
    rows[0, 1] = np.nan
    return rows


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (spoiled(lambda rows: rows[:-1]), EmbeddingError, "expected 2 rows, one per image, not 1"),
        (spoiled(lambda rows: rows[:, 1:]), EmbeddingError, "23"),
        (spoiled(with_nan), EmbeddingError, "NaN|finite"),
        (lambda handler, payload: handler.reply(b"{}", 500), ModelUnavailable, "500"),
        (lambda handler, payload: handler.reply(b"{}", 400), ModelError, "400"),
        (lambda handler, payload: handler.reply(b"[]"), ModelError, "not the JSON"),
        (lambda handler, payload: time.sleep(0.5), DeadlineExceeded, "within"),
    ],
)
def test_a_fault_of_the_server_stores_nothing(answer: Any, kind: Any, message: str) -> None:
    with serving(sound) as server:
        embedder = make(server.url, timeout=0.2)
        embedder.embed(["a"], role="query")
        with warpmem.open(None, embedder=HashingEmbedder(32), embedders={"image": embedder}) as memory:
            items = [
                warpmem.NewItem(text="", modality="image", media=picture(colour)) for colour in (RED, BLUE)
            ]
            server.answer = answer
            with pytest.raises(kind, match=message):
                memory.add_many(items, user_id="u")
            assert memory.count(user_id="u") == 0
            memory.add("texts go on", user_id="u")
            server.answer = sound
            memory.add_many(items, user_id="u")
            assert memory.search(image=picture(RED), user_id="u")[0].score == pytest.approx(1.0)


def test_other_weights_are_noticed_by_images_too() -> None:
    with serving(sound) as server:
        embedder = make(server.url, check_seconds=0)
        embedder.embed_media([Media(data=picture(RED))], role="document")
        server.answer = spoiled(lambda rows: np.roll(rows, 5, axis=1))
        with pytest.raises(ModelMismatch, match="other weights"):
            embedder.embed_media([Media(data=picture(RED))], role="document")


def test_by_configuration_file_a_deadline_and_a_server_that_is_down(tmp_path: Path) -> None:
    file = tmp_path / "warpmem.toml"
    with serving(sound) as server:
        file.write_text(
            f'embedder = "hashing"\n[embedders.image]\nname = "openai"\n[embedders.image.options]\n'
            f'url = "{server.url}/v1"\nmodel = "clip"\ndimension = 24\n'
        )
        with warpmem.open(tmp_path / "store", config=file) as memory:
            memory.add("at dusk", image=picture(RED), blob="red.ppm", user_id="u")
            memory.add(image=picture(BLUE), blob="blue.ppm", user_id="u")
            assert memory.search("something red", user_id="u")[0].item.blob == "red.ppm"
            assert memory.search(image=picture(BLUE), user_id="u")[0].item.blob == "blue.ppm"
            server.answer = lambda handler, payload: time.sleep(0.4)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                memory.search(image=picture(GREEN), user_id="u", deadline=0.1)
            assert time.monotonic() - began < 0.35
    with warpmem.open(tmp_path / "store", config=file) as memory:
        assert memory.count(user_id="u") == 2
        assert memory.search("at dusk", user_id="u", mode="lexical")[0].item.blob == "red.ppm"
