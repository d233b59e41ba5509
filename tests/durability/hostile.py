"""Hostile bytes in every parser: whatever they are, the answer is a value or a typed error.

Inputs are valid ones, changed at random: bits flipped, pieces cut out, repeated, exchanged for those of
another input, numbers replaced by extreme ones. An input that reaches an outcome not seen before (the kind
of error and the line that raised it) is kept and mutated further, so that the search goes deeper; the corpus
is written to a folder and read again by the next run."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

import warpmem
from warpmem.errors import StoreError, WarpmemError
from warpmem.storage import codec, values
from warpmem.storage.crc import crc32c
from warpmem.types import Scope

_EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
)
_LONGEST = 1 << 16

CORPUS = Path(__file__).with_name("corpus")
MOST_KEPT = 100

Parser = Callable[[bytes], object]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four random changes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at, end = sorted((rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)))
        end = min(end, at + 64)
        what = rng.randrange(6)
        if what == 0 and out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif what == 1:
            del out[at:end]
        elif what == 2:
            out[at:at] = out[at:end] * rng.randrange(1, 9)
        elif what == 3:
            piece = rng.choice(_EXTREMES)
            out[at : at + len(piece)] = piece
        elif what == 4 and other:
            start = rng.randrange(len(other))
            out[at:end] = other[start : start + 64]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(out[:_LONGEST])


def fuzz(parse: Parser, seeds: list[bytes], seconds: float, seed: int, new: Path) -> tuple[int, int]:
    """Mutate for so much time of the processor; returns (inputs tried, outcomes seen). Inputs that reached a
    new outcome are written to the folder `new`. An exception that is not WarpmemError passes through with
    its input in the note."""
    rng = random.Random(seed)
    new.mkdir(parents=True, exist_ok=True)
    pool, seen, tried = list(seeds), set(), 0
    deadline = time.process_time() + seconds
    while time.process_time() < deadline:
        known = tried < len(seeds)
        data = seeds[tried] if known else mutate(rng.choice(pool), rng.choice(pool), rng)
        tried += 1
        outcome = _outcome(parse, data)
        if outcome not in seen:
            seen.add(outcome)
            if not known:
                pool.append(data)
                (new / hashlib.blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
    return tried, len(seen)


def _outcome(parse: Parser, data: bytes) -> tuple[object, ...]:
    try:
        found = parse(data)
    except WarpmemError as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)[-2:]]
        return (type(error).__name__, *lines, _words(str(error)) if isinstance(error, StoreError) else "")
    except BaseException as error:
        error.add_note(f"the input was {data!r}")
        raise
    return ("value", found if isinstance(found, str) else type(found).__name__)


def _words(message: str) -> str:
    """What kind of message it is, whatever names and numbers stand in it."""
    return re.sub(r"'[^']*'|[^a-zA-Z ]+", "", message)[:24]


# -------------------------------------------------------------------------------------------- parsers

_KEY = bytes(3) + b"\1" + bytes(16)
_KINDS = (
    ("log", values.LogEntry), ("items", values.ItemValue), ("history", values.HistoryValue),
    ("owners", values.OwnerValue), ("lookup", values.RememberedValue), ("meta", values.StoreIdentity),
)  # fmt: skip


def _store(folder: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """Every stored value of a small store, by family."""
    from warpmem.storage.rocks import RocksEngine

    with warpmem.open(folder / "store", embedder="hashing") as memory:
        for n in range(6):
            memory.add(f"fact {n}", user_id="ann", metadata={"n": n, "deep": {"list": [1, 2.5, None, "é"]}},
                       key=f"k{n % 2}", idempotency_key=f"i{n}")  # fmt: skip
        first = memory.list(user_id="ann", limit=1).items[0]
        memory.update(first.id, text="corrected")
        memory.delete(first.id)
    engine = RocksEngine(folder / "store", read_only=True)
    try:
        return {family: list(engine.scan(family, b"", b"\xff" * 64)) for family in codec.FAMILIES}
    finally:
        engine.close()


def value_codec(folder: Path) -> tuple[Parser, list[bytes]]:
    """Frames of all families, and the payloads below the checksum: first byte the kind, then a length, key,
    value."""
    stored = _store(folder)
    seeds = [
        bytes([index, len(key)]) + key + value
        for index, (family, _) in enumerate(_KINDS)
        for key, value in stored[family][:3]
    ] + [bytes([len(_KINDS), len(key)]) + key + value for key, value in stored["vectors"][:3]]

    def parse(data: bytes) -> object:
        kind, length = (*data[:2], 0, 0)[:2]
        key, value = data[2 : 2 + length], data[2 + length :]
        kind %= len(_KINDS) + 1
        family = "vectors" if kind == len(_KINDS) else _KINDS[kind][0]
        try:
            payload = codec.unseal(family, key, value)
        except WarpmemError:
            payload = memoryview(value)[1:-4]  # as if the checksum held: what a broken writer could leave
        if kind == len(_KINDS):
            return values.decode_row(_KEY, 1, bytes(payload), 256)
        found = values.decode(payload, _KINDS[kind][1])
        if isinstance(found, values.ItemValue):
            return values.make_record(_KEY, found)
        return found

    return parse, seeds


def index_file(folder: Path) -> tuple[Parser, list[bytes]]:
    """A saved VectorIndex, opened and searched."""
    from warpmem import VectorIndex

    rng = np.random.default_rng(7)
    index = VectorIndex(8, columns={"n": "int64", "s": "str"})
    rows = rng.standard_normal((5, 8), dtype=np.float32)
    index.add(rows, attributes={"n": list(range(5)), "s": [f"s{n % 3}" for n in range(5)]})
    path = folder / "seed.index"
    index.save(path)
    target = folder / "hostile.index"

    def parse(data: bytes) -> object:
        target.write_bytes(_resealed(data) if len(data) % 2 else data)
        opened = VectorIndex.load(target)
        return opened.search(rows[0], k=3)

    return parse, [path.read_bytes()]


def _resealed(data: bytes) -> bytes:
    """An index file with its length and the checksums of its header and tables made right again
    (FORMATS.md)."""
    if len(data) < 512:
        return data
    out = bytearray(data)
    out[16:24] = len(out).to_bytes(8, "little")
    planes = int.from_bytes(out[80:88], "little")
    if 256 <= planes <= len(out):
        out[128:132] = crc32c(bytes(out[256:planes])).to_bytes(4, "little")
    out[252:256] = crc32c(bytes(out[:252])).to_bytes(4, "little")
    return bytes(out)


def jsonl(folder: Path) -> tuple[Parser, list[bytes]]:
    """Lines of an import, into a store in memory."""
    lines = [
        {"text": "plain"},
        {"text": "x", "user_id": "ann", "metadata": {"a": [1, None]}, "priority": 0.5, "key": "k"},
        {"role": "user", "content": "hello"},
        {"text": "t", "valid_from": "2024-01-01T00:00:00Z", "kind": "event"},
        {"text": "t", "expires_at": "2030-01-01T00:00:00+02:00", "entities": ["a"], "trust": 1.0},
    ]
    seeds = [b"\n".join(json.dumps(line).encode() for line in lines), json.dumps(lines[1]).encode()]
    memory, taken = warpmem.open(embedder="hashing"), 0

    def parse(data: bytes) -> object:
        nonlocal memory, taken
        taken += 1
        if taken % 2_000 == 0:  # what was imported is not to add up
            memory.close()
            memory = warpmem.open(embedder="hashing")
        told: list[str] = []
        memory.import_(io.BytesIO(data), scope=Scope(user_id="ann"), batch=16, say=told.append)
        return _words(" ".join(told))

    return parse, seeds


def filters(folder: Path) -> tuple[Parser, list[bytes]]:
    """Filters as JSON, asked of a store in memory."""
    memory = warpmem.open(embedder="hashing", columns={"n": "number", "s": "string"})
    for number in range(20):
        metadata = {"n": number, "s": f"s{number % 3}", "t": [number]}
        memory.add(f"fact {number}", user_id="ann", metadata=metadata)
    n, s, t = "metadata.n", "metadata.s", "metadata.t"
    queries: list[dict[str, object]] = [
        {n: 3},
        {n: {"gt": 3, "lte": 9}},
        {"or": [{s: "s1"}, {n: {"in": [1, 2]}}]},
        {"and": [{"not": {s: {"ne": "s2"}}}, {t: {"exists": True}}]},
        {s: {"nin": ["a", 1.5]}},
        {s: {"contains": "s"}},
        {t: {"contains": 3}},
    ]
    seeds = [json.dumps(query).encode() for query in queries]

    def parse(data: bytes) -> object:
        try:
            query = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return "no JSON"
        return memory.search("fact", user_id="ann", filters=query, k=5)

    return parse, seeds


PARSERS = {"value codec": value_codec, "index file": index_file, "JSONL": jsonl, "filters": filters}


def run(name: str, seconds: float, seed: int, folder: Path) -> tuple[int, int]:
    """Fuzz one parser; see fuzz. What is new goes to `folder`/corpus/<parser>, what CORPUS holds is tried
    first."""
    place = name.replace(" ", "-")
    kept = sorted((CORPUS / place).glob("*"))
    with tempfile.TemporaryDirectory() as scratch:
        parse, seeds = PARSERS[name](Path(scratch))
        seeds += [file.read_bytes() for file in kept]
        return fuzz(parse, seeds, seconds, seed, folder / "corpus" / place)


def keep(folder: Path) -> None:
    """Add what runs in `folder` found to CORPUS, up to MOST_KEPT inputs a parser."""
    for found in sorted((folder / "corpus").glob("*/*")):
        place = CORPUS / found.parent.name
        place.mkdir(parents=True, exist_ok=True)
        if len(list(place.iterdir())) < MOST_KEPT:
            (place / found.name).write_bytes(found.read_bytes())
