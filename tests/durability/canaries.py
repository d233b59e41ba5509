"""Strings and vectors that stand for somebody's data, and where any of their bytes still are."""

from __future__ import annotations

import base64
import gc
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = frozenset((str, bytes, bytearray, memoryview, np.ndarray))


class Canaries:
    """Random strings by name. Kept backwards, so that looking for one does not find this."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._backwards: dict[str, str] = {}
        self._vectors: list[bytes] = []

    def word(self, name: str) -> str:
        """A string of 24 letters, the same for the same name."""
        if name not in self._backwards:
            self._backwards[name] = "".join(self._rng.choices("bcdfghjklmnpqrstvwxz", k=24))
        return self._backwards[name][::-1]

    def note(self, vector: NDArray[np.float32]) -> None:
        """Look for the bytes of this vector too."""
        self._vectors.append(vector.tobytes()[::-1])

    def forget(self, *names: str) -> None:
        """Do not look for these."""
        for name in names:
            del self._backwards[name]

    def patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[str]]:
        words = [backwards[::-1] for backwards in self._backwards.values()]
        needles = [backwards[::-1] for backwards in self._vectors]
        for word in words:
            raw = word.encode()
            needles += [raw, raw[::-1], word.encode("utf-16-le"), raw.hex().encode()]
            for shift in range(3):  # base64 of anything that holds the word, less what its neighbours decide
                needles.append(base64.b64encode(bytes(shift) + raw)[4:-4])
        return re.compile(b"|".join(map(re.escape, needles))), re.compile("|".join(words))

    def in_files(self, folder: Path) -> list[str]:
        """Names of the files that hold any of them."""
        pattern, _ = self.patterns()
        return sorted(
            path.name for path in folder.rglob("*") if path.is_file() and pattern.search(path.read_bytes())
        )

    def in_objects(self) -> list[str]:
        """Types of the Python objects that hold any of them, and of those who hold these."""
        in_bytes, in_text = self.patterns()
        mine = {id(in_bytes.pattern), id(in_text.pattern)}
        gc.collect()
        return [
            f"{type(value).__name__} in {type(holder).__name__}"
            for holder, value in _leaves(gc.get_objects())
            if id(value) not in mine and _holds(value, in_bytes, in_text)
        ]


def _leaves(objects: list[Any]) -> Iterator[tuple[Any, Any]]:
    """(holder, value) of strings and buffers that the objects refer to, each value once. Between them may
    stand what the collector does not track, such as tuples of strings."""
    seen: set[int] = set()
    holders = objects
    while holders:
        holder = holders.pop()
        for value in gc.get_referents(holder):
            if id(value) in seen:
                continue
            if type(value) in _KINDS:
                seen.add(id(value))
                yield holder, value
            elif not gc.is_tracked(value):
                seen.add(id(value))
                holders.append(value)


def _holds(value: Any, in_bytes: re.Pattern[bytes], in_text: re.Pattern[str]) -> bool:
    if isinstance(value, str):
        return in_text.search(value) is not None
    if type(value) is np.ndarray:
        if value.dtype.hasobject:
            return False
        return in_bytes.search(value.tobytes()) is not None
    return in_bytes.search(value) is not None
