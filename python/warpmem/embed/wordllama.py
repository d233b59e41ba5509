"""The embedded default: WordLlama's 256-dimensional token vectors, which lie inside its PyPI wheel.

A text's vector is the mean of its Llama-2 tokens' vectors. Weights and tokenizer are read from the installed
package's files; the package itself is not imported, because importing it configures the root logger and
loads an HTTP client, and its loader would download what it does not find.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InvalidText, MissingDependency
from .texts import check_texts

MODEL_ID = "wordllama-l2-supercat-256"
DIMENSION = 256

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TENSOR = "embedding.weight"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_GROUP = 64
_CHUNK = 4096
_SHORT = 4096


class WordLlamaEmbedder:
    """Embedder whose weights come with `pip install`. Offline and thread-safe.

    The weights (32 MB as float32) load at the first `embed`, in about 0.15 s. The constructor raises
    MissingDependency when the wordllama package or its files are absent.
    """

    model_id = MODEL_ID
    dimension = DIMENSION
    parallel = 4
    """A text takes less time than waking the thread that waits for it."""

    def __init__(self) -> None:
        self._weights_file = _package_file(_WEIGHTS)
        self._tokenizer_file = _package_file(_TOKENIZER)
        self._lock = threading.Lock()
        self._model: tuple[NDArray[np.float32], Any] | None = None

    @staticmethod
    def tokenizer_path() -> Path:
        """The model's tokenizer.json, for reason.tokens.TokenizerCounter. Raises MissingDependency."""
        return _package_file(_TOKENIZER)

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> NDArray[np.float32]:
        """(n, 256) float32 means of token vectors; row i has the same bits in every batch. `role` is ignored.
        Raises InvalidText when a text holds no token."""
        checked = check_texts(texts)
        rows = np.empty((len(checked), DIMENSION), np.float32)
        if not checked:
            return rows
        table, tokenizer = self._model or self._load()
        for start in range(0, len(checked), _GROUP):
            group = checked[start : start + _GROUP]
            if len(group) == 1 and len(group[0]) <= _SHORT:  # a third of the time, but holds the GIL
                encodings = [tokenizer.encode(group[0], add_special_tokens=False)]
            else:
                encodings = tokenizer.encode_batch_fast(group, add_special_tokens=False)
            for i, encoding in enumerate(encodings, start):
                if not encoding.ids:
                    raise InvalidText(f"text {i + 1} of {len(checked)} holds no token")
                rows[i] = _mean(table, encoding.ids)
        if not rows.any(axis=1).all():
            raise EmbeddingError(f"{MODEL_ID} gave a zero vector")
        return rows

    def _load(self) -> tuple[NDArray[np.float32], Any]:
        with self._lock:
            if self._model is None:
                self._model = (_load_table(self._weights_file), _load_tokenizer(self._tokenizer_file))
            return self._model


def _mean(table: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.float32]:
    """Mean of token rows, in chunks so that memory does not grow with the text. One chunk sums in float32, as
    the original does; the sums of several add up in float64, which keeps the drift at that of one chunk."""
    index = np.array(ids, dtype=np.int64)
    np.clip(index, 0, len(table) - 1, out=index)
    if len(index) <= _CHUNK:
        mean: NDArray[np.float32] = table[index].sum(axis=0, dtype=np.float32) / np.float32(len(index))
        return mean
    total = np.zeros(DIMENSION, np.float64)
    for start in range(0, len(index), _CHUNK):
        total += np.sum(table[index[start : start + _CHUNK]], axis=0, dtype=np.float32)
    return (total / len(index)).astype(np.float32)


def _package_file(name: str) -> Path:
    """A file of the installed wordllama package, found without importing the package."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("the embedder 'wordllama' needs its package: python -m pip install wordllama")
    for folder in spec.submodule_search_locations:
        file = Path(folder, name)
        if file.is_file():
            return file
    raise MissingDependency(
        f"the installed wordllama package has no {name}: python -m pip install 'wordllama==0.4.0.post1'"
    )


def _load_table(file: Path) -> NDArray[np.float32]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependency(
            "the embedder 'wordllama' needs: python -m pip install safetensors"
        ) from error
    try:
        with safe_open(file, framework="np") as tensors:
            table = np.ascontiguousarray(tensors.get_tensor(_TENSOR), dtype=np.float32)
    except (OSError, SafetensorError) as error:
        raise EmbeddingError(f"cannot read the weights of {MODEL_ID}; reinstall wordllama") from error
    if table.ndim != 2 or table.shape[1] != DIMENSION:
        raise EmbeddingError(
            f"weights of {MODEL_ID}: expected rows of {DIMENSION} numbers, not shape {table.shape}"
        )
    return table


def _load_tokenizer(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency("the embedder 'wordllama' needs: python -m pip install tokenizers") from error
    tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
