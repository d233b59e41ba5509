"""No owner reads of another; and each check that sees to it is missed when it is taken out."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import warpmem
from durability import isolation
from warpmem import Memory, Scope
from warpmem.errors import StoreCorrupt
from warpmem.index import partitions
from warpmem.memory import reader
from warpmem.ops.ids import owner_prefix
from warpmem.policy import reconcile
from warpmem.storage import codec, log, log_reads, transaction

OPERATIONS = 5_000


@pytest.mark.slow
def test_no_owner_reads_of_another(tmp_path: Path) -> None:
    counts = isolation.run(tmp_path, 0, OPERATIONS)
    assert sum(counts.values()) == OPERATIONS
    assert min(counts[what] for what in ("erase", "reopen")) > 0 and counts["foreign"] > 300


Patch = Callable[[Any, str, Any], None]


def scans_the_neighbour(patch: Patch) -> None:
    """The lists of a scan are those of the next owner."""
    real = partitions.PartitionedIndex._segments

    def segments(self: Any, asked: Any, number: int, request: Any, out: list[Any], *more: Any) -> None:
        begin = len(out)
        real(self, asked, number, request, out, *more)
        for i in range(begin, len(out)):
            query, list_id, *rest = out[i]
            neighbour = (list_id >> 1) + 1
            asked.partitions[neighbour] = self._partition(neighbour)
            out[i] = (query, list_id + 2, *rest)

    patch(partitions.PartitionedIndex, "_segments", segments)


def check_left_out(patch: Patch) -> None:
    """Searches hand out what the scan found, whatever its scope."""
    source = textwrap.dedent(inspect.getsource(reader.Reader._hits))
    assert source.count("if not seen:") == 1
    names: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + source.replace("if not seen:", "if False:")
    exec(compile(code, "reader.py", "exec"), vars(reader), names)
    patch(reader.Reader, "_hits", names["_hits"])


def covers_everything(patch: Patch) -> None:
    """The check of a record's scope, wherever it is made, lets everything pass."""
    patch(Scope, "covers", lambda self, other: True)


def ranges_of_the_neighbour(patch: Patch) -> None:
    """A walk over an owner's keys is one over the next owner's."""
    patch(log_reads, "owner_prefix", lambda owner: owner_prefix(owner + 1))


def ranges_too_long(patch: Patch) -> None:
    """A walk over an owner's keys goes on into the next owner's."""
    real = codec.prefix_range

    def longer(prefix: bytes) -> tuple[bytes, bytes]:
        start, stop = real(prefix)
        return (start, real(stop)[1]) if len(prefix) == 4 else (start, stop)

    patch(codec, "prefix_range", longer)


def one_number_for_all(patch: Patch) -> None:
    """Owners are told apart by their type only."""

    def digest(identity: Any, owner: Any) -> bytes:
        return owner.type.encode().ljust(16)  # type: ignore[no-any-return]

    patch(log, "owner_digest", digest)
    patch(transaction, "owner_digest", digest)


def types_are_one(patch: Patch) -> None:
    """Owners of all types with an id are one."""

    def digest(identity: Any, owner: Any) -> bytes:
        number = int(owner.id.split("-")[1]) // 3
        return str(number).encode().ljust(16)

    patch(log, "owner_digest", digest)
    patch(transaction, "owner_digest", digest)


def changes_by_anybody(patch: Patch) -> None:
    """A change does not look at the scope it was asked for with."""
    real = reconcile.find
    patch(reconcile, "find", lambda transaction, key, scope: real(transaction, key, None))


def updates_the_neighbours_rows(patch: Patch) -> None:
    """Rows of a change are put into the next owner's lists."""
    real = partitions.PartitionedIndex.apply

    def apply(self: Any, changes: Any) -> None:
        real(self, [msgspec.structs.replace(change, owner=change.owner + 1) for change in changes])

    patch(partitions.PartitionedIndex, "apply", apply)


MUTATIONS = [
    (scans_the_neighbour,),
    (scans_the_neighbour, covers_everything),
    (scans_the_neighbour, check_left_out),
    (ranges_of_the_neighbour,),
    (ranges_of_the_neighbour, covers_everything),
    (ranges_too_long,),
    (ranges_too_long, covers_everything),
    (covers_everything,),
    (one_number_for_all,),
    (one_number_for_all, covers_everything),
    (types_are_one,),
    (changes_by_anybody,),
    (updates_the_neighbours_rows,),
    (updates_the_neighbours_rows, covers_everything),
]


@pytest.mark.parametrize("mutations", MUTATIONS, ids=lambda them: "+".join(one.__name__ for one in them))
def test_a_check_that_is_missing_is_missed(
    mutations: tuple[Callable[[Patch], None], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mutate in mutations:
        mutate(monkeypatch.setattr)
    with pytest.raises(Exception) as caught:  # noqa: PT011  an assertion of the test or of the store
        isolation.run(tmp_path, 1, OPERATIONS)
    if covers_everything in mutations or check_left_out in mutations:
        assert caught.type is AssertionError, "what the last check would have found was found by the test"


def search_beside_a_neighbour(memory: Memory) -> list[str]:
    """Texts that ann, whose rows stand before bob's, finds."""
    return [hit.item.text for hit in memory.search(vector=[1.0, 0.0], user_id="ann", k=10)]


@pytest.fixture
def two_owners(tmp_path: Path) -> Iterator[Memory]:
    with warpmem.open(tmp_path / "store", dimension=2, min_free_bytes=0) as memory:
        for user in ("ann", "bob"):
            memory.add(f"of {user}", vector=[1.0, 0.5], user_id=user)
        yield memory


def test_a_neighbours_row_is_not_handed_out(two_owners: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check on return finds what the scan should not have found."""
    assert search_beside_a_neighbour(two_owners) == ["of ann"]
    scans_the_neighbour(monkeypatch.setattr)
    with pytest.raises(StoreCorrupt, match="outside the scopes of the search"):
        search_beside_a_neighbour(two_owners)


@pytest.mark.parametrize("without", [check_left_out, covers_everything])
def test_without_the_check_it_would_be(
    two_owners: Memory, monkeypatch: pytest.MonkeyPatch, without: Callable[[Patch], None]
) -> None:
    scans_the_neighbour(monkeypatch.setattr)
    without(monkeypatch.setattr)
    assert "of bob" in search_beside_a_neighbour(two_owners)
