"""A local directory of a sentence-embedding model, as sentence-transformers or transformers save it: what its
configuration files say about texts on their way in and vectors on their way out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import MAX_DIMENSION
from ..errors import InputError, NotSupported
from ..ops import model_files
from ..ops.model_files import read_object
from .texts import check_texts, estimated_tokens

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

    def token_costs(self, texts: Sequence[str]) -> list[int]:
        """What each text costs (protocols.Embedder): what is cut costs nothing."""
        return [min(tokens, self.max_tokens) for tokens in estimated_tokens(texts)]

    def model_id(self, kind: str, weights: Sequence[Path]) -> str:
        """`kind`, the folder's name, and a digest of weights, tokenizer and all that decides vectors."""
        settings = (self.max_tokens, self.pooling, self.lower, sorted(self.prefix.items()))
        state = model_files.digest((*weights, self.folder / "tokenizer.json"), settings)
        return f"{kind}:{self.folder.name}:{state}"


def read_sentence_model(
    folder: str | os.PathLike[str], query_prefix: str | None = None, document_prefix: str | None = None
) -> SentenceModel:
    """The model in `folder`, with prefixes other than its own where they are given.

    Raises InputError when the folder is none, and NotSupported when its vectors need more than mean, cls or
    last-token pooling and normalisation.
    """
    root = model_files.model_folder(folder)
    config = read_object(root / "config.json")
    encoder = read_object(root / "sentence_bert_config.json")
    pooling, normalize = _modules(root)
    prompts = read_object(root / "config_sentence_transformers.json").get("prompts") or {}
    prefix = {
        "query": _prompt(prompts, _QUERY_PROMPTS) if query_prefix is None else query_prefix,
        "document": _prompt(prompts, _DOCUMENT_PROMPTS) if document_prefix is None else document_prefix,
    }
    if not all(isinstance(text, str) for text in prefix.values()):
        raise InputError("query_prefix and document_prefix must be strings")
    dimension = config.get("hidden_size")
    if not isinstance(dimension, int) or not 1 <= dimension <= MAX_DIMENSION:
        raise InputError(f"{os.fspath(folder)!r}: config.json has no usable hidden_size")
    return SentenceModel(
        folder=root,
        dimension=dimension,
        max_tokens=model_files.longest_text(root, config, encoder.get("max_seq_length")),
        pooling=pooling,
        normalize=normalize,
        lower=bool(encoder.get("do_lower_case")),
        pad_id=config.get("pad_token_id") or 0,
        prefix=prefix,
    )


class Texts:
    """A model's tokenizer. Thread-safe."""

    def __init__(self, model: SentenceModel, what: str) -> None:
        self._tokenizer = model_files.load_tokenizer(model.folder, model.max_tokens, f"the embedder {what!r}")
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
        for places in model_files.like_lengths(encodings, batch):
            rows = [encodings[i] for i in places]
            ids = model_files.padded(rows, self._model.pad_id)
            yield places, ids, model_files.padded([[1] * len(row) for row in rows], 0)


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
    pooling = read_object(root / str(modules[1].get("path", "")) / "config.json")
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
