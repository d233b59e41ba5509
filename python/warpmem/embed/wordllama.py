"""The embedded default: WordLlama's 256-dimensional token vectors, which lie inside its PyPI wheel.

A text's vector is the mean of its Llama-2 tokens' vectors. Weights and tokenizer are read from the installed
package's files; the package itself is not imported, because importing it configures the root logger and
loads an HTTP client, and its loader would download what it does not find.

In this vocabulary a space stands in no token but at its beginning, so a text's tokens are those of its words,
one word after the other; and two words of three are one token, which the vocabulary tells by itself. No word
is remembered from one call to the next: how fast it is embedded would tell that somebody had said it.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EmbeddingError, InvalidText, MissingDependency
from ..ops.model_files import keep_no_texts
from .texts import check_texts

MODEL_ID = "wordllama-l2-supercat-256"
DIMENSION = 256

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TENSOR = "embedding.weight"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_CHUNK = 4096
_SHORT = 4096
_SPACE: Final = "\u2581"
"""What stands for a space in the vocabulary."""
_words: Final = re.compile(f"{_SPACE}+[^{_SPACE}]*").findall


class _Tokenizer:
    """The tokenizer's tokens of a text, in a fraction of its time where the text is short."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._added = tuple(token.content for token in whole.get_added_tokens_decoder().values())
        model = whole.model
        self._find, self._take_apart = model.token_to_id, model.tokenize

    def ids(self, text: str, known: dict[str, list[int]]) -> list[int]:
        """known: words that were taken apart in the same call."""
        words = _words(_SPACE + text.replace(" ", _SPACE))
        is_long = len(text) > _SHORT and max(map(len, words)) > _SHORT
        if is_long or any(token in text for token in self._added):
            # Without the GIL, which a long word would hold.
            (encoding,) = self._whole.encode_batch_fast([text], add_special_tokens=False)
            return encoding.ids  # type: ignore[no-any-return]
        ids: list[int] = []
        for word in words:
            token = self._find(word)
            if token is not None:
                ids.append(token)
                continue
            parts = known.get(word)
            if parts is None:
                parts = known[word] = [part.id for part in self._take_apart(word)]
            ids += parts
        return ids


class _Model(NamedTuple):
    table: NDArray[np.float32]
    tokenizer: _Tokenizer


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
        self._model: _Model | None = None

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
        known: dict[str, list[int]] = {}
        for i, text in enumerate(checked):
            ids = tokenizer.ids(text, known)
            if not ids:
                raise InvalidText(f"text {i + 1} of {len(checked)} holds no token")
            rows[i] = _mean(table, ids)
        if not rows.any(axis=1).all():
            raise EmbeddingError(f"{MODEL_ID} gave a zero vector")
        return rows

    def _load(self) -> _Model:
        with self._lock:
            if self._model is None:
                table = _load_table(self._weights_file)
                self._model = _Model(table, _Tokenizer(_load_tokenizer(self._tokenizer_file)))
            return self._model


def _mean(table: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.float32]:
    """Mean of token rows, in chunks so that memory does not grow with the text. One chunk sums in float32, as
    the original does; the sums of several add up in float64, which keeps the drift at that of one chunk."""
    if len(ids) <= _CHUNK:
        mean: NDArray[np.float32] = _sum(table, ids) / np.float32(len(ids))
        return mean
    total = np.zeros(DIMENSION, np.float64)
    for start in range(0, len(ids), _CHUNK):
        total += _sum(table, ids[start : start + _CHUNK])
    return (total / len(ids)).astype(np.float32)


def _sum(table: NDArray[np.float32], ids: Sequence[int]) -> NDArray[np.float32]:
    total: NDArray[np.float32] = np.add.reduce(table.take(ids, axis=0, mode="clip"), axis=0)
    return total


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
    keep_no_texts(tokenizer)
    return tokenizer
