"""Which items and versions an erasure is about, and the marks that say so while it is under way."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from ..ops.ids import KEY_BYTES, owner_of, parse_id
from .codec import VERSION_KEY_BYTES, history_key, read_version_key
from .erasure_values import ErasureMark

_MARK_KEYS: Final = 4096


class Erased:
    """All of some owners, some other items, and some past versions of items that stay. Contains ids and keys
    of the items that go."""

    def __init__(
        self,
        owners: Collection[int],
        keys: Collection[bytes],
        versions: Mapping[bytes, Collection[int]] | None = None,
    ) -> None:
        self.owners = frozenset(owners)
        self.keys = frozenset(key for key in keys if owner_of(key) not in self.owners)
        self.versions = {key: frozenset(some) for key, some in (versions or {}).items() if key not in self}

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            try:
                name = parse_id(name)
            except LookupError:
                return False
        return isinstance(name, bytes) and (owner_of(name) in self.owners or name in self.keys)

    def __bool__(self) -> bool:
        return bool(self.owners or self.keys or self.versions)

    def has_version(self, key: bytes, version: int) -> bool:
        """Whether a past version goes of an item that stays."""
        return version in self.versions.get(key, ())

    def marks(self, at: int, *, late: bool) -> Iterator[ErasureMark]:
        """What says so in the store: one mark or more, none of them large. late: as in ErasureMark."""
        keys = _joined(sorted(self.keys))
        versions = _joined(
            sorted(history_key(key, version) for key, some in self.versions.items() for version in some)
        )
        parts = itertools.zip_longest(keys, versions, fillvalue=b"")
        for number, (names, past) in enumerate(itertools.chain([next(parts, (b"", b""))], parts)):
            whole = tuple(sorted(self.owners)) if number == 0 else ()
            yield ErasureMark(at, whole, names, False, past, late)


def marked(marks: Iterable[ErasureMark]) -> Erased:
    """What some marks name."""
    owners: set[int] = set()
    keys: set[bytes] = set()
    versions: list[bytes] = []
    for mark in marks:
        owners.update(mark.owners)
        keys.update(_parted(mark.keys, KEY_BYTES))
        versions.append(mark.versions)
    return Erased(owners, keys, by_item(versions))


def by_item(names: Iterable[bytes]) -> dict[bytes, set[int]]:
    """Keys of family history, as marks have them, as versions by the key of their item."""
    versions: dict[bytes, set[int]] = {}
    for some in names:
        for name in _parted(some, VERSION_KEY_BYTES):
            key, version = read_version_key("history", name)
            versions.setdefault(key, set()).add(version)
    return versions


def _joined(names: list[bytes]) -> Iterator[bytes]:
    """Names one after the other, as many as a mark holds."""
    for start in range(0, len(names), _MARK_KEYS):
        yield b"".join(names[start : start + _MARK_KEYS])


def _parted(names: bytes, size: int) -> Iterator[bytes]:
    return (names[at : at + size] for at in range(0, len(names), size))
