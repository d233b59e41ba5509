"""What the files of a model directory say, and its tokenizer's batches: for embedders and rerankers alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingDependency
from ..types.scalars import integer


def model_folder(path: str | os.PathLike[str]) -> Path:
    """The directory of a model. Raises InputError unless it holds config.json and tokenizer.json."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path must be the path of a model directory, not {type(path).__name__}")
    root = Path(path).resolve()
    if not (root / "tokenizer.json").is_file() or not (root / "config.json").is_file():
        raise InputError(f"{os.fspath(path)!r} is no model directory: it lacks config.json or tokenizer.json")
    return root


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises InputError."""
    if not file.is_file():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} cannot be read as a JSON object") from error


def longest_text(root: Path, config: dict[str, Any], *own: Any) -> int:
    """Tokens of the longest text by config.json, tokenizer_config.json and what is `own`; else 512."""
    lengths = (
        *own,
        config.get("max_position_embeddings"),
        read_object(root / "tokenizer_config.json").get("model_max_length"),
    )
    return min((n for n in lengths if isinstance(n, int) and n > 0), default=512)


def digest(files: Sequence[Path], settings: Any) -> str:
    """16 hexadecimal digits of what `files` hold, in their order, and of `settings` (as JSON)."""
    state = hashlib.blake2b(digest_size=8)
    for file in files:
        with file.open("rb") as stream:
            state.update(hashlib.file_digest(stream, "blake2b").digest())
    state.update(msgspec.json.encode(settings))
    return state.hexdigest()


def load_tokenizer(root: Path, max_tokens: int, what: str) -> Any:
    """The tokenizer of the directory, which cuts what is longer than `max_tokens` and pads nothing.

    Raises MissingDependency, in the name of `what`, and InputError.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency(f"{what} needs: python -m pip install tokenizers") from error
    try:
        tokenizer: Any = Tokenizer.from_file(str(root / "tokenizer.json"))
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{str(root)!r}: tokenizer.json cannot be read") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    keep_no_texts(tokenizer)
    return tokenizer


def keep_no_texts(tokenizer: Any) -> None:
    """Have a tokenizer of the library keep nothing of the texts that it takes apart. Else it keeps up to
    10,000 of them in each thread, of whoever they are: gigabytes where many threads ask, and what was erased
    stays there."""
    getattr(tokenizer.model, "_resize_cache", lambda _: None)(0)


def check_batch(batch: int) -> int:
    """`batch`, if it is a number of texts. Raises InputError."""
    return integer(batch, "batch", 1, 1 << 16)


def like_lengths(rows: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """The places of `rows`, at most `batch` at a time, those of like length together: little is padding."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def padded(rows: Sequence[Sequence[int]], fill: int) -> NDArray[np.int64]:
    """(n, longest) int64, `fill` on the right."""
    out = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
