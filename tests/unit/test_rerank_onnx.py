"""reason/rerank_onnx.py on a small network made here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sentence_models as made
from warpmem.errors import InputError, MissingDependency, ModelError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from warpmem.reason.rerank_onnx import OnnxReranker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made.cross_encoder_file(made.model_directory(tmp_path / "pairs") / "model.onnx")
    return tmp_path / "pairs"


def test_the_network_reads_both_as_a_pair(folder: Path) -> None:
    """[CLS] and [SEP] belong to the query, the second [SEP] to the text: of "ab" it has 1 of 4 and more."""
    scores = OnnxReranker(folder).rerank("ab", ["", "a", "ba", "aa", "xyz"])
    np.testing.assert_allclose(scores, [1 / 4, 2 / 4, 3 / 4, 2 / 4, 1 / 4], atol=1e-6)


def test_padding_and_batches_change_nothing(folder: Path) -> None:
    texts = ["a" * n for n in (1, 40, 3, 200, 7, 0)]
    one = OnnxReranker(folder, batch=1).rerank("aaa", texts)
    np.testing.assert_allclose(OnnxReranker(folder, batch=4).rerank("aaa", texts), one, atol=1e-6)
    np.testing.assert_allclose(one, [2 / 5, 4 / 5, 4 / 5, 4 / 5, 4 / 5, 1 / 5], atol=1e-6)


def test_long_pairs_are_cut_as_the_model_says(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 12}))
    scores = OnnxReranker(folder).rerank("b", ["a" * 100 + "b", "aaab" + "a" * 100])
    np.testing.assert_allclose(scores, [1 / 3, 2 / 3], atol=1e-6)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 6}))
    assert OnnxReranker(folder).rerank("b", ["aaab"])[0] == pytest.approx(1 / 3)


def test_the_model_id_changes_with_the_scores(folder: Path, tmp_path: Path) -> None:
    known = OnnxReranker(folder).model_id
    assert known.startswith("onnx:pairs:") and OnnxReranker(folder).model_id == known
    assert OnnxReranker(folder, model_id="mine").model_id == "mine"
    made.cross_encoder_file(folder / "model.onnx", factor=2.0)
    assert OnnxReranker(folder).model_id != known


@pytest.mark.parametrize(
    ("network", "message"),
    [({"factor": float("nan")}, "score 0 is NaN"), ({"outputs": 2}, r"expected 2 scores, .* shape \(2, 2\)")],
)
def test_another_output_is_a_model_error(folder: Path, network: dict[str, Any], message: str) -> None:
    made.cross_encoder_file(folder / "model.onnx", **network)
    with pytest.raises(ModelError, match=message):
        OnnxReranker(folder).rerank("q", ["a", "b"])


def test_a_run_that_fails_is_a_model_error(folder: Path) -> None:
    made.onnx_file(folder / "model.onnx", rows=made.table()[:4])  # ids beyond the table
    with pytest.raises(ModelError, match="ONNX Runtime raised"):
        OnnxReranker(folder).rerank("q", ["a"])


def test_what_is_no_model_and_options(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model directory"):
        OnnxReranker(tmp_path)
    for options in ({"device": "tpu"}, {"threads": -1}, {"batch": 0}, {"file": "other.onnx"}):
        with pytest.raises(
            InputError, match=next(iter(options)) if "file" not in options else "has no other"
        ):
            OnnxReranker(folder, **options)  # type: ignore[arg-type]
    (folder / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match="cannot load"):
        OnnxReranker(folder)


def test_a_missing_package_is_named_with_its_install_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingDependency, match=r"reranker 'onnx' .* python -m pip install 'warpmem\[onnx\]'"
    ):
        OnnxReranker(folder)
