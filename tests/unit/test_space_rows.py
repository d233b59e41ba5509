"""Rows of several spaces in one family: who reads which, what the store remembers, and that damage shows."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from warpmem.errors import FormatError, ModelMismatch, StoreCorrupt
from warpmem.ops.clock import SystemClock
from warpmem.records import SPACES, Record, Space
from warpmem.storage import codec, rows, values
from warpmem.storage.crc import open_rows
from warpmem.storage.log import StoreLog, open_log
from warpmem.storage.memory import MemoryEngine
from warpmem.types import MemoryItem, Owner, Scope

IMAGE = SPACES.index("image")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["native", "plain"])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "plain":
        monkeypatch.setattr(rows, "open_rows", None)
    elif open_rows is None:
        pytest.skip("the native module is not built")
    found = open_log(MemoryEngine(), SystemClock(), model_id="texts", dimension=4)
    yield found
    found.close()


def add(log: StoreLog, user: str, vector: list[float], space: int = 0, model: str = "looks") -> Record:
    item = MemoryItem(
        id="", scope=Scope(user_id=user), kind="fact", text="t", model_id="m", created_at=NOW, touched_at=NOW,
        valid_from=NOW, recorded_at=NOW,
    )  # fmt: skip

    def change(transaction: Any) -> Record:
        if space:
            transaction.space(SPACES[space], model, len(vector))
        owner = transaction.owner(Owner("user", user))
        row = np.array(vector, np.float32)
        made: Record = transaction.add(owner, item, row, duplicate=None, slot=None, space=space)
        return made

    return log.transact(change)


def vectors_of(log: StoreLog, user: str, space: Space | None = None) -> list[list[float]]:
    owner = log.owner(Owner("user", user))
    assert owner is not None
    return [row for block in log.rows(owner, log.identity, False, space) for row in block.vectors.tolist()]


@pytest.mark.parametrize("dimension", [4, 3], ids=["as the texts'", "another"])
def test_a_space_has_its_own_rows(log: StoreLog, dimension: int) -> None:
    image = [1.0] + [0.0] * (dimension - 1)
    add(log, "ann", [1, 0, 0, 0])
    shown = add(log, "ann", image, IMAGE)
    add(log, "ann", [0, 1, 0, 0])
    add(log, "bob", [0, 0, 1, 0])
    space = log.spaces()["image"]
    assert (space.number, space.model_id, space.dimension) == (IMAGE, "looks", dimension)
    assert vectors_of(log, "ann") == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert vectors_of(log, "ann", space) == [image]
    assert vectors_of(log, "bob", space) == []
    assert log.space_of(shown.key, 1) == IMAGE
    assert log.vector(shown.key, 1, log.identity).tolist() == image  # type: ignore[union-attr]
    assert [(row.space, row.vector.tolist()) for row in log.item_rows(shown.key)] == [(IMAGE, image)]


def test_a_next_version_stays_where_the_first_one_is(log: StoreLog) -> None:
    shown = add(log, "ann", [0.6, 0.8], IMAGE)
    log.transact(lambda t: t.revise(shown, shown.item, None, operation="update"))
    space = log.spaces()["image"]
    np.testing.assert_allclose(vectors_of(log, "ann", space), [[0.6, 0.8]] * 2, rtol=1e-6)
    assert vectors_of(log, "ann") == []


def test_a_store_remembers_the_model_of_a_space(log: StoreLog) -> None:
    add(log, "ann", [1, 0], IMAGE)
    for vector, model in (([1.0, 0.0], "others"), ([1.0, 0.0, 0.0], "looks")):
        with pytest.raises(ModelMismatch, match="image vectors are of 'looks'"):
            add(log, "ann", vector, IMAGE, model)
    add(log, "ann", [1, 0, 0], SPACES.index("audio"), "others")
    assert sorted(log.spaces()) == ["audio", "image"]
    assert len(vectors_of(log, "ann", log.spaces()["image"])) == 1


def test_the_row_of_a_text_is_what_it_always_was(log: StoreLog) -> None:
    record = add(log, "ann", [1, 0, 0, 0])
    key = codec.vector_key(record.key, 1)
    engine: Any = log._engine
    payload = bytes(codec.unseal("vectors", key, engine.get("vectors", key)))
    length = int.from_bytes(payload[:2], "little")
    assert payload[2] == 0x9A
    assert payload[2 + length :] == np.array([1, 0, 0, 0], "<f4").tobytes()
    assert values.is_text_row(payload)
    assert list(engine.scan("meta", b"space", b"spacf")) == []
    assert engine.get("lookup", record.key[:4] + b"s") is None


def test_no_flipped_bit_hides_a_row(log: StoreLog) -> None:
    """Which space a row is of stands in one byte, and only the checksum vouches for it."""
    text, shown = add(log, "ann", [1, 0, 0, 0]), add(log, "ann", [1, 0, 0, 0], IMAGE)
    engine: Any = log._engine
    space = log.spaces()["image"]
    rng = random.Random(3)
    for record in (text, shown):
        key = codec.vector_key(record.key, 1)
        whole = engine.get("vectors", key)
        for bit in [*range(8 * 5), *(rng.randrange(8 * len(whole)) for _ in range(40))]:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            engine.write([("vectors", key, bytes(damaged))])
            for each in (None, space):
                with pytest.raises((StoreCorrupt, FormatError)):
                    vectors_of(log, "ann", each)
        engine.write([("vectors", key, whole)])
    assert vectors_of(log, "ann") == vectors_of(log, "ann", space) == [[1, 0, 0, 0]]


def test_a_row_of_a_space_that_there_is_not(log: StoreLog) -> None:
    shown = add(log, "ann", [1, 0], IMAGE)
    row = next(iter(log.item_rows(shown.key)))
    import msgspec

    for number in (len(SPACES), 200):
        payload = values.encode_row(msgspec.structs.replace(row, space=number))
        with pytest.raises(StoreCorrupt, match=f"space {number}"):
            values.decode_row(row.key, 1, payload, 4)
