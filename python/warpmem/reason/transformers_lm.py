"""A chat model run by transformers and PyTorch in this process, from a directory or a GGUF file."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, MissingDependency, ModelError
from ..ops.texts import check_not_empty
from ..types import Message
from .answers import AnsweringModel


class TransformersModel(AnsweringModel):
    """Language model of `path`: a transformers directory with safetensors, or one GGUF file. Thread-safe, one
    answer at a time; needs the extra `torch`, and for GGUF the packages gguf and accelerate.

    device      torch's name: "cpu", "cuda", "cuda:1"; None is "cuda" where torch sees one, else "cpu"
    dtype       of weights and arithmetic: "float32", "float16" or "bfloat16"; GGUF is brought to it
    model_id    None: the name of the directory or file

    Answers are the likeliest token each time, so the same question gets the same answer. A schema is told in
    the messages. No code of the model's is run, and its control tokens in a message's text are taken apart.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        model_id: str | None = None,
    ) -> None:
        if dtype not in ("float32", "float16", "bfloat16"):
            raise InputError("dtype must be 'float32', 'float16' or 'bfloat16'")
        super().__init__(schema_in_prompt=True)
        source = _source(path)
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingDependency(
                "the language model 'transformers' needs PyTorch and transformers: "
                "python -m pip install 'warpmem[torch]'"
            ) from error
        self._torch: Any = torch
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(**source)
            network = AutoModelForCausalLM.from_pretrained(**source, use_safetensors=True)
            self._network: Any = network.to(device=self._device, dtype=getattr(torch, dtype)).eval()
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise ModelError(
                f"{os.fspath(path)!r} cannot be loaded on {self._device!r}: {type(error).__name__}"
            ) from error
        if not self._tokenizer.chat_template:
            raise InputError(f"{os.fspath(path)!r} is no chat model: it has no chat template")
        self._most = int(getattr(self._network.config, "max_position_embeddings", 0) or 1 << 20)
        self._controls = [token for token in self._tokenizer.get_added_vocab() if len(token) > 1]
        self._model_id = (
            f"transformers:{Path(path).resolve().name}"
            if model_id is None
            else check_not_empty(model_id, "model_id")
        )
        self._lock = threading.Lock()

    @property
    def model_id(self) -> str:
        return self._model_id

    def _ask(self, messages: list[Message], schema: Mapping[str, Any] | None, max_tokens: int) -> str:
        chat = [{"role": m.role, "content": taken_apart(m.content, self._controls)} for m in messages]
        try:
            with self._lock, self._torch.inference_mode():
                return self._generate(chat, max_tokens)
        except ModelError:
            raise
        except Exception as error:  # foreign code: whatever it raises, it failed
            raise ModelError(f"{self._model_id!r}: transformers raised {type(error).__name__}") from error

    def _generate(self, chat: list[dict[str, str]], max_tokens: int) -> str:
        tokens = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"].to(self._device)
        length = int(tokens.shape[1])
        if length >= self._most:
            raise ModelError(
                f"{self._model_id!r} takes {self._most} tokens, question and answer together, "
                f"and the question has {length}"
            )
        output = self._network.generate(
            input_ids=tokens,
            attention_mask=self._torch.ones_like(tokens),
            max_new_tokens=min(max_tokens, self._most - length),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        text: str = self._tokenizer.decode(output[0, length:], skip_special_tokens=True)
        if not text:
            raise ModelError(f"{self._model_id!r} answered without text")
        return text


def taken_apart(text: str, controls: Iterable[str]) -> str:
    """The text with a zero-width space inside each of a tokenizer's control tokens, so that what someone
    wrote never ends a message or begins another."""
    for token in controls:
        text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
    return text


def _source(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Where transformers finds tokenizer and network. Raises InputError, MissingDependency."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path must be a path, not {type(path).__name__}")
    found = Path(path).resolve()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if found.suffix == ".gguf" and found.is_file():
        missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingDependency(f"a GGUF file needs: python -m pip install {' '.join(missing)}")
        return {"pretrained_model_name_or_path": str(found.parent), "gguf_file": found.name, **local}
    if not (found / "config.json").is_file() or not any(found.glob("*.safetensors")):
        raise InputError(
            f"{os.fspath(path)!r} is neither a GGUF file nor a directory with config.json and .safetensors"
        )
    return {"pretrained_model_name_or_path": str(found), **local}
