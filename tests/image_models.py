"""Models of images that need no weights: what colours a picture has, and where. Pictures are PPM (P6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warpmem.errors import InputError
from warpmem.types import Media

RED, GREEN, BLUE, GREY = (220, 20, 20), (20, 200, 30), (20, 30, 210), (120, 120, 120)
_NAMES = {"red": RED, "green": GREEN, "blue": BLUE, "grey": GREY}
_GRID = 2


def picture(*colours: tuple[int, int, int], size: int = 8, seed: int | None = None) -> bytes:
    """A picture of vertical bars, with a little noise if seeded."""
    pixels = np.repeat(np.array(colours, np.float64), size, axis=0)[None, :, :].repeat(size, axis=0)
    if seed is not None:
        pixels = pixels + np.random.default_rng(seed).uniform(-9, 9, pixels.shape)
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


class ColourEmbedder:
    """A MediaEmbedder: mean colour and spread of each cell of a grid."""

    model_id = "colours-2"
    dimension = 6 * _GRID * _GRID

    def __init__(self) -> None:
        self.seen: list[Media] = []

    def embed_media(
        self, media: Sequence[Media], *, role: Literal["document", "query"]
    ) -> NDArray[np.float32]:
        self.seen += media
        return np.stack([self._features(one) for one in media])

    def _features(self, media: Media) -> NDArray[np.float32]:
        if media.data is None:
            raise InputError("this model fetches nothing: give the bytes of the image")
        head, _, rest = media.data.partition(b"\n255\n")
        if not head.startswith(b"P6\n"):
            raise InputError("not a picture in PPM")
        width, height = map(int, head[3:].split())
        pixels = np.frombuffer(rest, np.uint8, width * height * 3).reshape(height, width, 3) / 255.0
        cells = [cell for row in np.array_split(pixels, _GRID) for cell in np.array_split(row, _GRID, axis=1)]
        found = [np.concatenate([cell.mean((0, 1)), cell.std((0, 1))]) for cell in cells]
        return (np.concatenate(found) + 1e-3).astype(np.float32)


class ColourTextEmbedder(ColourEmbedder):
    """One that also knows some words for colours."""

    model_id = "colours-and-words-2"

    def embed(self, texts: Sequence[str], *, role: Literal["document", "query"]) -> Any:
        rows = []
        for text in texts:
            named = [colour for name, colour in _NAMES.items() if name in text] or [(1, 1, 1)]
            rows.append(self._features(Media(data=picture(*named[:1]))))
        return np.stack(rows)
