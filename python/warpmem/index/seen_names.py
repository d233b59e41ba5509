"""The entities of one owner as one scope sees them at one moment."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..records import NEVER, NamedEntity, VersionName
from .owner_names import Cells, NamingRow, OwnerNames, Postings
from .partition import Names

MOST_FOUND: Final = 16
"""Entities of a query that count, the first ones."""
MOST_RELATED: Final = 64
"""Relations of one of them that are followed, the last ones recorded."""


class Sight(NamedTuple):
    """Which rows are seen: by codes of the agent and the run (None for any), and by time as a search does:
    what is true at `at`, or at some time from `since` on to it. past: whenever they are true, as long as they
    are what was known."""

    agent: int | None
    run: int | None
    since: int
    at: int
    known_at: int | None
    past: bool = False

    def sees(self, cells: Cells) -> bool:
        return (
            (self.agent is None or cells.agent == self.agent)
            and (self.run is None or cells.run == self.run)
            and (
                cells.retired_at == NEVER
                if self.known_at is None
                else cells.recorded_at <= self.known_at < cells.retired_at
            )
            and (
                self.past
                or (cells.valid_from <= self.at and self.since < min(cells.valid_to, cells.expires_at))
            )
        )


class View(NamedTuple):
    """The names of an owner's rows in one index, which of them are seen, and what rows are versions of."""

    names: OwnerNames
    sight: Sight
    row_names: Names


Place = tuple[int, int]
"""(which view, row id)."""


class SeenNames:
    """Implements protocols.EntityNames. An entity goes by its root: the form of its canonical name.

    The newest record that mentions a form, as its name or as an alias, says whose it is: the form of the
    record's name, of which the same is asked. Each step meets a newer record, so that ends.
    """

    def __init__(self, *views: View) -> None:
        self._views = views
        self._form = views[0].names.form

    def joined(self, others: Sequence[SeenNames]) -> SeenNames:
        """With what other indexes hold of the same owner."""
        return SeenNames(*self._views, *(view for other in others for view in other._views))

    # ------------------------------------------------------------------------------------- entities

    def root(self, form: str) -> str:
        """The root of the entity that a form is a name of."""
        while (record := self._newest_record(form)) is not None:
            whose = self._form(record[1].names[0])
            if whose == form:
                break
            form = whose
        return form

    def forms(self, root: str) -> list[str]:
        """All forms that are names of an entity, the root first."""
        found = {root: None}
        left = [root]
        for form in left:  # which grows
            for _, row in self._rows("records", [form]):
                if self._form(row.names[0]) == form:
                    more = [other for name in row.names[1:] if (other := self._form(name))]
                    new = [one for one in dict.fromkeys(more) if one not in found and self.root(one) == root]
                    found |= dict.fromkeys(new)
                    left += new
        return list(found)

    def found(self, text: str) -> list[str]:
        """The roots of the entities that a text names, each once, in the order of the text."""
        forms = (form for view in self._views for form in view.names.found(text, self._known))
        return list(dict.fromkeys(map(self.root, forms)))

    def entities(self, after: str | None, limit: int, query: str | None) -> list[NamedEntity]:
        if query is None:
            roots = {form for view in self._views for form in list(view.names.named)}
        else:
            roots = set(self.found(query))
        found: list[NamedEntity] = []
        for root in sorted(roots):
            if len(found) == limit:
                break
            if (after is None or root > after) and self.root(root) == root:
                entity = self._entity(root)
                if entity is not None:
                    found.append(entity)
        return found

    def _entity(self, root: str) -> NamedEntity | None:
        forms = self.forms(root)
        rows = dict(self._rows("named", forms))
        record = self._newest_record(root)
        oldest_first = sorted(rows.values(), key=lambda row: row.ordinal)
        written = self._written(forms, oldest_first if record is None else [record[1], *oldest_first])
        if root not in written:
            return None  # nothing of it is seen, or a change has just taken it away
        records = dict(self._rows("records", forms))
        items = [row for place, row in rows.items() if place not in records]
        begins = [row.cells().valid_from for row in items or [*rows.values(), *records.values()]]
        return NamedEntity(
            root,
            written[root],
            tuple(written[form] for form in forms[1:] if form in written),
            len(items),
            min(begins),
            max(begins),
            None if record is None else self._row_name(record[0]),
        )

    def _written(self, forms: Sequence[str], rows: Sequence[NamingRow]) -> dict[str, str]:
        """How the first of some rows to hold each form writes it."""
        written: dict[str, str] = {}
        for row in rows:
            for name in row.names:
                form = self._form(name)
                if form in forms:
                    written.setdefault(form, name)
            if len(written) == len(forms):
                break
        return written

    def title(self, name: str) -> str:
        """The canonical name of the entity that `name` is a name of, as its record writes it; else `name`."""
        record = self._newest_record(self.root(self._form(name)))
        return name if record is None else record[1].names[0]

    # ------------------------------------------------------------------------------------ relations

    def relations(self, name: str | None, after: int, *, past: bool) -> list[tuple[int, VersionName]]:
        forms = None if name is None else self.forms(self.root(self._form(name)))
        return sorted(
            (row.ordinal, self._row_name(place))
            for place, row in dict(self._rows("relations", forms, past=past)).items()
            if row.ordinal > after
        )

    def shares(self, text: str, n_rows: int) -> Iterator[tuple[float, NDArray[np.bool_]]]:
        """What share of a text's entities rows of the first view name: (share, which of the first n_rows row
        ids), shares descending. An entity counts by half where a row names only one that it is related to."""
        roots = self.found(text)[:MOST_FOUND]
        points = np.zeros(n_rows, np.int64)
        for root in roots:
            mine = np.zeros(n_rows, np.int64)
            forms = self.forms(root)
            related = self._related(root, forms)
            self._mark(mine, [form for other in related for form in self.forms(other)], 1)
            self._mark(mine, forms, 2)
            points += mine
        for level in np.flatnonzero(np.bincount(points))[::-1].tolist():
            if level:
                yield level / (2 * len(roots)), points == level

    def _mark(self, points: NDArray[np.int64], forms: Sequence[str], value: int) -> None:
        holding = array("q")
        for form in forms:
            holding.extend(self._views[0].names.named.get(form, ())[:])
        row_ids = np.array(holding, np.int64)
        points[row_ids[row_ids < len(points)]] = value

    def _related(self, root: str, forms: Sequence[str]) -> dict[str, None]:
        """The roots of the entities that one has relations with, whatever stands between them."""
        rows = dict(self._rows("relations", forms))
        newest = sorted(rows, key=lambda place: rows[place].ordinal)[-MOST_RELATED:]
        ends = (
            self.root(end) for view, row_id in newest for end in self._views[view].names.ends.get(row_id, ())
        )
        return dict.fromkeys(end for end in ends if end != root)

    # -------------------------------------------------------------------------------------- helpers

    def _rows(
        self,
        table: Literal["named", "records", "relations"],
        forms: Sequence[str] | None,
        *,
        past: bool = False,
    ) -> Iterator[tuple[Place, NamingRow]]:
        """Those rows of some forms that are seen, some of them twice; without forms, all relations."""
        for number, (names, sight, _) in enumerate(self._views):
            sight = sight._replace(past=True) if past else sight
            held: Postings = getattr(names, table)
            for row_ids in [list(names.ends)] if forms is None else [held.get(form, ())[:] for form in forms]:
                for row_id in row_ids:
                    row = names.rows.get(row_id)
                    if row is not None and sight.sees(row.cells()):
                        yield (number, row_id), row

    def _row_name(self, place: Place) -> VersionName:
        return self._views[place[0]].row_names[place[1]]

    def _known(self, form: str) -> bool:
        return next(self._rows("named", [form]), None) is not None

    def _newest_record(self, form: str) -> tuple[Place, NamingRow] | None:
        """Of the records that mention a form, the one whose truth began last; of equal ones the one added
        last."""
        if not any(form in view.names.records for view in self._views):
            return None
        return max(self._rows("records", [form]), key=_newness, default=None)


def _newness(found: tuple[Place, NamingRow]) -> tuple[int, int]:
    return found[1].cells().valid_from, found[1].ordinal
