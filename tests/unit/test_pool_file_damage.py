"""Index files that are not what was written: refused, by name, and never another answer."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_damage import small
from pool_files import DIM, add, filled
from pools import make_rows
from warpmem._cpu import crc32c, open_pool
from warpmem.errors import FormatError, IndexCorrupt, StoreError


def in_a_process_of_its_own(call: str) -> None:
    code = f"from pathlib import Path; import pool_damage; pool_damage.{call}"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
def test_every_flipped_byte_is_refused(tmp_path: Path, storage: str) -> None:
    in_a_process_of_its_own(f"flip(Path({str(tmp_path)!r}), {storage!r})")


def test_every_length_is_refused(tmp_path: Path) -> None:
    in_a_process_of_its_own(f"cut(Path({str(tmp_path)!r}))")


def caught(call: Callable[[], object]) -> IndexCorrupt | None:
    try:
        call()
    except IndexCorrupt as error:
        return error
    return None


def test_damage_is_found_by_whatever_needs_the_page(tmp_path: Path) -> None:
    """Each operation on a fresh pool; none changes it, and other lists work on."""
    path = tmp_path / "index"
    filled().save(path)
    data = bytearray(path.read_bytes())
    planes, end = struct.unpack_from("<QQ", data, 80)
    sizes = struct.unpack_from("<QQQQ", data, 96)
    n = struct.unpack_from("<Q", data, 56)[0]
    first = planes
    query = make_rows("normal", 1, DIM, 2)
    for name, size in zip(("coarse", "fine", "columns", "rows"), sizes, strict=True):
        for page in (1, n - 3):  # list 3 begins at page 1: after list -7, before list 8
            damaged = bytearray(data)
            step = 512 if name == "columns" else size  # the first column of all pages, then the second, ...
            damaged[first + page * step + step // 2] ^= 16
            path.write_bytes(damaged)
            message = rf"page {page} \({name}"
            uses = {
                "apply": lambda pool: add(pool, 3, [10**6], query),
                "rows": lambda pool: pool.rows(3),
                "vectors": lambda pool: pool.vectors(3, pool.rows(3)[0]),
                "compact": lambda pool: pool.compact(3),
                "scan": lambda pool: pool.scan(query, [(0, 3, 0, ((0, 0, 0, 9),), (), None)], 4096),
                "save": lambda pool: pool.save(tmp_path / "other"),
            }
            refused = set()
            for what, call in uses.items():
                pool, _ = open_pool(path, threads=2)
                before = pool.stats()
                if page != 1:
                    call = {**uses, "compact": lambda pool: pool.compact(8)}[what]
                error = caught(lambda pool=pool, call=call: call(pool))
                if error is not None:
                    assert re.search(message, str(error)), str(error)
                    refused.add(what)
                    assert {**pool.stats(), "bytes": 0} == {**before, "bytes": 0}
                pool.rows(-7)
                add(pool, -7, [3], query)
            assert {"save", "compact"} <= refused
            if page == 1:
                assert name != "columns" or refused == set(uses)
                assert name != "coarse" or "scan" in refused
                assert name != "rows" or {"vectors", "scan"} <= refused
            assert not (tmp_path / "other").exists()
        first += n * size
    assert first == end


def sealed(data: bytes, **fields: int) -> bytes:
    """The file with other numbers in its header, whose checksum fits."""
    header = bytearray(data[:252])
    places = {
        "version": (8, "I"),
        "order": (12, "I"),
        "storage": (32, "I"),
        "pages": (56, "Q"),
        "lists": (48, "Q"),
    }
    for name, value in fields.items():
        struct.pack_into("<" + places[name][1], header, places[name][0], value)
    return bytes(header) + struct.pack("<I", crc32c(bytes(header))) + data[256:]


def test_other_versions_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "index"
    small("f32").save(path)
    data = path.read_bytes()
    path.write_bytes(sealed(data))
    open_pool(path)
    path.write_bytes(sealed(data, version=3))
    with pytest.raises(FormatError, match=r"version 3, this warpmem reads up to 2; open it with a newer"):
        open_pool(path)
    path.write_bytes(sealed(data, order=0x04030201))
    with pytest.raises(FormatError, match="other byte order"):
        open_pool(path)
    wrong = [
        {"version": 0},
        {"storage": 3},
        {"pages": 2},
        {"pages": 1 << 60},
        {"lists": 1 << 62},
        {"lists": 0},
    ]
    for fields in wrong:
        path.write_bytes(sealed(data, **fields))
        with pytest.raises(IndexCorrupt):
            open_pool(path)


def test_what_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for content in (b"hello", b"hello" * 100):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="is not a warpmem index"):
            open_pool(path)
    with pytest.raises(StoreError, match=r"'.*absent' cannot be opened.*check the path"):
        open_pool(tmp_path / "absent")
    with pytest.raises(StoreError, match="cannot be opened: Is a directory"):
        open_pool(tmp_path)
