"""What is kept of one owner's names: nothing of rows that went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warpmem.index.owner_names import NameSource, OwnerNames
from warpmem.index.owner_rows import Placed
from warpmem.index.row_columns import KIND, N_COLUMNS

FACT, RECORD, RELATION = 0, 1, 2


def placed(first: int, kinds: Sequence[int], entities: Sequence[Sequence[str] | None]) -> Placed:
    n = len(kinds)
    columns = np.zeros((n, N_COLUMNS), np.int64)
    columns[:, KIND] = kinds
    return Placed(
        [(bytes([first + i]), 1) for i in range(n)],
        np.arange(first, first + n),
        np.zeros(n, np.int64),
        np.arange(n, dtype=np.uint32),
        columns,
        [None] * n,
        entities,
    )


def sizes(names: OwnerNames) -> dict[str, int]:
    return {name: len(table) for name, table in vars(names).items() if isinstance(table, dict)}


def test_rows_leave_nothing_behind_whatever_came_while_they_were_read() -> None:
    loaded: dict[bytes, tuple[str, ...] | None] = {b"\0": ("Ada", "ADA", " "), b"\1": ("New York", "ada")}
    names = OwnerNames(
        NameSource(lambda keys: [loaded.get(key) for key, _ in keys], str.split), RECORD, RELATION
    )
    empty = sizes(names)
    names.change(np.array([0, 9]), placed(3, [RELATION], [("York", "New York")]))
    assert not names.named, "it waits"
    names.build(placed(0, [FACT, RECORD, FACT], [None, None, None]))
    assert {form: list(rows) for form, rows in names.named.items()} == {
        "New York": [1, 3], "ada": [1], "York": [3],
    }  # fmt: skip
    assert (set(names.records), set(names.relations)) == ({"New York", "ada"}, {"York", "New York"})
    assert sizes(names) != empty
    assert names.found("New York", lambda form: True) == ["New York"]
    names.change(np.array([3, 1]), None)
    assert sizes(names) == empty
    assert names.found("New York", lambda form: True) == []


def test_the_longest_known_name_is_found() -> None:
    names = OwnerNames(NameSource(lambda keys: [None] * len(keys), str.split), RECORD, RELATION)
    names.build(placed(0, [FACT], [("a", "a b", "a b c", "c d")]))
    assert names.found("a b c d", lambda form: True) == ["a b c"]
    assert names.found("a b c d", lambda form: form != "a b c") == ["a b", "c d"]
    assert names.found("b a", lambda form: True) == ["a"]
