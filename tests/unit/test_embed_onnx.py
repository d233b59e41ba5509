"""The onnx embedder and what it reads of a model directory, on models made here."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sentence_models as made
import warpmem
from warpmem.errors import EmbeddingError, InputError, InvalidText, NotSupported

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from warpmem.embed.onnx import OnnxEmbedder
from warpmem.embed.scheduled import ScheduledEmbedder
from warpmem.embed.torch import TorchEmbedder

TEXTS = ["Nadia moved to Porto.", "x", "ключ", "a longer text, so that the batch is padded"]


def expected(text: str, pooling: str, *, normalize: bool, limit: int = 8192) -> Any:
    """By hand, in float64: a byte's piece is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: F401

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    body = [3 + alphabet.index(c) for piece, _ in pieces for c in piece]
    ids = [1, *body[: limit - 2], 2]
    rows = made.table().astype(np.float64)[ids]
    vector = {"mean": rows.mean(axis=0), "cls": rows[0], "lasttoken": rows[-1]}[pooling]
    return vector / np.linalg.norm(vector) if normalize else vector


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalisation_are_the_models_own(tmp_path: Path, pooling: str, normalize: bool) -> None:
    made.model_directory(tmp_path, pooling=pooling, normalize=normalize)
    made.onnx_file(tmp_path / "model.onnx")
    rows = OnnxEmbedder(tmp_path).embed(TEXTS, role="document")
    for row, text in zip(rows, TEXTS, strict=True):
        np.testing.assert_allclose(row, expected(text, pooling, normalize=normalize), atol=2e-6)


def test_pooling_in_the_newer_form_and_none_at_all(tmp_path: Path) -> None:
    made.model_directory(tmp_path, normalize=False)
    made.onnx_file(tmp_path / "model.onnx")
    (tmp_path / "1_Pooling/config.json").write_text('{"pooling_mode": "cls", "include_prompt": true}')
    np.testing.assert_allclose(
        OnnxEmbedder(tmp_path).embed(["ab"], role="query")[0],
        expected("ab", "cls", normalize=False),
        atol=2e-6,
    )
    (tmp_path / "modules.json").unlink()
    np.testing.assert_allclose(
        OnnxEmbedder(tmp_path).embed(["ab"], role="query")[0],
        expected("ab", "mean", normalize=False),
        atol=2e-6,
    )


def test_long_texts_are_cut_as_the_model_says(tmp_path: Path) -> None:
    made.model_directory(tmp_path, max_seq_length=16)
    made.onnx_file(tmp_path / "model.onnx")
    text = "0123456789" * 100
    (row,) = OnnxEmbedder(tmp_path).embed([text], role="document")
    np.testing.assert_allclose(row, expected(text, "mean", normalize=True, limit=16), atol=2e-6)


def test_what_is_cut_costs_nothing(tmp_path: Path) -> None:
    """A long document was counted whole, and the model was believed to be many times as fast as it is."""
    made.model_directory(tmp_path, max_seq_length=16)
    made.onnx_file(tmp_path / "model.onnx")
    model = OnnxEmbedder(tmp_path)
    torch = TorchEmbedder.__new__(TorchEmbedder)  # the extra need not be there for it
    torch._model = model._model
    for each in (model, torch):
        assert each.token_costs(["", "of eight", "0123456789" * 100]) == [1, 2, 16]
    scheduled = ScheduledEmbedder(model)
    scheduled.embed(["0123456789" * 100], "document", lane="ingest")
    assert scheduled.stats()["tokens"]["ingest"] == 16


def test_prefixes_are_the_models_own_or_given(tmp_path: Path) -> None:
    made.model_directory(tmp_path, prompts={"query": "query: ", "passage": "passage: "})
    made.onnx_file(tmp_path / "model.onnx")
    own = OnnxEmbedder(tmp_path)
    given = OnnxEmbedder(tmp_path, query_prefix="", document_prefix="d")
    for embedder, role, text in (
        (own, "query", "query: ab"), (own, "document", "passage: ab"),
        (given, "query", "ab"), (given, "document", "dab"),
    ):  # fmt: skip
        (row,) = embedder.embed(["ab"], role=role)
        np.testing.assert_allclose(row, expected(text, "mean", normalize=True), atol=2e-6)
    assert own.model_id != given.model_id


def test_a_sentence_output_is_taken_as_it_is(tmp_path: Path) -> None:
    made.model_directory(tmp_path, normalize=False)
    made.onnx_file(tmp_path / "model.onnx", sentence=True)
    (row,) = OnnxEmbedder(tmp_path).embed(["ab"], role="query")
    np.testing.assert_allclose(row, expected("ab", "mean", normalize=False) * 4, atol=2e-6)


def test_the_model_id_changes_with_the_vectors_alone(tmp_path: Path) -> None:
    first = made.model_directory(tmp_path / "one" / "m")
    made.onnx_file(first / "model.onnx")
    copy = made.model_directory(tmp_path / "two" / "m")
    (copy / "onnx").mkdir()
    made.onnx_file(copy / "onnx" / "model.onnx")
    known = OnnxEmbedder(first).model_id
    assert OnnxEmbedder(copy).model_id == known
    made.onnx_file(copy / "onnx" / "model.onnx", rows=made.table() * 2)
    assert OnnxEmbedder(copy).model_id != known
    assert OnnxEmbedder(copy, model_id="mine").model_id == "mine"
    (first / "1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    assert OnnxEmbedder(first).model_id != known


def test_nan_and_zero_of_a_model(tmp_path: Path) -> None:
    made.model_directory(tmp_path)
    for value in (np.nan, 0.0):
        made.onnx_file(tmp_path / "model.onnx", rows=np.full_like(made.table(), value))
        with pytest.raises(EmbeddingError, match="row 0"):
            OnnxEmbedder(tmp_path).embed(["a"], role="query")


def test_a_run_that_fails_is_an_embedding_error(tmp_path: Path) -> None:
    made.model_directory(tmp_path)
    made.onnx_file(tmp_path / "model.onnx", rows=made.table()[:4])  # ids beyond the table
    with pytest.raises(EmbeddingError, match="ONNX Runtime raised"):
        OnnxEmbedder(tmp_path).embed(["a"], role="query")


def test_from_many_threads(tmp_path: Path) -> None:
    made.model_directory(tmp_path)
    made.onnx_file(tmp_path / "model.onnx")
    embedder = OnnxEmbedder(tmp_path, threads=1, batch=3)
    texts = [f"text {'x' * (i % 7)} {i}" for i in range(20)]
    alone = embedder.embed(texts, role="document")
    seen: list[Any] = []
    threads = [
        threading.Thread(target=lambda: seen.append(embedder.embed(texts, role="document"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.tobytes() for found in seen] == [alone.tobytes()] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [({"device": "tpu"}, "device"), ({"threads": -1}, "threads"), ({"batch": 0}, "batch"),
     ({"file": "other.onnx"}, r"has no other\.onnx"), ({"query_prefix": 3}, "prefix")],
)  # fmt: skip
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    made.model_directory(tmp_path)
    made.onnx_file(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=message):
        OnnxEmbedder(tmp_path, **options)


def test_what_is_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model directory"):
        OnnxEmbedder(tmp_path)
    with pytest.raises(InputError, match="path of a model directory, not int"):
        OnnxEmbedder(3)  # type: ignore[arg-type]
    made.model_directory(tmp_path)
    with pytest.raises(InputError, match=r"has no model\.onnx and no onnx/model\.onnx"):
        OnnxEmbedder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(EmbeddingError, match="cannot load"):
        OnnxEmbedder(tmp_path)
    made.onnx_file(tmp_path / "model.onnx", name="pixels")
    with pytest.raises(InputError, match="takes pixels"):
        OnnxEmbedder(tmp_path)
    made.onnx_file(tmp_path / "model.onnx")
    OnnxEmbedder(tmp_path)
    for name, content, error in (
        ("config.json", "{", InputError),
        ("config.json", '{"hidden_size": "4"}', InputError),
        ("tokenizer.json", "{}", InputError),
        ("modules.json", '{"a": 1}', InputError),
        (
            "modules.json",
            json.dumps([{"type": "Transformer"}, {"type": "Pooling"}, {"type": "Dense"}]),
            NotSupported,
        ),
        ("1_Pooling/config.json", json.dumps({"pooling_mode": "max"}), NotSupported),
        (
            "1_Pooling/config.json",
            json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}),
            NotSupported,
        ),
    ):
        sound = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content)
        with pytest.raises(error):
            OnnxEmbedder(tmp_path)
        (tmp_path / name).write_text(sound)


def test_blank_text(tmp_path: Path) -> None:
    made.model_directory(tmp_path)
    made.onnx_file(tmp_path / "model.onnx")
    with pytest.raises(InvalidText, match="text 2 of 2"):
        OnnxEmbedder(tmp_path).embed(["a", " "], role="query")


def test_a_store_by_configuration_file(tmp_path: Path) -> None:
    model = made.model_directory(tmp_path / "model")
    made.onnx_file(model / "model.onnx")
    file = tmp_path / "warpmem.toml"
    file.write_text(f'embedder = "onnx"\n[embedder_options]\npath = "{model}"\n')
    for _ in range(2):
        with warpmem.open(tmp_path / "store", config=file) as memory:
            memory.add("Nadia moved to Porto.", user_id="nadia")
            assert memory.search("Nadia moved to Porto.", user_id="nadia", mode="dense")[
                0
            ].score == pytest.approx(1.0)
            assert memory.count(user_id="nadia") == 1
