"""embed/: the embedded default against its origin, callables, hashing, and vectors from outside."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpmem.embed import wordllama
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.texts import is_blank
from warpmem.embed.vectors import as_vectors
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.errors import (
    DeadlineExceeded,
    EmbeddingError,
    InputError,
    InvalidText,
    InvalidVector,
    MissingDependency,
)

TEXTS = [
    "Nadia lives in Porto.",
    "日本語の文",
    "x",
    "long " * 300,
    "quite different words " * 1000,
    "1 2 3",
    "a\n\tb  c",
    "<s> token",
    "😀",
]


def run(code: str) -> str:
    """Run code in a fresh interpreter with warnings as errors for our own modules."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -------------------------------------------------------------------------------------- wordllama


def test_equals_the_original() -> None:
    output = run(f"""
        import importlib.util, json, pathlib
        folder = pathlib.Path(importlib.util.find_spec("wordllama").origin).parent
        from wordllama import WordLlama
        model = WordLlama.load(cache_dir=folder, disable_download=True)
        print(json.dumps(model.embed({TEXTS!r}).tolist()))
    """)
    expected = np.array(json.loads(output), np.float32)
    found = WordLlamaEmbedder().embed(TEXTS, role="document")
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_offline_and_without_importing_the_package() -> None:
    output = run("""
        import logging, socket, sys
        def refuse(*args, **kwargs):
            raise AssertionError("network use")
        socket.socket.__init__ = refuse
        socket.create_connection = refuse
        socket.getaddrinfo = refuse
        from warpmem.embed.wordllama import WordLlamaEmbedder
        before = list(logging.getLogger().handlers)
        assert "tokenizers" not in sys.modules
        embedder = WordLlamaEmbedder()
        assert "tokenizers" not in sys.modules, "loaded before the first use"
        print(embedder.embed(["hello"], role="query").shape)
        foreign = {"wordllama", "requests", "pydantic", "huggingface_hub", "torch"} & set(sys.modules)
        assert not foreign, foreign
        assert logging.getLogger().handlers == before
    """)
    assert output.strip() == "(1, 256)"


def test_long_text_is_the_mean_over_chunks() -> None:
    embedder = WordLlamaEmbedder()
    embedder.embed(["load"], role="document")
    text = "memory of an agent " * 20_000
    tracemalloc.start()
    found = embedder.embed([text], role="document")[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    table, tokenizer = embedder._model or (None, None)
    assert table is not None
    assert tokenizer is not None
    ids = tokenizer.ids(text, {})
    assert len(ids) > 4 * wordllama._CHUNK
    np.testing.assert_allclose(found, table[ids].mean(axis=0, dtype=np.float64), rtol=0, atol=1e-4)
    assert peak < 40e6, (
        f"{peak / 1e6:.0f} MB for {len(ids)} tokens; all their rows would take {len(ids) / 1e3:.0f} MB"
    )


def loaded() -> wordllama._Tokenizer:
    embedder = WordLlamaEmbedder()
    embedder.embed(["load"], role="document")
    assert embedder._model is not None
    return embedder._model.tokenizer


def of_the_library(tokenizer: wordllama._Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer._whole.encode(text, add_special_tokens=False).ids
    return ids


def test_a_space_stands_in_no_token_but_at_its_beginning() -> None:
    tokenizer = loaded()
    tokens = tokenizer._whole.get_vocab()
    assert [token for token in tokens if "\u2581" in token.lstrip("\u2581")] == []
    words = [token for token in tokens if token.startswith("\u2581") and len(token) > 1]
    assert len(words) > 10_000
    wrong = [word for word in words if of_the_library(tokenizer, word[1:]) != [tokens[word]]]
    assert wrong == [], "words that are one token of the vocabulary and others of the library"


def test_tokens_word_by_word_are_the_librarys() -> None:
    tokenizer, rng = loaded(), random.Random(7)
    pieces = [
        "a", "B", "the", " you", " ", "  ", "\u2581", "<s>", "</s>", "<unk>", "<", "<0x0A>", "\n", "\t",
        "\x00", "'m", ".", "...", "1", "23", "\u00e9", "a\u0300", "\ufb01", "\u65e5\u672c", "\U0001f600",
        "\u200b", "motivated", " Joanna",
    ]  # fmt: skip
    known: dict[str, list[int]] = {}
    for _ in range(5_000):
        text = "x" + "".join(rng.choices(pieces, k=rng.randrange(1, 40)))
        assert tokenizer.ids(text, known) == of_the_library(tokenizer, text), repr(text)
    for text in (" both ends ", "\u65e5" * (wordllama._SHORT + 1), "many words " * wordllama._SHORT):
        assert tokenizer.ids(text, {}) == of_the_library(tokenizer, text)


def test_no_word_is_remembered() -> None:
    """The library kept every text that it had taken apart: how fast it was embedded again told others of it,
    and what was erased stayed there."""
    tokenizer, rng = loaded(), random.Random(8)
    parts = ("remember", "important", "something", "conversation", "yesterday", "Wednesday")
    words = ["".join(rng.choices(parts, k=20)) for _ in range(3_000)]

    def seconds() -> float:
        began = time.thread_time()
        for word in words:
            tokenizer.ids(word, {})
        return time.thread_time() - began

    assert seconds() < 2 * seconds()


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\u200b\u200d", "\x00", "\ufeff", "\u3000", "\u202e", "\ud800"]
)
def test_no_token(text: str) -> None:
    assert is_blank(text)
    with pytest.raises(InvalidText, match="text 2 of 2 holds no token"):
        WordLlamaEmbedder().embed(["fine", text], role="document")


def test_same_model_from_many_threads() -> None:
    embedder = WordLlamaEmbedder()
    expected = WordLlamaEmbedder().embed(TEXTS, role="document")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(embedder.embed(TEXTS, role="query"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for rows in found:
        np.testing.assert_array_equal(rows, expected)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordllama.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install wordllama"):
        WordLlamaEmbedder()


def test_missing_and_damaged_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(wordllama.importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(MissingDependency, match="has no weights/l2_supercat_256"):
        WordLlamaEmbedder()
    for name in (wordllama._WEIGHTS, wordllama._TOKENIZER):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(EmbeddingError, match="cannot read the weights"):
        WordLlamaEmbedder().embed(["a"], role="query")


# ---------------------------------------------------------------------------------------- hashing


def test_hashing_is_fixed_forever() -> None:
    """Stored vectors must stay comparable: a change here needs another model_id."""
    embedder = HashingEmbedder(8)
    assert embedder.model_id == "hashing-8-v1"
    assert embedder.embed(["Cat sat"], role="document").tolist() == [
        [0.5, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, -0.5]
    ]
    assert HashingEmbedder().model_id == "hashing-256-v1"


def test_hashing_nearness() -> None:
    rows = HashingEmbedder(1024).embed(["the black cat", "BLACK cats", "quarterly report"], role="document")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.4
    assert abs(unit[0] @ unit[2]) < 0.2


def test_hashing_never_gives_a_zero_row() -> None:
    for dimension in (1, 2):
        rows = HashingEmbedder(dimension).embed([f"w{i} v{i * 7}" for i in range(300)], role="document")
        assert rows.any(axis=1).all()


@pytest.mark.parametrize("dimension", [0, -1, 1.5, True, "8", 1 << 20])
def test_hashing_dimension(dimension: Any) -> None:
    with pytest.raises(InputError, match="dimension must be an integer from 1 to 65536"):
        HashingEmbedder(dimension)


# --------------------------------------------------------------------------------------- callable


def ones(texts: Sequence[str]) -> Any:
    return [[1.0, float(len(text)), 0.0] for text in texts]


def test_callable_with_role() -> None:
    roles: list[str] = []

    def function(texts: list[str], *, role: str) -> Any:
        roles.append(role)
        return np.ones((len(texts), 3))

    embedder = CallableEmbedder(function, "mine", 3)
    embedder.embed(["a"], role="query")
    assert embedder.embed(["a", "b"], role="document").dtype == np.float32
    assert roles == ["query", "document"]
    assert CallableEmbedder(ones, "mine", 3).embed(["ab"], role="query").tolist() == [[1, 2, 0]]


def test_callable_is_not_asked_about_nothing() -> None:
    def function(texts: list[str]) -> Any:
        raise AssertionError

    assert CallableEmbedder(function, "mine", 3).embed([], role="query").shape == (0, 3)


def test_callable_output_is_a_copy() -> None:
    buffer = np.ones((1, 3), np.float32)
    rows = CallableEmbedder(lambda texts: buffer, "mine", 3).embed(["a"], role="query")
    buffer[:] = 7
    assert rows.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (np.ones((1, 3)), "expected 2 rows, one per text, not 1"),
        (np.ones((2, 4)), "expected 3 dimensions, not 4"),
        (np.ones((2, 3, 1)), "not 3"),
        (np.zeros((2, 3)), "row 0 of 2 is all zero"),
        (np.full((2, 3), np.nan), "3 of the 3 values in row 0"),
        ([["a", "b", "c"]] * 2, "must hold real numbers"),
        (None, "not NoneType"),
        ([[1.0], [1.0, 2.0]], "cannot be read as an array"),
    ],
)
def test_callable_bad_output(output: Any, words: str) -> None:
    with pytest.raises(EmbeddingError, match=words) as caught:
        CallableEmbedder(lambda texts: output, "mine", 3).embed(["a", "b"], role="query")
    assert "'mine'" in str(caught.value)


def test_callable_exceptions() -> None:
    def fail(error: BaseException) -> Callable[[list[str]], Any]:
        def function(texts: list[str]) -> Any:
            raise error

        return function

    with pytest.raises(EmbeddingError, match="embedder 'mine' raised OSError") as caught:
        CallableEmbedder(fail(OSError("secret text")), "mine", 3).embed(["a"], role="query")
    assert isinstance(caught.value.__cause__, OSError)
    assert "secret" not in str(caught.value)
    with pytest.raises(DeadlineExceeded):
        CallableEmbedder(fail(DeadlineExceeded("late")), "mine", 3).embed(["a"], role="query")
    with pytest.raises(KeyboardInterrupt):
        CallableEmbedder(fail(KeyboardInterrupt()), "mine", 3).embed(["a"], role="query")


@pytest.mark.parametrize(("function", "model_id", "dimension"), [(1, "m", 3), (ones, "", 3), (ones, "m", 0)])
def test_callable_arguments(function: Any, model_id: str, dimension: int) -> None:
    with pytest.raises(InputError):
        CallableEmbedder(function, model_id, dimension)


# ---------------------------------------------------------------------------------------- vectors


class Tensor:
    """Speaks DLPack and nothing else."""

    def __init__(self, array: Any, error: Exception | None = None) -> None:
        self.array = array
        self.error = error

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Arrayish:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([[1, 2, 3]], dtype)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        [[1, 2, 3]],
        [np.array([1, 2, 3])],
        np.array([1, 2, 3], np.float16),
        np.array([[1, 2, 3]], np.float64),
        np.array([1, 2, 3], np.uint8),
        np.array([[1, 2, 3]], ">f8"),
        np.array([[1, 9, 2, 9, 3, 9]], np.float32)[:, ::2],
        np.asfortranarray(np.array([[1, 2, 3]], np.float32)),
        Tensor(np.array([[1, 2, 3]], np.float32)),
        Tensor(np.array([1, 2, 3], np.float64)),
        Arrayish(),
    ],
)
def test_vectors_accepted(value: Any) -> None:
    rows = as_vectors(value, 3, "vector")
    assert rows.tolist() == [[1, 2, 3]]
    assert rows.dtype == np.dtype(np.float32)
    assert rows.dtype.isnative
    assert rows.flags.c_contiguous


def test_read_only_array_is_accepted() -> None:
    array = np.ones((2, 3))
    array.flags.writeable = False
    assert as_vectors(array, 3, "vector").shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "vector: expected 3 dimensions, not 2"),
        (np.ones((2, 768)), "expected 3 dimensions, not 768"),
        ([], "expected 3 dimensions, not 0"),
        (5.0, "must have 1 or 2 axes .* not 0"),
        (np.ones((1, 1, 3)), "must have 1 or 2 axes .* not 3"),
        (None, "not NoneType"),
        ("abc", "not str"),
        (["a", "b", "c"], "must hold real numbers, not str"),
        ([True, False, True], "must hold real numbers, not bool"),
        ([1j, 0, 0], "must hold real numbers, not complex128"),
        ([None, 1, 2], "must hold real numbers, not object"),
        ([[1, 2, 3], [1, 2]], "list cannot be read as an array"),
        (object(), "must hold real numbers, not object"),
        ([1, float("nan"), float("inf")], "2 of the 3 values in row 0 are NaN"),
        ([[1, 2, 3], [1e300, 1, 1]], "1 of the 3 values in row 1"),
        ([[1, 2, 3], [0, 0, 0]], "row 1 of 2 is all zero"),
        ([[1e-60, 0, 0]], "row 0 of 1 is all zero in float32"),
        (Tensor(None, BufferError("on a GPU")), "Tensor cannot be read .* move tensors to the CPU"),
        (Tensor(None, RuntimeError("needs grad")), "Tensor cannot be read"),
    ],
)
def test_vectors_refused(value: Any, words: str) -> None:
    with pytest.raises(InvalidVector, match=words):
        as_vectors(value, 3, "vector")
