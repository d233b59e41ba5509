"""A new item that passed every check, on its way into the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..types import Media, MemoryItem
from .digests import scope_ids
from .spaces import OtherSpace


class Checked(msgspec.Struct, frozen=True):
    """A new item that passed every check, whether valid_from was named, and the vector it came with. space:
    where it goes; None: to the texts. media: what is embedded instead of the text."""

    item: MemoryItem
    valid_from_given: bool
    vector: Any
    space: OtherSpace | None = None
    media: Media | None = None


def content(entry: Checked) -> list[Any]:
    """What identifies an added item's content, in an order that is never changed: the fields a caller gives.

    Times that default to now, what the store sets, and vectors that are embedded are left out.
    """
    item = entry.item
    return [
        scope_ids(item.scope),
        item.kind,
        item.text,
        item.modality,
        item.blob,
        item.metadata,
        item.priority,
        item.key,
        item.entities,
        item.sources,
        item.trust,
        _plain(item.valid_from) if entry.valid_from_given else None,
        _plain(item.valid_to),
        _plain(item.expires_at),
        None if entry.vector is None else entry.vector.tobytes(),
    ]


def _plain(when: datetime | None) -> datetime | None:
    """Without what subclasses such as those of pandas and pendulum add: encoders take no other."""
    if when is None or type(when) is datetime:
        return when
    return datetime.combine(when.date(), when.time(), when.tzinfo)


def embed_elsewhere(space: OtherSpace, checked: Sequence[Checked]) -> NDArray[np.float32]:
    """(n, dimension) float32, normalised, in another space."""
    out = np.empty((len(checked), space.dimension), np.float32)
    owners = [(entry.item.scope.owner,) for entry in checked]
    given = [i for i, entry in enumerate(checked) if entry.vector is not None]
    shown = [i for i, entry in enumerate(checked) if entry.media is not None]
    told = [i for i, entry in enumerate(checked) if entry.vector is None and entry.media is None]
    for i in given:
        out[i] = checked[i].vector
    if shown:
        media = [entry.media for entry in checked if entry.media is not None]
        out[shown] = space.of_media(media, "document", [owners[i] for i in shown])
    if told:
        out[told] = space.of_texts([checked[i].item.text for i in told], [owners[i] for i in told])
    return space.normalize(out)
