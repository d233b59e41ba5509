"""The names that one owner's rows hold: of entities, of their records, and of relations between them."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .owner_rows import OwnerRows, Placed
from .partition import Name
from .row_columns import KIND

MOST_TOKENS: Final = 4096
_CELLS: Final = struct.Struct("7q")
_ROW_BYTES: Final = 400  # of a row with names, and of a form, roughly
_FORM_BYTES: Final = 400


class NameSource(NamedTuple):
    """Where names come from. load: the entities of (item key, version), None for what was erased. tokens: a
    name or a text in pieces; names whose tokens are equal are one."""

    load: Callable[[Sequence[Name]], Sequence[Sequence[str] | None]]
    tokens: Callable[[str], list[str]]


class Cells(NamedTuple):
    """The cells of a row that tell who sees it, and when: the columns of the pool."""

    valid_from: int
    valid_to: int
    recorded_at: int
    retired_at: int
    expires_at: int
    agent: int
    run: int


class NamingRow(NamedTuple):
    """A row that names something. names: as they are written; of a record the canonical one first, of a
    relation subject and object."""

    names: tuple[str, ...]
    ordinal: int
    packed: bytes

    def cells(self) -> Cells:
        return Cells._make(_CELLS.unpack(self.packed))


Postings = dict[str, "array[int]"]
"""Row ids by form, ascending."""


class OwnerNames(OwnerRows):
    """Rows of one owner by the forms of the names in them; a form is a name's tokens with spaces between.

    named      every row
    records    rows of kind "entity", which say which names are one entity's
    relations  rows of kind "relation", by both ends
    ends       of those, the forms of both ends

    Read without a lock while it changes: whoever needs one moment compares Partition.changes.
    """

    def __init__(self, source: NameSource, entity_kind: int, relation_kind: int) -> None:
        super().__init__()
        self.rows: dict[int, NamingRow] = {}
        self.named: Postings = {}
        self.records: Postings = {}
        self.relations: Postings = {}
        self.ends: dict[int, list[str]] = {}
        self._source = source
        self._by_kind = {entity_kind: self.records, relation_kind: self.relations}
        self._kinds: dict[int, int] = {}  # of rows that are records or relations
        self._relation_kind = relation_kind
        self._lengths: dict[str, Counter[int]] = {}  # how many forms of so many tokens begin with a token

    def memory(self) -> int:
        return _ROW_BYTES * len(self.rows) + _FORM_BYTES * len(self.named)

    def form(self, name: str) -> str:
        """The form of a name."""
        return " ".join(self._source.tokens(name))

    def found(self, text: str, known: Callable[[str], bool]) -> list[str]:
        """The forms that stand in a text and are known, from left to right; of those that begin at one
        place the longest, and none inside another. The text's first MOST_TOKENS count: of a longer one each
        would have to be looked at with as many lengths as names have."""
        tokens = self._source.tokens(text)[:MOST_TOKENS]
        found = []
        at = 0
        while at < len(tokens):
            lengths = self._lengths.get(tokens[at])
            for length in sorted(lengths, reverse=True) if lengths else ():
                form = " ".join(tokens[at : at + length])
                if at + length <= len(tokens) and form in self.named and known(form):
                    found.append(form)
                    at += length
                    break
            else:
                at += 1
        return found

    def _put(self, rows: Placed) -> None:
        entities = list(rows.entities)
        lacking = [i for i, names in enumerate(entities) if names is None]
        if lacking:
            for i, names in zip(lacking, self._source.load([rows.names[i] for i in lacking]), strict=True):
                entities[i] = names
        for i, names in enumerate(entities):
            if names:
                self._add(int(rows.row_ids[i]), tuple(names), int(rows.ordinals[i]), rows.columns[i])

    def _add(self, row_id: int, names: tuple[str, ...], ordinal: int, columns: NDArray[np.int64]) -> None:
        kind = int(columns[KIND])
        cells = [*columns[:5].tolist(), *columns[KIND + 1 : KIND + 3].tolist()]
        self.rows[row_id] = NamingRow(names, ordinal, _CELLS.pack(*cells))
        special = self._by_kind.get(kind)
        if special is not None:
            self._kinds[row_id] = kind
        if kind == self._relation_kind:
            self.ends[row_id] = [self.form(name) for name in names]
        for form in self._forms(names):
            if form not in self.named:
                self._count(form, 1)
            self.named.setdefault(form, array("q")).append(row_id)
            if special is not None:
                special.setdefault(form, array("q")).append(row_id)

    def _remove(self, row_ids: NDArray[np.int64]) -> None:
        for row_id in row_ids.tolist():
            row = self.rows.pop(row_id, None)
            if row is None:
                continue
            self.ends.pop(row_id, None)
            special = self._by_kind.get(self._kinds.pop(row_id, -1))
            for form in self._forms(row.names):
                _drop(self.named, form, row_id)
                if special is not None:
                    _drop(special, form, row_id)
                if form not in self.named:
                    self._count(form, -1)

    def _forms(self, names: Iterable[str]) -> set[str]:
        return {form for name in names if (form := self.form(name))}

    def _count(self, form: str, change: int) -> None:
        """Note that a form came or went."""
        tokens = form.split(" ")
        lengths = Counter(self._lengths.get(tokens[0], ()))
        lengths[len(tokens)] += change
        # Exchanged whole, because found() may be walking over the one before.
        left = +lengths
        if left:
            self._lengths[tokens[0]] = left
        else:
            self._lengths.pop(tokens[0], None)


def _drop(postings: Postings, form: str, row_id: int) -> None:
    rows = postings[form]
    del rows[bisect_left(rows, row_id)]
    if not rows:
        del postings[form]
