"""Which items name which, against a dict of lists."""

from __future__ import annotations

import random

from warpmem.ops.naming import Naming


def test_it_says_what_a_dict_of_lists_says() -> None:
    """Keys may end in NULs, which NumPy's strings do not tell apart from nothing."""
    rng = random.Random(5)
    keys = [rng.randbytes(20 - n % 4) + bytes(n % 4) for n in range(50)] + [bytes(20)]
    naming, known = Naming(), {key: list[bytes]() for key in keys}
    for _ in range(500):
        source, item = rng.choice(keys[1:]), rng.choice(keys)
        naming.add(source, item)
        known[source].append(item)
    assert {key: list(naming.of(key)) for key in keys} == known
    assert known[keys[0]] == [] and bytes(20) in {item for items in known.values() for item in items}


def test_where_there_is_nothing_nothing_is_named() -> None:
    assert list(Naming().of(bytes(20))) == []
