"""Keyed digests: how user text reaches a storage key without standing in it."""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 16


def digest16(salt: bytes, *parts: bytes) -> bytes:
    """16-byte BLAKE2b of the parts, keyed by `salt` (at most 64 bytes); each part is length-prefixed, so
    that no two different lists of parts give the same input."""
    state = hashlib.blake2b(key=salt, digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
