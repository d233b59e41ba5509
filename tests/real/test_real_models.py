"""Real weights in a process of their own, where their packages are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real


def test_minilm_equals_sentence_transformers(minilm: dict[str, Any]) -> None:
    for name in ("torch", "onnx", "torch_alone", "onnx_alone", "dlpack", "cuda"):
        assert minilm["differences"].get(name, 0.0) <= 1e-4, minilm["differences"]
    assert set(minilm["differences"]) >= {"torch", "onnx", "torch_alone", "onnx_alone", "dlpack"}
    assert minilm.get("cuda_device", "cuda:0") == "cuda:0"


def test_a_small_chat_model_answers_or_says_that_it_could_not(run: Any, tmp_path: Path) -> None:
    """135 million parameters seldom follow a schema: an answer follows it or is a ModelError."""
    report = run("smollm2.py", tmp_path)
    assert report["model_id"] == "transformers:SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "Paris" in report["answer"]
    assert report["again"] == report["directory"] == report["served"] == report["answer"]
    outcomes = [*report["schema"], report["served schema"]]
    assert len(outcomes) == 4 and set(outcomes) <= {"valid", "ModelError"}, report
    assert "takes 8192 tokens" in report["too long"] and "has 10" in report["too long"], report
