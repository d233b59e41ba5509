"""MLServer with a model of our own, over real sockets: HTTP and gRPC."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environments
import programs
import pytest

from warpmem.embed.kserve import KServeEmbedder
from warpmem.errors import ModelError

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="MLServer has no release for Python 3.13"),
]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def mlserver(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[programs.Program]:
    """letters_runtime.py as the model "letters"."""
    python = environments.environment(root, "mlserver", ("mlserver",))
    folder = tmp_path_factory.mktemp("mlserver")
    ports = programs.free_ports(3)
    names = ("http_port", "grpc_port", "metrics_port")
    settings = {"host": "127.0.0.1", **dict(zip(names, ports, strict=True)), "parallel_workers": 0}
    model = {"name": "letters", "implementation": "letters_runtime.Letters"}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    shutil.copy(HERE / "letters_runtime.py", folder)
    command = [python.parent / "mlserver", "start", "."]
    with programs.Program(command, ports, folder, health="/v2/health/ready") as program:
        yield program


def embedder_of(
    program: programs.Program, over: str, model: str = "letters", **options: Any
) -> KServeEmbedder:
    if over != "http":
        pytest.importorskip("grpc")
    url = program.url if over == "http" else f"grpc://127.0.0.1:{program.ports[1]}"
    raw = {"raw": True} if over == "raw grpc" else {}
    return KServeEmbedder(url, model, **{"timeout": 60, **raw, **options})


TRANSPORTS = ["http", "grpc", "raw grpc"]


@pytest.mark.parametrize("shape", ["n", "n1"])
@pytest.mark.parametrize("over", TRANSPORTS)
def test_a_kserve_server(mlserver: programs.Program, over: str, shape: Any) -> None:
    embedder = embedder_of(mlserver, over, shape=shape)
    rows = embedder.embed(["abba", "cab", "deed", "aé😀"], role="document")
    assert rows[:, :5].tolist() == [[3, 3, 1, 1, 1], [2, 2, 2, 1, 1], [1, 1, 1, 3, 3], [2, 1, 1, 1, 1]]
    assert embedder.dimension == 16


@pytest.mark.parametrize("over", TRANSPORTS)
def test_what_a_kserve_server_does_not_have_is_a_model_error(mlserver: programs.Program, over: str) -> None:
    for options in ({"model": "no-such-model"}, {"output": "no-such-output"}):
        with pytest.raises(ModelError):
            embedder_of(mlserver, over, **options, dimension=16).embed(["a"], role="query")


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_a_kserve_server_that_is_killed_heals(mlserver: programs.Program, over: str) -> None:
    embedder = embedder_of(mlserver, over, timeout=20)
    mlserver.kill()
    for _ in range(8):
        with pytest.raises(programs.NOT_THERE):
            embedder.embed(["abba"], role="query")
    mlserver.start()
    assert programs.healed(lambda: embedder.embed(["abba"], role="query"))[0, :2].tolist() == [3, 3]
