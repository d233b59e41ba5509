"""Token counters: an estimate that needs nothing, and any Hugging Face tokenizer.json."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

from ..errors import InputError, InvalidText, MissingDependency
from ..ops.model_files import keep_no_texts

_PIECE = re.compile(r"(?P<word>[A-Za-z0-9]+)|(?P<gap> +(?=[A-Za-z]))|(?P<space> +)|(?P<other>.)", re.DOTALL)
_CASE = re.compile(r"[a-z]+|[A-Z]+[a-z]*")


class EstimateTokenCounter:
    """A count from the characters alone that errs on the high side.

    It is meant never to fall below a subword tokenizer of 32,000 pieces or more on ordinary text, and is
    checked against Llama 2's, among the most talkative in use: English comes out 1.5 to 2 times as long as
    there, other languages 1 to 3 times. Random strings of lower-case letters can need more tokens
    than estimated. Where the budget matters, use TokenizerCounter with the model's own tokenizer.

    Costs in tokens: lower-case words of n ASCII letters, ceil(n / 3); capitalised ones, ceil(n / 2); strings
    with digits and ASCII punctuation, one per character; a run of n spaces, n, or n - 1 before a letter;
    other Latin-1 characters, Greek, Cyrillic and kana, 1 each; everything else its UTF-8 bytes.
    """

    name = "estimate"

    def count(self, text: str) -> int:
        """Tokens of `text`; 0 for the empty string. Thread-safe."""
        if not text:
            return 0
        total = 1  # a tokenizer may put a start piece in front
        for match in _PIECE.finditer(text):
            length = match.end() - match.start()
            kind = match.lastgroup
            if kind == "gap":
                total += length - 1
            elif kind == "word":
                total += _word_cost(match[0])
            elif kind == "space":
                total += length
            else:
                total += _character_cost(match[0])
        return total


def _word_cost(word: str) -> int:
    if word.islower() and word.isalpha():
        return -(-len(word) // 3)
    if not word.isalpha():
        return len(word)
    return sum(-(-len(part) // (3 if part.islower() else 2)) for part in _CASE.findall(word))


def _character_cost(character: str) -> int:
    code = ord(character)
    if code < 0x100 or 0x370 <= code < 0x530 or 0x3040 <= code < 0x3100:  # Latin-1, Greek, Cyrillic, kana
        return 1
    if code < 0x800:
        return 2
    return 3 if code < 0x10000 else 4


def tokenizer_file(path: str) -> Path:
    """The tokenizer.json that `path` is or has in it. Raises InputError when there is none."""
    file = Path(path)
    if file.is_dir():
        file /= "tokenizer.json"
    if not file.is_file():
        raise InputError(f"tokenizer {path!r}: no such file; give a tokenizer.json or its folder")
    return file


class TokenizerCounter:
    """Counts with the tokenizer of a tokenizer.json file, special tokens left out. Thread-safe.

    `name` identifies it in results; by default the file's name. The file is read at the first count.
    Raises MissingDependency without the tokenizers package, InputError when the file is not a tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self._path = Path(path)
        self._name = name or self._path.name
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    @property
    def name(self) -> str:
        return self._name

    def count(self, text: str) -> int:
        """Tokens of `text`. Raises InvalidText when it is not valid Unicode."""
        if not text:
            return 0
        tokenizer = self._tokenizer or self._load()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidText(f"lone surrogate at character {error.start}, not valid Unicode") from None
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    def _load(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency("TokenizerCounter needs: python -m pip install tokenizers") from error
        with self._lock:
            if self._tokenizer is None:
                try:
                    source = self._path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise InputError(f"cannot read the tokenizer file {str(self._path)!r}") from error
                try:
                    tokenizer = Tokenizer.from_str(source)
                except Exception as error:  # tokenizers raises bare Exception for bad JSON
                    raise InputError(f"{str(self._path)!r} is not a tokenizer.json") from error
                tokenizer.no_padding()
                tokenizer.no_truncation()
                keep_no_texts(tokenizer)
                self._tokenizer = tokenizer
            return self._tokenizer
