"""What becomes of an item of which some is lost; and that nothing comes back that was deleted or erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpmem.ops.ids import format_id
from warpmem.records import NEVER, LogEntry
from warpmem.storage import codec
from warpmem.storage.repair_items import Evidence, settle
from warpmem.storage.repair_source import Source
from warpmem.storage.salvage_tables import Entry
from warpmem.storage.values import HistoryValue, ItemValue, encode

KEY = b"\0\0\0\1" + bytes(range(16))
ID = format_id(KEY)
SCOPE = ("u", None, None, None)
VECTORS = {version: np.full(4, 0.5, np.float32) * (1 if version % 2 else -1) for version in (1, 2, 3)}


def version(number: int, *, ended: int = NEVER, text: str | None = None, touched: int = 0) -> ItemValue:
    at = 100 * number
    return ItemValue(
        SCOPE, "fact", text or f"text {number}", "text", None, {}, 0.5, None, (), (), 1.0, number, "m", 100,
        touched or at, NEVER, 100, NEVER, at, ended, 0, "add" if number == 1 else "update",
    )  # fmt: skip


def past(number: int) -> HistoryValue:
    return HistoryValue(
        "add" if number == 1 else "update", 100 * number, version(number, ended=100 * number + 100)
    )


def entry(sequence: int, operation: Any, number: int, at: int = 0) -> LogEntry:
    return LogEntry(sequence, at or 100 * number, operation, KEY, number, SCOPE, 1)


LOG = [entry(1, "add", 1), entry(2, "update", 2), entry(3, "update", 3)]


def test_what_is_whole_stays_as_it_is() -> None:
    out = settle(Evidence(KEY, [version(3)], False, {1: past(1), 2: past(2)}, VECTORS, log=LOG), None)
    assert out.current == version(3) and out.history == {1: past(1), 2: past(2)}
    assert list(out.vectors) == [1, 2, 3] and (out.stubs, out.unlogged, out.lost) == ([], [], [])


def test_the_version_before_a_lost_one_stands_in_its_place() -> None:
    out = settle(Evidence(KEY, [], False, {1: past(1), 2: past(2)}, VECTORS, log=LOG), None)
    assert out.current is not None
    assert (out.current.version, out.current.retired_at) == (2, NEVER)
    assert list(out.history) == [1] and list(out.vectors) == [1, 2] and out.stubs == [3]
    assert [(loss.id, loss.version, loss.what) for loss in out.lost] == [
        (ID, 3, "version 3; version 2 stands in its place")
    ]


def test_a_past_version_is_found_where_it_once_was_current() -> None:
    out = settle(Evidence(KEY, [version(3), version(2)], False, {1: past(1)}, VECTORS, log=LOG), None)
    assert out.history[2].item == version(2, ended=300) and out.lost == []


def test_a_lost_past_version_is_listed_and_stubbed() -> None:
    out = settle(Evidence(KEY, [version(3)], False, {2: past(2)}, VECTORS, log=LOG), None)
    assert out.current == version(3) and out.stubs == [1]
    assert [(loss.id, loss.version, loss.sequence) for loss in out.lost] == [(ID, 1, 1)]


def test_versions_without_a_log_entry_get_one() -> None:
    out = settle(Evidence(KEY, [version(2)], False, {1: past(1)}, VECTORS, log=LOG[:1]), None)
    assert [(made.operation, made.version, made.at) for made in out.unlogged] == [("update", 2, 200)]


def test_a_lost_touch_is_told() -> None:
    log = [entry(1, "add", 1), entry(2, "touch", 1, at=150)]
    out = settle(Evidence(KEY, [version(1)], False, {}, VECTORS, log=log), None)
    assert [loss.what for loss in out.lost] == ["when it was last touched"] and out.stubs == []
    out = settle(Evidence(KEY, [version(1, touched=150)], False, {}, VECTORS, log=log), None)
    assert out.lost == []


@pytest.mark.parametrize("witness", ["log", "mark", "removed"])
def test_one_witness_of_a_deletion_is_enough(witness: str) -> None:
    """The item may still be found in a table that compaction has replaced."""
    found = Evidence(KEY, [version(1)], witness == "removed", {1: past(1)}, VECTORS, log=[entry(1, "add", 1)])
    if witness == "log":
        found.log.append(entry(2, "delete", 1, at=500))
    if witness == "mark":
        found.versions[2] = HistoryValue("delete", 500, None)
    out = settle(found, None)
    assert out.current is None and out.vectors == {} and list(out.history) == [1, 2]
    assert out.history[2].item is None
    assert [made.operation for made in out.unlogged] == ([] if witness == "log" else ["delete"])


def test_nothing_whole_leaves_stubs_and_a_list() -> None:
    out = settle(Evidence(KEY, log=LOG), None)
    assert (out.current, out.history, out.stubs) == (None, {}, [1, 2, 3])
    assert [(loss.id, loss.version) for loss in out.lost] == [(ID, 1), (ID, 2), (ID, 3)]


def test_vectors_that_are_lost() -> None:
    given = [version(2, text="same")]
    same = HistoryValue("add", 100, version(1, ended=200, text="same"))
    out = settle(Evidence(KEY, given, False, {1: same}, {1: VECTORS[1]}, log=LOG[:2]), None)
    assert out.vectors[2] is VECTORS[1], "metadata was updated: the text and so the vector stayed"
    out = settle(Evidence(KEY, [version(2)], False, {1: past(1)}, {1: VECTORS[1]}, log=LOG[:2]), None)
    assert out.current is None and [past.item is None for past in out.history.values()] == [
        False,
        False,
        True,
    ]
    made = settle(
        Evidence(KEY, [version(2)], False, {1: past(1)}, {1: VECTORS[1]}, log=LOG[:2]),
        lambda text: VECTORS[3],
    )
    assert made.embedded == 1 and made.vectors[2] is VECTORS[3] and made.lost == []


def test_what_was_deleted_below_every_table_stays_away(tmp_path: Path) -> None:
    """An erasure leaves deletions and stubs, and no history; older values elsewhere are not believed."""

    def sealed(family: str, key: bytes, value: Any) -> bytes:
        return codec.seal(family, key, encode(value))

    history = codec.history_key(KEY, 1)
    entries = [
        Entry("items", KEY, 5 << 8 | 1, sealed("items", KEY, version(2))),
        Entry("items", KEY, 9 << 8, None),
        Entry("history", history, 5 << 8 | 1, sealed("history", history, past(1))),
        Entry("history", history, 9 << 8, None),
    ]
    for order in (entries, entries[::-1]):
        source = Source(str(tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"))
        source.load(order)
        (found,) = source.items("vectors", 4, lambda what: None)
        source.close()
        assert (found.items, found.versions, found.removed) == ([], {}, True)
        out = settle(found, None)
        assert (out.current, out.history, out.unlogged) == (None, {}, [])
