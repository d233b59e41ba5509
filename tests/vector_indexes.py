"""Indexes, rows and filters to test VectorIndex with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from warpmem import VectorIndex

COLUMNS: dict[str, Any] = {"n": "int64", "x": "float64", "b": "bool", "s": "str", "t": "time"}
BACKENDS = ("cpu", "numpy")
DIM = 3
T0 = datetime(2026, 3, 4, 9, tzinfo=UTC)

_BIG = 2**53
integers = st.integers(-3, 3) | st.sampled_from([_BIG, _BIG + 1, -(2**63) + 1, 2**63 - 1])
floats = st.sampled_from([0.0, -0.0, 1.0, -1.5, 2.5, 1e-300, -1e300, float(_BIG), 5e-324])
strings = st.sampled_from(["", "a", "A", "ab", "B", "ß", "SS", "z"])
times = st.integers(-3, 3).map(lambda hours: T0 + timedelta(hours=hours))
values = {"n": integers, "x": floats, "b": st.booleans(), "s": strings, "t": times}

numbers = integers | floats | st.sampled_from([2**70, -(2**70), 0.5])
operands = {
    "n": numbers,
    "x": numbers,
    "b": st.booleans(),
    "s": strings | st.sampled_from(["unheard", "s"]),
    "t": times | times.map(datetime.isoformat),
}


def conditions(name: str) -> st.SearchStrategy[Any]:
    operand = operands[name]
    named = {"eq": operand, "ne": operand, "in": st.lists(operand, max_size=3), "exists": st.booleans()}
    named["nin"] = named["in"]
    if name != "b":
        named |= dict.fromkeys(("gt", "gte", "lt", "lte"), operand)
    if name == "s":
        named |= dict.fromkeys(("contains", "icontains"), operand)
    some = st.lists(st.sampled_from(sorted(named)), min_size=1, max_size=3, unique=True)
    return operand | some.flatmap(lambda names: st.fixed_dictionaries({one: named[one] for one in names}))


leaves = st.sampled_from(sorted(COLUMNS)).flatmap(
    lambda name: conditions(name).map(lambda condition: {name: condition})
)
filters = st.recursive(
    leaves | st.just({}),
    lambda inner: (
        st.dictionaries(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3), min_size=1)
        | st.fixed_dictionaries({"not": inner})
        | st.builds(lambda a, b: {**a, "and": [b]}, leaves, inner)
    ),
    max_leaves=6,
)


def attributes(n: int) -> st.SearchStrategy[Any]:
    """Some columns with n values each, some missing."""
    lists = {name: st.lists(st.none() | values[name], min_size=n, max_size=n) for name in COLUMNS}
    return st.none() | st.fixed_dictionaries({}, optional=lists)


def vectors(n: int) -> st.SearchStrategy[Any]:
    """n vectors of small integers, none zero: sums are exact, and ties happen."""
    number = st.integers(-2, 2)
    vector = st.lists(number, min_size=DIM, max_size=DIM).filter(any)
    return st.lists(vector, min_size=n, max_size=n)


def state_of(index: VectorIndex) -> Any:
    """Everything an index holds, to compare before and after."""
    store = index._store
    pool = store.serving.pool
    lists = []
    for list_id in pool.lists().tolist():
        ids, ordinals, columns = pool.rows(list_id)
        order = np.argsort(ids)
        lists.append(
            (
                list_id,
                ids[order].tolist(),
                ordinals[order].tolist(),
                columns[order].tolist(),
                pool.vectors(list_id, ids[order]).tobytes(),
            )
        )
    strings_known = {name: list(known.names) for name, known in index._columns.dictionaries.items()}
    known_ids = sorted(row_id for entry in lists for row_id in entry[1] if row_id in index)
    return lists, strings_known, known_ids, len(index), store.next_id, store.next_ordinal, store.serving
