"""Paths of metadata keys, as filters, columns and streams of training texts name them.

path = part {"." part}                  a.b is what stands under b in the object under a
part = a key, of at least one character, that holds no period and begins with no quotation mark
     | any key as a JSON string         "http.status".code, with the quotation marks
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

_PART: Final = re.compile(r'("(?:[^"\\]|\\.)*"|[^".][^.]*)(\.|\Z)', re.DOTALL)


def keys_of(path: str) -> tuple[str, ...] | None:
    """The keys of a path, from the outside in; None for what is no path."""
    keys: list[str] = []
    at, more = 0, True
    while more:
        part = _PART.match(path, at)
        if part is None:
            return None
        at, more, key = part.end(), part[2] == ".", part[1]
        if key[0] == '"':
            try:
                key = json.loads(key)
            except ValueError:
                return None
        keys.append(key)
    return tuple(keys)


def path_of(keys: Iterable[str]) -> str:
    """The path of keys; of the same keys always the same."""
    return ".".join(
        json.dumps(key, ensure_ascii=False) if not key or "." in key or key[0] == '"' else key for key in keys
    )
