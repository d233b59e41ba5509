"""What comes from what is to be erased: other items, and past versions of items that stay."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Set
from typing import Final

from ..ops.derivation import Derived, reaching
from ..ops.ids import KEY_BYTES, format_id, is_id, origins, parse_id
from ..ops.naming import Naming
from ..protocols import Engine
from ..records import NEVER, Descent
from . import codec
from .erased import Erased
from .values import HistoryValue, ItemValue, decode, encode

_FAMILIES: Final = ("items", "history")
_NO_ORIGINS: Final[Mapping[bytes, bool]] = {}


class Descendants:
    """Looks for them in the records of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, owners: Collection[int], keys: Collection[bytes]) -> Descent:
        """As Erasures.derived()."""
        gone = Erased(owners, keys)
        reached = self._reached(gone)
        held = {key: self._held(key, named, gone, reached) for key, named in reached.items()}
        left = reaching(held)
        only = {key for key, much in left.items() if not much}
        found = Erased(owners, [*keys, *only])
        partly = {
            key for key in left if key not in only and any(name in found for name in self._all_sources(key))
        }
        versions, ended = self._versions_of(partly, found)
        return Descent(only, partly, versions, self._telling(ended, found))

    def _reached(self, gone: Erased) -> dict[bytes, bool]:
        """Items with a version that names what is gone, or what comes from it and no origin holds; and
        whether an origin of their own holds them."""
        # Most items are newer than what they come from, so one walk finds them and has to keep nothing of the
        # others. What comes from newer ones is looked at again among the sources of all, in a second one.
        reached: dict[bytes, bool] = {}
        newer, every = Naming(), Naming()
        self._walk(gone, reached, newer.add_newer)
        named = (key for source, held in reached.items() if not held for key in newer.of(source))
        if all(reached.get(key) is False for key in named):
            return reached
        self._walk(gone, reached, every.add)
        waiting = [key for key, held in reached.items() if not held]
        while waiting:
            for key in every.of(waiting.pop()):
                if reached.get(key) is not False:
                    self._look(key, gone, reached)
                    if not reached[key]:
                        waiting.append(key)
        return reached

    def _walk(
        self, gone: Erased, reached: dict[bytes, bool], named: Callable[[bytes, bytes], object]
    ) -> None:
        """Look at all items by their keys, those behind what they come from with what that is found to be.
        named: called with each source of the others, and their key."""
        for key, versions in _all_versions(self._engine):
            if key in gone:
                continue
            names = {name for item in versions for name in item.sources}
            sources = [parse_id(name) for name in names if is_id(name)]
            if any(source in gone or reached.get(source) is False for source in sources):
                self._look(key, gone, reached)
            if reached.get(key) is not False:
                for source in sources:
                    named(source, key)

    def _look(self, key: bytes, gone: Erased, reached: dict[bytes, bool]) -> None:
        """Note of an item that is reached whether an origin of its own holds it, as far as that is known."""
        reached[key] = self._has_own_origin(self._sources(key), gone, reached)

    def _has_own_origin(self, names: Set[str], gone: Erased, reached: Mapping[bytes, bool]) -> bool:
        """Whether there is an origin among sources that does not come from what is gone or goes: what is
        derived takes over the origins of what it comes from."""
        own = origins(list(names))
        for source in [parse_id(name) for name in names - own] if own else ():
            if source in gone or reached.get(source) is False:
                own -= origins(list(self._all_sources(source)))
        return bool(own)

    def _held(self, key: bytes, named: bool, gone: Erased, reached: Container[bytes]) -> Derived:
        """An item as reaching() wants it: held by a source that is neither gone nor comes from that."""
        if named:
            return Derived(1.0, 1.0, ())
        sources = {parse_id(name) for name in self._sources(key) if is_id(name) and name not in gone}
        among = [source for source in sources if source in reached]
        return Derived(1.0, float(len(among) < len(sources)), among)

    def _sources(self, key: bytes) -> set[str]:
        """What an item comes from: its current version, or all of them where that names nothing any more, or
        the item was deleted."""
        now = {name for _, item in stored_versions(self._engine, "items", key) for name in item.sources}
        return now or self._all_sources(key)

    def _all_sources(self, key: bytes) -> set[str]:
        return {
            name
            for family in _FAMILIES
            for _, item in stored_versions(self._engine, family, key)
            for name in item.sources
        }

    def _versions_of(
        self, keys: Collection[bytes], found: Erased
    ) -> tuple[dict[bytes, set[int]], dict[bytes, int]]:
        """By item that stays: past versions that come from what goes alone; and until when the last of these
        was known, where what it says is in no version that stays."""
        versions: dict[bytes, set[int]] = {}
        ended: dict[bytes, int] = {}
        for key in keys:
            past = [item for _, item in stored_versions(self._engine, "history", key)]
            named = {frozenset(item.sources) for item in past}  # few, of however many versions
            lost = {names for names in named if self._comes_from(names, found)}
            gone = [item for item in past if frozenset(item.sources) in lost]
            if not gone:
                continue
            numbers = versions[key] = {item.version for item in gone}
            stay = {_said(item) for item in past if item.version not in numbers}
            stay.update(_said(item) for _, item in stored_versions(self._engine, "items", key))
            told = [item.retired_at for item in gone if _said(item) not in stay]
            if told:
                ended[key] = max(told)
        return versions, ended

    def _comes_from(self, names: Set[str], found: Erased) -> bool:
        """Whether sources are nothing but what goes."""
        own = origins(list(names))
        return (
            len(own) < len(names)
            and all(name in found for name in names - own)
            and not self._has_own_origin(names, found, _NO_ORIGINS)
        )

    def _telling(self, ended: Mapping[bytes, int], found: Erased) -> set[bytes]:
        """Items that named one of these when it said what it says no more: `ended` is until when."""
        until = {format_id(key): at for key, at in ended.items()}
        if not until:
            return set()
        return {
            key[:KEY_BYTES]
            for family in _FAMILIES
            for key, item in stored_versions(self._engine, family)
            if key[:KEY_BYTES] not in found
            and any(item.recorded_at < until.get(name, -NEVER) for name in item.sources)
        }


def _said(item: ItemValue) -> bytes:
    """What could be made of a version."""
    return encode((item.text, sorted(item.metadata.items()), sorted(item.entities)))


def with_nothing_left(engine: Engine, emptied: Mapping[bytes, Collection[int]]) -> Erased:
    """Of versions that name nothing any more, by item: items that have but such a one, and past versions of
    others. Reads as of one moment only on the committer thread."""
    gone: set[bytes] = set()
    versions: dict[bytes, Collection[int]] = {}
    for key, some in emptied.items():
        current = [item for _, item in stored_versions(engine, "items", key)]
        known = [*current, *(item for _, item in stored_versions(engine, "history", key))]
        if any(item.version in some for item in current) or not any(item.sources for item in known):
            gone.add(key)
        else:
            versions[key] = some
    return Erased((), gone, versions)


def _all_versions(engine: Engine) -> Iterator[tuple[bytes, Iterator[ItemValue]]]:
    """(key of an item, all of its versions) of each item, deleted ones too, ascending by key. Read while
    items are changed it may have a version twice, and misses none that was there in the beginning."""
    families = (stored_versions(engine, family) for family in _FAMILIES)  # items first: they become history
    both = heapq.merge(*families, key=lambda one: one[0])
    for key, versions in itertools.groupby(both, lambda one: one[0][:KEY_BYTES]):
        yield key, (item for _, item in versions)


def stored_versions(engine: Engine, family: str, prefix: bytes = b"") -> Iterator[tuple[bytes, ItemValue]]:
    """(key, version of an item) of `items` or `history`, by key; marks of deletions are left out."""
    for key, item, _ in stored_values(engine, family, prefix):
        if item is not None:
            yield key, item


def stored_values(
    engine: Engine, family: str, prefix: bytes = b""
) -> Iterator[tuple[bytes, ItemValue | None, str | None]]:
    """The same with marks of deletions, which have no item, and why the store deleted it where it did."""
    for key, stored in engine.scan(
        family, *(codec.prefix_range(prefix) if prefix else (b"", codec.KEYS_END))
    ):
        payload = codec.unseal(family, key, stored)
        if family == "history":
            past = decode(payload, HistoryValue)
            yield key, past.item, past.reason
        else:
            yield key, decode(payload, ItemValue), None
