"""The names of rows: packed those that came together, one by one those that came later."""

from __future__ import annotations

import numpy as np

from warpmem.index.partition import KEY_BYTES, Names, NamesOf

NAMES = [(bytes([row]) * (KEY_BYTES - 1) + b"\0", 3 * row << 20) for row in range(7)]
PACKED = b"".join(key + version.to_bytes(4, "big") for key, version in NAMES[:5])


def test_several_are_those_one_by_one() -> None:
    packed, later, alone = Names(PACKED), Names(PACKED), Names()
    later.extend(NAMES[5:])
    alone.extend(NAMES)
    for names, rows in (
        (packed, [4, 0, 3]),
        (later, [6, 0, 5, 5]),
        (alone, [2, 1]),
        (packed, []),
        (alone, []),
    ):
        row_ids = np.array(rows, np.int64)
        wanted = [NAMES[row] for row in rows]
        assert names.several(row_ids) == wanted
        lazily = NamesOf(names, row_ids)
        assert len(lazily) == len(rows)
        assert list(lazily) == wanted
        assert lazily[1:] == wanted[1:]
