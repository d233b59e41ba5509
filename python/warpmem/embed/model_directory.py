"""A local directory of a sentence-embedding model, as sentence-transformers or transformers save it: what its
configuration files say about texts on their way in and vectors on their way out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import InputError, MissingDependency, NotSupported
from .texts import check_texts

Pooling = Literal["mean", "cls", "lasttoken"]

_MODES: Final[dict[str, Pooling]] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "lasttoken": "lasttoken",
}
_QUERY_PROMPTS: Final = ("query",)
_DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")


class SentenceModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's own files say.

    max_tokens   of one text, the special ones included; what is longer is cut
    pooling      how token vectors become one: their mean, the first, or the last
    normalize    divide by the length
    prefix       put before every text of a role
    """

    folder: Path
    dimension: int
    max_tokens: int
    pooling: Pooling
    normalize: bool
    lower: bool
    pad_id: int
    prefix: dict[str, str]

    def model_id(self, kind: str, weights: Sequence[Path]) -> str:
        """`kind`, the folder's name, and a digest of weights, tokenizer and all that decides vectors."""
        state = hashlib.blake2b(digest_size=8)
        for file in (*weights, self.folder / "tokenizer.json"):
            with file.open("rb") as stream:
                state.update(hashlib.file_digest(stream, "blake2b").digest())
        state.update(
            msgspec.json.encode((self.max_tokens, self.pooling, self.lower, sorted(self.prefix.items())))
        )
        return f"{kind}:{self.folder.name}:{state.hexdigest()}"


def read_sentence_model(
    folder: str | os.PathLike[str], query_prefix: str | None = None, document_prefix: str | None = None
) -> SentenceModel:
    """The model in `folder`, with prefixes other than its own where they are given.

    Raises InputError when the folder is none, and NotSupported when its vectors need more than mean, cls or
    last-token pooling and normalisation.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise InputError(f"path must be the path of a model directory, not {type(folder).__name__}")
    root = Path(folder).resolve()
    if not (root / "tokenizer.json").is_file() or not (root / "config.json").is_file():
        raise InputError(
            f"{os.fspath(folder)!r} is no model directory: it lacks config.json or tokenizer.json"
        )
    config = _read(root / "config.json")
    encoder = _read(root / "sentence_bert_config.json")
    pooling, normalize = _modules(root)
    prompts = _read(root / "config_sentence_transformers.json").get("prompts") or {}
    prefix = {
        "query": _prompt(prompts, _QUERY_PROMPTS) if query_prefix is None else query_prefix,
        "document": _prompt(prompts, _DOCUMENT_PROMPTS) if document_prefix is None else document_prefix,
    }
    if not all(isinstance(text, str) for text in prefix.values()):
        raise InputError("query_prefix and document_prefix must be strings")
    lengths = (
        encoder.get("max_seq_length"),
        config.get("max_position_embeddings"),
        _read(root / "tokenizer_config.json").get("model_max_length"),
    )
    dimension = config.get("hidden_size")
    if not isinstance(dimension, int) or not 1 <= dimension <= MAX_DIMENSION:
        raise InputError(f"{os.fspath(folder)!r}: config.json has no usable hidden_size")
    return SentenceModel(
        folder=root,
        dimension=dimension,
        max_tokens=min((n for n in lengths if isinstance(n, int) and n > 0), default=512),
        pooling=pooling,
        normalize=normalize,
        lower=bool(encoder.get("do_lower_case")),
        pad_id=config.get("pad_token_id") or 0,
        prefix=prefix,
    )


class Texts:
    """A model's tokenizer. Thread-safe."""

    def __init__(self, model: SentenceModel, what: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency(
                f"the embedder {what!r} needs: python -m pip install tokenizers"
            ) from error
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
        except Exception as error:  # the library raises Exception itself
            raise InputError(f"{str(model.folder)!r}: tokenizer.json cannot be read") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(model.max_tokens)
        self._model = model

    def batches(
        self, texts: Sequence[str], role: str, batch: int
    ) -> Iterator[tuple[list[int], NDArray[np.int64], NDArray[np.int64]]]:
        """(places, ids, mask) of at most `batch` texts each, of like length so that little is padding; ids
        and mask are (n, length), padded on the right. Raises InvalidText."""
        prefix = self._model.prefix[role]
        checked = [prefix + text for text in check_texts(texts)]
        if self._model.lower:
            checked = [text.lower() for text in checked]
        encodings = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(checked)]
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i]))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            length = max(len(encodings[i]) for i in places)
            ids = np.full((len(places), length), self._model.pad_id, np.int64)
            mask = np.zeros((len(places), length), np.int64)
            for row, i in enumerate(places):
                ids[row, : len(encodings[i])] = encodings[i]
                mask[row, : len(encodings[i])] = 1
            yield places, ids, mask


def check_batch(batch: int) -> int:
    """`batch`, if it is a number of texts. Raises InputError."""
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 1 << 16:
        raise InputError(f"batch must be an integer from 1 to {1 << 16}")
    return batch


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} cannot be read as a JSON object") from error


def _modules(root: Path) -> tuple[Pooling, bool]:
    """Pooling and normalisation by modules.json; the mean and none for a plain transformers directory."""
    listing = root / "modules.json"
    if not listing.is_file():
        return "mean", False
    try:
        modules = msgspec.json.decode(listing.read_bytes(), type=list[dict[str, Any]])
    except (OSError, ValueError) as error:
        raise InputError(f"{str(listing)!r} cannot be read as a list of modules") from error
    names = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise NotSupported(
            f"{str(root)!r}: modules {', '.join(names)}; Transformer, Pooling, Normalize are known"
        )
    pooling = _read(root / str(modules[1].get("path", "")) / "config.json")
    modes = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if on is True]
    if isinstance(pooling.get("pooling_mode"), str):
        modes = [pooling["pooling_mode"]]
    modes = [mode for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise NotSupported(
            f"{str(root)!r} has pooling {', '.join(modes)}; mean, cls and lasttoken are known, one of them"
        )
    return _MODES[modes[0]], len(names) == 3


def _prompt(prompts: Any, names: Sequence[str]) -> str:
    """The first of `names` in a model's prompts, or nothing."""
    if isinstance(prompts, dict):
        for name in names:
            if isinstance(prompts.get(name), str):
                return str(prompts[name])
    return ""
