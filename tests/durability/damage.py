"""Damage of every kind to every kind of file of a store, and what must come of it.

`run_case` damages a copy of a store and looks at what happens: it must be refused, reported by verify, or
harmless. Whatever opens gives the answers of the store that was not damaged: ids, texts and scores. Where
damage is not harmless, repair must give a store that verifies, holds nothing that never was, and lists every
version that it lost. Damage that changes no byte is none, and is drawn again. The one exception is the end of
a live write-ahead log: a cut there looks like a crash, and what it takes was never acknowledged, as far as
anyone can tell; then the answers are those of a store that holds what is left.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import warpmem
from warpmem.errors import StoreCorrupt, StoreError
from warpmem.ops.clock import to_datetime
from warpmem.protocols import Engine
from warpmem.records import LogEntry
from warpmem.storage import codec
from warpmem.storage.identity import read_identity
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.values import HistoryValue, ItemValue, decode

FILES = ("wal", "sst", "manifest", "current", "index")
KINDS = ("bit", "byte", "zero", "truncate", "swap", "missing")
_NOT_TRIED = (("wal", "missing"), ("current", "swap"))
CASES = [
    *((file, kind) for file in FILES for kind in KINDS if (file, kind) not in _NOT_TRIED),
    ("wal", "header"), ("manifest", "header"),
]  # fmt: skip
"""All that is tried. A live write-ahead log that is gone whole is a cut at its beginning; CURRENT is one
block, which has no other to change places with. "header" is a bit of the length or the kind of a record,
which RocksDB believes."""
_PATTERNS = {
    "wal": "*.log", "sst": "*.sst", "manifest": "MANIFEST-*", "current": "CURRENT", "index": "warpmem.index"
}  # fmt: skip
BLOCK = 512
_DRAWS = 1_000
USERS = ("ann", "bob", "cem")


def make_store(path: Path, seed: int, *, items: int = 60, memtable_bytes: int = 64 << 10) -> None:
    """A store with keys, updates, deletions, duplicates, idempotent calls and items that wait for their
    vectors, or have waited, closed cleanly, with an index checkpoint."""
    options = {"min_free_bytes": 0, "memtable_bytes": memtable_bytes, "background_work": False}
    with warpmem.open(path, embedder="hashing", **options) as memory:
        fill(memory, random.Random(seed), items)
        memory.checkpoint()


def make_live_store(path: Path, seed: int, *, items: int = 60) -> None:
    """A store as a crash leaves it: the last changes are in the write-ahead log alone."""
    live = path.with_name(f"{path.name}-live")
    make_store(live, seed, items=items // 2)
    memory = warpmem.open(live, embedder="hashing", min_free_bytes=0, background_work=False)
    fill(memory, random.Random(seed + 1), items - items // 2)
    memory.flush()
    shutil.copytree(live, path)
    memory.close()
    shutil.rmtree(live)


def fill(memory: warpmem.Memory, rng: random.Random, items: int) -> None:
    ids: list[str] = []
    for n in range(items):
        if n == items // 2:
            memory.embed_pending()
        what = rng.random()
        if ids and what < 0.2:
            memory.update(rng.choice(ids), text=f"updated {n} {rng.randrange(1 << 30)}", durability="os")
        elif ids and what < 0.3:
            memory.delete(ids.pop(rng.randrange(len(ids))), durability="os")
        else:
            result = memory.add(
                f"item {n} {rng.randrange(1 << 30)} " + "words " * rng.randrange(30),
                user_id=rng.choice(USERS),
                key=f"key-{rng.randrange(5)}" if rng.random() < 0.3 else None,
                idempotency_key=f"call-{n}-{rng.random()}" if rng.random() < 0.2 else None,
                durability="os",
                embed="later" if rng.random() < 0.2 else "now",
            )
            assert isinstance(result, warpmem.AddResult)
            ids.append(result.id)


# ------------------------------------------------------------------------------------------ contents


class Contents(NamedTuple):
    """What a store says: (item key, version) -> text, for live and for past versions; the log; deletions."""

    live: dict[tuple[bytes, int], str]
    past: dict[tuple[bytes, int], str]
    deleted: frozenset[bytes]
    log: dict[int, LogEntry]
    all: dict[tuple[str, bytes], bytes]


def read_contents(path: Path) -> Contents:
    """Read everything. Raises StoreError."""
    engine = RocksEngine(path, read_only=True, min_free_bytes=0)
    try:
        return contents_of(engine)
    finally:
        engine.close()


def contents_of(engine: Engine) -> Contents:
    """Read everything. Raises StoreError."""
    if read_identity(engine) is None:
        raise StoreCorrupt("the identity is missing")
    live, past, deleted, log = {}, {}, set(), {}
    everything: dict[tuple[str, bytes], bytes] = {}
    for family in codec.FAMILIES:
        for key, stored in engine.scan(family, b"", b"\xff" * 64):
            payload = codec.unseal(family, key, stored)
            everything[family, key] = stored
            if family == "items":
                item = decode(payload, ItemValue)
                live[key, item.version] = item.text
            elif family == "history":
                value = decode(payload, HistoryValue)
                if value.item is None:
                    deleted.add(key[:20])
                else:
                    past[key[:20], value.item.version] = value.item.text
            elif family == "log":
                entry = decode(payload, LogEntry)
                log[entry.sequence] = entry
    return Contents(live, past, frozenset(deleted), log, everything)


Answers = tuple[tuple[str, str, int, str, float], ...]
"""Hits of searches: user, id, version, text, score."""


class Expected(NamedTuple):
    """What a store that was not damaged says, and what it answers at a time."""

    contents: Contents
    at: datetime
    answers: Answers


def read_expected(path: Path) -> Expected:
    """Read all that the cases of a template are compared with. Raises StoreError."""
    contents = read_contents(path)
    at = to_datetime(max(entry.at for entry in contents.log.values()))
    with open_to_read(path) as memory:
        return Expected(contents, at, answers_of(memory, at))


def open_to_read(path: Path) -> warpmem.Memory:
    return warpmem.open(path, embedder="hashing", min_free_bytes=0, read_only=True)


def answers_of(memory: warpmem.Memory, at: datetime) -> Answers:
    """What searches find as of a time, by meaning and by words. Raises StoreError."""
    return tuple(
        (user, hit.item.id, hit.item.version, hit.item.text, hit.score)
        for user in USERS
        for mode in ("dense", "hybrid")
        for hit in memory.search("updated item words", user_id=user, k=10, as_of=at, mode=mode)
    )


# -------------------------------------------------------------------------------------------- damage


def damage(path: Path, file_kind: str, kind: str, rng: random.Random) -> str:
    """Damage one file of a kind; says what was done. Nothing when there is no such file with content."""
    files = sorted(file for file in path.glob(_PATTERNS[file_kind]) if file.stat().st_size)
    if not files:
        return ""
    file = rng.choice(files)
    if kind == "missing":
        file.unlink()
        return f"{file.name} removed"
    before = file.read_bytes()
    after = damaged(before, kind, rng)
    file.write_bytes(after)
    at = next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))
    return f"{file.name} {kind}, from byte {at}"


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """`data` with one damage, which is drawn again until it changes something."""
    for _ in range(_DRAWS):
        drawn = _drawn(data, kind, rng)
        if drawn != data:
            return drawn
    raise AssertionError(f"{len(data)} bytes, and no damage of the kind {kind} changes them")


def _drawn(before: bytes, kind: str, rng: random.Random) -> bytes:
    data = bytearray(before)
    at = rng.randrange(len(data))
    size = max(16, min(BLOCK, len(data) // 4))
    block = at // size * size
    if kind == "bit":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[at] ^= rng.randrange(1, 256)
    elif kind == "zero":
        data[block : block + size] = bytes(len(data[block : block + size]))
    elif kind == "truncate":
        del data[at:]
    elif kind == "swap":
        other = rng.randrange(len(data) // size) * size
        first, second = bytes(data[block : block + size]), bytes(data[other : other + size])
        if len(first) == len(second):
            data[block : block + size], data[other : other + size] = second, first
    elif kind == "header":
        at = rng.choice(headers(data)) + rng.randrange(4, 7)
        data[at] ^= 1 << rng.randrange(8)
    else:
        raise ValueError(kind)
    return bytes(data)


def headers(data: bytes | bytearray) -> list[int]:
    """Where the records of a log or MANIFEST begin."""
    found = []
    for block in range(0, len(data), 32 << 10):
        at, stop = block, min(block + (32 << 10), len(data))
        while at + 7 <= stop and data[at + 6]:
            found.append(at)
            at += 7 + int.from_bytes(data[at + 4 : at + 6], "little")
    return found


class Case(NamedTuple):
    """What came of one damage: outcome is refused, found, harmless or tail."""

    outcome: str
    what: str
    lost: int


def run_case(
    template: Path,
    folder: Path,
    file_kind: str,
    kind: str,
    seed: int,
    expected: Expected,
    *,
    repairs: bool = True,
) -> Case | None:
    """Damage a copy of `template`, of which `expected` was read, in `folder`; AssertionError when it goes
    unnoticed, gives another answer, or repair, unless it is left out, fails. None when there was nothing to
    damage."""
    rng = random.Random(f"{file_kind} {kind} {seed}")
    store, repaired = folder / "damaged", folder / "repaired"
    for left in (store, repaired):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(template, store)
    what = damage(store, file_kind, kind, rng)
    if not what:
        return None
    try:
        outcome = look(store, expected, file_kind, kind)
        lost = 0
        if repairs and outcome in ("refused", "found"):
            lost = check_repair(store, repaired, expected.contents, last_file=file_kind == "wal")
    except BaseException:
        print(f"{what} (seed {seed})")
        raise
    return Case(outcome, what, lost)


def look(store: Path, expected: Expected, file_kind: str, kind: str) -> str:
    """What opening, searching, reading and verifying make of a damaged store."""
    whole = expected.contents
    report = warpmem.verify(store)
    answers = None
    try:
        with open_to_read(store) as memory:
            answers = answers_of(memory, expected.at)
            found = contents_of(memory._log._engine)  # type: ignore[attr-defined]
    except StoreError:
        assert not report.ok, "it does not open, and verify finds no fault"
        assert answers in (None, expected.answers), "searches answer otherwise than before, in silence"
        return "refused"
    if not report.ok or found.all == whole.all:
        assert answers == expected.answers, "searches answer otherwise than before, in silence"
        return "harmless" if report.ok else "found"
    if file_kind == "wal":
        # A cut, or damage to the last record, looks like the end that a crash leaves: a prefix is all there.
        last = max(found.log, default=0)
        assert {n: whole.log[n] for n in found.log} == found.log and last == len(found.log)
        if kind != "truncate":
            assert last >= len(whole.log) - 1, f"{len(whole.log) - last} changes are gone, in silence"
        live = {(warpmem_id(key), version, text) for (key, version), text in found.live.items()}
        assert {(item_id, version, text) for _, item_id, version, text, _ in answers} <= live
        assert answers or not live
        return "tail"
    raise AssertionError("it reads otherwise than before, in silence")


def check_repair(store: Path, repaired: Path, expected: Contents, *, last_file: bool) -> int:
    """Repair must list what it loses and invent nothing; returns how many versions are lost."""
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    try:
        report = warpmem.repair(store, repaired)
    except StoreCorrupt as error:
        if "nothing to repair" not in str(error):
            raise
        return len(expected.live) + len(expected.past)
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before, "the original was changed"
    check = warpmem.verify(repaired)
    assert check.ok, check.faults[:3]
    found = read_contents(repaired)
    known = expected.live | expected.past
    there = found.live | found.past
    for version, text in there.items():
        assert known.get(version) == text, "repair invented a version"
    listed = {(loss.id, loss.version) for loss in report.lost}
    sequences = {
        (entry.key, entry.version): n
        for n, entry in expected.log.items()
        if entry.operation not in ("touch", "embed")
    }
    stubs = {n for n, entry in found.log.items() if entry.operation == "erase"}
    end = max((n for n, entry in found.log.items() if entry == expected.log.get(n)), default=0)
    for key, version in known.keys() - there.keys():
        named = (warpmem_id(key), version) in listed
        # Else its log entry is lost too, and that is said; or it was the last of a log that is cut off.
        assert named or sequences[key, version] in stubs or sequences[key, version] > end, (
            key.hex(),
            version,
        )
    for key, _ in found.live:
        assert key not in expected.deleted or report.lost, "a deleted item is back, in silence"
    if known.keys() != there.keys() or len(found.log) < len(expected.log):
        assert report.lost, "something is lost, in silence"
    assert report.ok == (not report.lost)
    with warpmem.open(repaired, embedder="hashing", min_free_bytes=0) as memory:
        for user in USERS:
            memory.add("more", user_id=user)
            items = memory.list(user_id=user, include_past=True, limit=1000)
            assert len({item.id for item in items}) == len(items)
    return len(known.keys() - there.keys())


def warpmem_id(key: bytes) -> str:
    from warpmem.ops.ids import format_id

    return format_id(key)


def run_many(
    template: Path, folder: Path, file_kind: str, kind: str, count: int, seed: int = 0
) -> Counter[str]:
    """`count` cases of one kind of damage to one kind of file; how often each outcome was."""
    outcomes: Counter[str] = Counter()
    expected = read_expected(template)
    for n in range(count):
        case = run_case(template, folder, file_kind, kind, seed + n, expected)
        if case is not None:
            outcomes[case.outcome] += 1
            outcomes["lost versions"] += case.lost
    return outcomes
