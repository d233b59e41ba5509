"""A change that touches three families, as children write it and tests check it.

Change n has log[n] = key and content, items[key] and vectors[key] with the same content, where key and
content follow from n and a random part. All three are there or none.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Sequence

from warpmem.protocols import Engine
from warpmem.storage import codec
from warpmem.storage.committer import Committer
from warpmem.storage.rocks import RocksEngine

Operations = list[tuple[str, bytes, bytes | None]]

MEMTABLE_BYTES = 64 << 10  # small: flushes and compactions are among what is interrupted
THREADS = 3


def operations(sequence: int, part: bytes, size: int = 40) -> Operations:
    """Change number `sequence`; `part` is 8 random bytes, `size` pads the content."""
    key = b"\0\0\0\1" + hashlib.blake2b(sequence.to_bytes(8, "big") + part, digest_size=16).digest()
    content = part + bytes(size)
    log_key = codec.log_key(sequence)
    return [
        ("log", log_key, codec.seal("log", log_key, key + content)),
        ("items", key, codec.seal("items", key, content)),
        ("vectors", codec.vector_key(key, 1), codec.seal("vectors", codec.vector_key(key, 1), content)),
    ]


def last_sequence(engine: Engine) -> int:
    for key, _ in engine.scan("log", b"", b"\xff" * 9, reverse=True):
        return codec.read_log_key(key)
    return 0


def read_all(engine: Engine) -> dict[int, bytes]:
    """Random part by sequence number. AssertionError when anything is half there, StoreError when damaged."""
    found: dict[int, bytes] = {}
    items = dict(engine.scan("items", b"", b"\xff" * 64))
    chunks = engine.chunks("vectors", b"", b"\xff" * 64, 7)
    vectors = {key: value for keys, values in chunks for key, value in zip(keys, values, strict=True)}
    for expected, (log_key, value) in enumerate(engine.scan("log", b"", b"\xff" * 9), start=1):
        sequence = codec.read_log_key(log_key)
        assert sequence == expected, f"gap: found {sequence}, expected {expected}"
        entry = bytes(codec.unseal("log", log_key, value))
        key, content = entry[:20], entry[20:]
        part = content[:8]
        assert operations(sequence, part, len(content) - 8)[0][2] == value
        vector_key = codec.vector_key(key, 1)
        assert key in items and vector_key in vectors, f"log entry {sequence} without its item or vector"
        assert bytes(codec.unseal("items", key, items.pop(key))) == content
        assert bytes(codec.unseal("vectors", vector_key, vectors.pop(vector_key))) == content
        found[sequence] = part
    assert not items and not vectors, f"{len(items)} items and {len(vectors)} vectors without a log entry"
    return found


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Adds changes from several threads until killed; acknowledges "sequence part" after each sync."""
    engine = RocksEngine(path, memtable_bytes=MEMTABLE_BYTES, min_free_bytes=0)
    committer: Committer[Operations, None] = Committer(engine.write, engine.sync, lambda effects: None)
    last = last_sequence(engine)

    def run(number: int) -> None:
        rng = random.Random(f"{seed} {number}")

        def job() -> tuple[Operations, None, tuple[int, bytes]]:
            nonlocal last
            part = os.urandom(8)
            last += 1
            return operations(last, part, rng.randrange(200)), None, (last, part)

        while True:
            sequence, part = committer.submit(job)
            acknowledge(b"%d %s" % (sequence, part.hex().encode()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check(path: str, acknowledged: Sequence[bytes]) -> None:
    """Everything acknowledged is there, whole, in an unbroken sequence."""
    engine = RocksEngine(path, memtable_bytes=MEMTABLE_BYTES, min_free_bytes=0)
    try:
        found = read_all(engine)
    finally:
        engine.close()
    for token in acknowledged:
        sequence, part = token.split()
        assert found.get(int(sequence), b"").hex().encode() == part, (
            f"acknowledged change {sequence!r} is lost"
        )


def lying_child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Acknowledges each change before it is written: what the kill test must be able to see."""
    engine = RocksEngine(path, memtable_bytes=MEMTABLE_BYTES, min_free_bytes=0)
    sequence = last_sequence(engine)
    while True:
        sequence += 1
        part = os.urandom(8)
        acknowledge(b"%d %s" % (sequence, part.hex().encode()))
        engine.write(operations(sequence, part, 1_000))


def halving_child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Writes the families of a change one after the other: half-written changes that the test must see."""
    engine = RocksEngine(path, memtable_bytes=MEMTABLE_BYTES, min_free_bytes=0)
    sequence = last_sequence(engine)
    while True:
        sequence += 1
        for operation in operations(sequence, os.urandom(8), 1_000):
            engine.write([operation])
