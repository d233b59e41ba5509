"""The values that cross warpmem's internal seams (protocols/): plain, frozen msgspec structs.

Times are int microseconds since 1970-01-01 UTC; `NEVER` stands for an open end.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .errors import ModelMismatch
from .types import MemoryItem, Operation

NEVER = (1 << 63) - 1

QUARANTINED = -(1 << 63)
"""In the place of a row's `retired_at`: the current version of an item in quarantine. So it stands among the
rows whose time is over, and no search by time meets it."""

RANGE, MEMBERSHIP, AND, OR, NOT = range(5)

Term = tuple[int, int, int, int]
"""(column, op, lo, hi). RANGE: lo <= column <= hi. MEMBERSHIP: column is among the segment's values[lo:hi].

Terms are read in order over a stack: these two push a test, AND and OR join the last two tests, NOT turns the
last one around (column, lo and hi are 0 for the three). Everything left on the stack must hold.
"""

Segment = tuple[int, int, int, Sequence[Term], Sequence[int], "NDArray[np.uint64] | None"]
"""(query, list_id, group, terms, values, bitmap): one list that one query scans. `values` feeds MEMBERSHIP,
and each slice used is ascending; bit row_id of `bitmap` must be set when it is given."""


class SegmentTable(NamedTuple):
    """Many segments that share a filter: `queries[i]` scans `lists[i]`, int64 (s,). Group 0, no bitmap."""

    queries: NDArray[np.int64]
    lists: NDArray[np.int64]
    terms: Sequence[Term] = ()
    values: Sequence[int] = ()


SPACES = ("text", "code", "log", "image", "audio")
"""Modalities by the number of their space. Never renumber one: rows name them so."""


class Space(msgspec.Struct, frozen=True, array_like=True):
    """Vectors of one model, of the items of one modality that is not text; the text space is the identity's.
    created_at: microseconds."""

    number: int
    model_id: str
    dimension: int
    created_at: int

    @property
    def name(self) -> str:
        """Its modality."""
        return SPACES[self.number]

    def check(self, model_id: str, dimension: int) -> None:
        """Raises ModelMismatch unless it holds vectors of this model."""
        if (self.model_id, self.dimension) != (model_id, dimension):
            raise ModelMismatch(
                f"the store's {self.name} vectors are of {self.model_id!r} ({self.dimension} dimensions), "
                f"not of {model_id!r} ({dimension}): open it with that model for {self.name}"
            )


class Record(msgspec.Struct, frozen=True):
    """An item as storage sees it. key: 20 bytes (ops/ids.py). ordinal: its rank within the partition for
    ties."""

    key: bytes
    ordinal: int
    item: MemoryItem


class Past(NamedTuple):
    """One entry of an item's history. record: the item as it then was, None for its deletion. reason: why the
    store decided so, None where the caller did."""

    operation: Operation
    at: int
    record: Record | None
    reason: str | None


MAKES_VERSION: frozenset[Operation] = frozenset(("add", "update", "close", "merge", "revert"))
"""The operations that make a version of an item."""


class Row(msgspec.Struct, frozen=True):
    """One version of an item as the index sees it. vector: (dim,) float32, canonically normalised. metadata:
    the item's, where it was asked for. text, entities: the item's, where they are at
    hand. space: the number of the one
    that the vector lies in."""

    key: bytes
    version: int
    ordinal: int
    kind: str
    agent_id: str | None
    run_id: str | None
    priority: float
    valid_from: int
    valid_to: int
    recorded_at: int
    retired_at: int
    expires_at: int
    vector: Any
    metadata: Any = None
    text: str | None = None
    space: int = 0
    entities: Sequence[str] | None = None


class RowHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a stored row says before its float32 values: the fields of Row between version and vector."""

    ordinal: int
    kind: str
    agent_id: str | None
    run_id: str | None
    priority: float
    valid_from: int
    valid_to: int
    recorded_at: int
    retired_at: int
    expires_at: int


class SpaceRowHeader(RowHeader, frozen=True, array_like=True, gc=False):
    """That of a row in another space than the text's."""

    space: int


class RowBlock(NamedTuple):
    """Many rows of one owner. names: of each (item key, version) as 24 bytes, the version big-endian, one
    after the other. vectors: (n, dim) float32. metadata: the items', where it was asked for."""

    names: bytes
    headers: Sequence[RowHeader]
    vectors: NDArray[np.float32]
    metadata: Sequence[Any] | None = None


class RowChange(msgspec.Struct, frozen=True):
    """What one committed change did to one owner's rows. Removals are (key, version) and come first. `keys`
    are all items it changed, those included whose rows stayed as they were. `erased`: forget all that is
    known of the owner and read it anew when needed; the rest is empty then.

    Applying the same change twice is the same as applying it once.
    """

    owner: int
    keys: Sequence[bytes]
    remove: Sequence[tuple[bytes, int]]
    add: Sequence[Row]
    erased: bool = False


class LogEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the log family. Sequence numbers start at 1 and have no gaps. `items` is the number of
    live items in the store after it.

    Operation "erase" is a stub (key all zeros) in the place of an entry of what was erased, or a notice (key:
    an owner's number, then zeros): all that is known of this owner must be read anew.

    unsynced: whether changes before this one may not have been on the disk yet when it was written. Where it
    is False the change is a witness: all before it had been synced, and whoever made them may have been told.
    """

    sequence: int
    at: int
    operation: Operation
    key: bytes
    version: int
    scope: tuple[str | None, str | None, str | None, str | None]
    items: int
    unsynced: bool = False


class StoreIdentity(msgspec.Struct, frozen=True, array_like=True):
    """What a store is. salt keys every digest that stands in a storage key; `vectors` is the family that
    holds the vectors of this model. Re-embedding replaces model_id, dimension and vectors, all at once."""

    format: int
    created_at: int
    salt: bytes
    model_id: str
    dimension: int
    vectors: str = "vectors"


VersionName = tuple[bytes, int]
"""(item key, version)."""


class NamedEntity(NamedTuple):
    """An entity as an index knows it. form: of its canonical name, by which entities are sorted. The rest as
    in types.Entity; record: the item version that is its own record."""

    form: str
    name: str
    aliases: tuple[str, ...]
    items: int
    first: int
    last: int
    record: VersionName | None


def probe_key(vectors: str) -> bytes:
    """Key in family meta of the vector of a fixed text, by the weights that made the vectors of a family."""
    return b"probe" + vectors.encode("ascii")


WorkKind = Literal["embed", "extract"]
"""What is still to be done for a version of an item. "embed": its vector, whose place zeros keep until then
(ops/blank.py). "extract": memories that a language model makes of it, as it is then; named by version 1."""


class Work(msgspec.Struct, frozen=True):
    """Something that waits to be done for one version of an item. since: when it began to wait. refused: the
    model that cannot do it, which is not asked again; empty while none was asked."""

    key: bytes
    version: int
    since: int
    refused: str = ""


class ReembedJob(msgspec.Struct, frozen=True, array_like=True):
    """A change of the embedding model that is not finished; FORMATS.md says what each field means."""

    model_id: str
    dimension: int
    vectors: str
    started_at: int
    since: int
    position: bytes = b""
    rows: int = 0
    done: bool = False


class BuildUnit(msgspec.Struct, frozen=True):
    """A step of re-embedding: the rows it brings up to date, those of them that need a vector, and the job
    after it."""

    names: Sequence[VersionName]
    lacking: Sequence[VersionName]
    after: ReembedJob


class Backup(msgspec.Struct, frozen=True):
    """One backup: a directory that is a store of its own. Open it with read_only=True, or restore it: nothing
    is written to it.

    sequence      the last change that it holds
    bytes         of all its files; `shared_bytes` of them were there before, in the store or in an earlier
                  backup, and took no room
    pause_seconds how long writers waited for it
    verified      it was read back in full and everything agreed
    """

    path: str
    at: datetime
    sequence: int
    items: int
    format: int
    model_id: str
    dimension: int
    files: int
    bytes: int
    shared_bytes: int
    pause_seconds: float
    seconds: float
    verified: bool


class ScopePart(msgspec.Struct, frozen=True):
    """One scope of a search: an owner's partition, narrowed by attributes, by an optional bitmap over row ids
    and by an optional filter that the index said it decides (a Node of ops/filter_grammar.py)."""

    owner: int
    agent_id: str | None = None
    run_id: str | None = None
    bitmap: Any = None
    where: Any = None


class SearchRequest(msgspec.Struct, frozen=True):
    """One query. vector: (dim,) float32, normalised. at: the world time asked for, or the last of a period
    that begins with `since`. known_at: the store's knowledge asked for, None for now. kinds: None for any.
    words: the query's text, for its words and the entities it names. quarantined: items in quarantine are
    met, too. but: kinds that are left out."""

    vector: Any
    parts: tuple[ScopePart, ...]
    at: int
    known_at: int | None = None
    kinds: tuple[str, ...] | None = None
    words: str = ""
    quarantined: bool = False
    but: tuple[str, ...] = ()
    since: int | None = None


class ScoreParams(msgspec.Struct, frozen=True):
    """Weights as in types.Ranking; half_life and now in microseconds."""

    similarity: float = 1.0
    recency: float = 0.0
    priority: float = 0.0
    half_life: float = 1.0
    now: int = 0
    min_similarity: float = float("-inf")
    lexical: float = 0.0
    adjacent: float = 0.0
    entities: float = 0.0


Match = tuple[float, float, bytes, int, float, float, float]
"""(score, similarity, item key, version, lexical, adjacent, entities), the last three 0 where they have no
weight."""


class Descent(NamedTuple):
    """What comes from what is to be erased; of items, their keys.

    only      comes from nothing else, and goes too
    partly    names it, and has other sources
    versions  by item of `partly`: past versions that come from nothing else, and go too
    telling   named such an item when it said something that no version says which stays
    """

    only: set[bytes]
    partly: set[bytes]
    versions: dict[bytes, set[int]]
    telling: set[bytes]

    def update(self, more: Descent) -> None:
        """Have what was found since, too. What goes by now is no longer among what stays."""
        self.only.update(more.only)
        for kept, others in ((self.partly, more.partly), (self.telling, more.telling)):
            kept.update(others)
            kept.difference_update(self.only)
        for key, some in more.versions.items():
            self.versions.setdefault(key, set()).update(some)
        for key in self.only & self.versions.keys():
            del self.versions[key]


class KnownBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that may hold what a store held, where it was made or found: a backup, the copy before a
    migration, or what the store was restored or repaired from. at: when it was begun, as far as known."""

    path: str
    at: datetime


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure removed, counted by place, and where it could not reach.

    items: current versions. history: earlier versions and marks of deletions. log_entries: entries that
    became stubs. vectors: rows. lookups: places in duplicates, key slots and remembered calls. sources:
    versions of other items that lost an id. owners: owners whose name is gone. derived: ids of items that
    were erased because they had no other source. versions: (id, version) of earlier versions that were
    erased for the same reason, of items that had another in their current one. kept: ids of items that had,
    or were kept on demand, or named one of `versions`; their text may tell of what was erased. checkpoint:
    what became of the saved index. device_pages: pages that left the device. files: tables that were written
    anew. backups: may still hold what was erased. finished: how many erasures this one has finished that
    earlier calls or processes had begun; what these had removed by then is not counted here.
    """

    id: str
    at: datetime
    seconds: float
    items: int
    history: int
    log_entries: int
    vectors: int
    lookups: int
    sources: int
    owners: int
    derived: tuple[str, ...]
    kept: tuple[str, ...]
    checkpoint: Literal["none", "rewritten", "removed"]
    device_pages: int
    files: int
    backups: tuple[KnownBackup, ...]
    versions: tuple[tuple[str, int], ...] = ()
    finished: int = 0
