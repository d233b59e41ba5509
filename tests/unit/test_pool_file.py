"""Index files: what is saved comes back bit for bit, and what is not what was saved is refused."""

from __future__ import annotations

import os
import re
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pool_files import DIM, add, answers, filled
from pools import make_rows, native_isas
from warpmem._cpu import Pool, crc32c, open_pool

FORMATS = [
    (storage, metric, screen)
    for storage in ("f32", "f16", "int8")
    for metric in ("dot", "l2")
    for screen in ("auto", "none")
]


@pytest.mark.parametrize(("storage", "metric", "screen"), FORMATS)
def test_round_trip(tmp_path: Path, storage: str, metric: str, screen: str) -> None:
    path = tmp_path / "index"
    queries = make_rows("normal", 3, DIM, 2)
    pool = filled(storage=storage, metric=metric, screen=screen)
    ids = np.arange(1000)
    expected = answers(pool, queries)
    pool.save(path, {"ids": ids, "settings": b'{"a": 1}', "none": b"", "\u00e9": memoryview(b"abc")})
    saved = path.read_bytes()
    for isa in native_isas():
        opened, sections = open_pool(path, isa=isa, threads=2)
        shown = (opened.isa, opened.storage, opened.metric, opened.screen, opened.threads)
        assert shown == (isa, storage, metric, pool.screen, 2)
        assert (opened.dim, opened.n_columns) == (DIM, 2)
        assert answers(opened, queries) == expected
        before = pool.stats()
        assert {name: opened.stats()[name] for name in ("lists", "rows", "dead", "pages")} == {
            name: before[name] for name in ("lists", "rows", "dead", "pages")
        }
        assert list(sections) == ["ids", "settings", "none", "\u00e9"]
        assert sections["ids"].view(np.int64).tolist() == ids.tolist()
        assert bytes(sections["settings"]) == b'{"a": 1}' and bytes(sections["\u00e9"]) == b"abc"
        assert sections["none"].shape == (0,)
        with pytest.raises(ValueError, match="read-only"):
            sections["ids"][0] = 1
        again = tmp_path / "again"
        opened.save(again, sections)
        assert again.read_bytes() == saved, "the same state is the same file"
    assert sorted(os.listdir(tmp_path)) == ["again", "index"]


@pytest.mark.parametrize("storage", ["f32", "int8"])
def test_an_opened_pool_changes_like_any_other(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "index"
    queries = make_rows("normal", 2, DIM, 3)
    pool = filled(storage=storage)
    pool.save(str(path))
    saved = path.read_bytes()
    opened, sections = open_pool(os.fsencode(path))  # type: ignore[arg-type]
    assert sections == {}
    more = make_rows("normal", 200, DIM, 4)
    for each in (pool, opened):
        add(each, 3, list(range(4499, 4600)), more[:101])
        each.apply(
            [(8, i) for i in range(0, 300, 2)],
            np.array([77, 3]),
            np.array([1, 1]),
            np.array([1, 1], np.uint32),
            np.zeros((2, 2), np.int64),
            more[:2],
        )
    assert answers(opened, queries) == answers(pool, queries)
    assert path.read_bytes() == saved, "changes stay in memory"
    for each in (pool, opened):
        each.compact(3)
        each.drop([-7])
    assert answers(opened, queries) == answers(pool, queries)
    opened.save(path, {"v": b"2"})  # over the file that it is mapped from
    third, sections = open_pool(path)
    assert bytes(sections["v"]) == b"2"
    assert answers(third, queries) == answers(opened, queries) == answers(pool, queries)
    for list_id in third.lists().tolist():
        third.drop([list_id])
    assert third.stats() == {"lists": 0, "rows": 0, "dead": 0, "pages": 0, "bytes": 0}
    third.save(path)
    assert open_pool(path)[0].lists().tolist() == []
    assert answers(opened, queries) == answers(pool, queries)


def test_sections_outlive_their_pool(tmp_path: Path) -> None:
    filled().save(tmp_path / "index", {"ids": np.arange(9)})
    section = open_pool(tmp_path / "index")[1]["ids"]
    (tmp_path / "index").unlink()
    assert section.view(np.int64).tolist() == list(range(9))


def test_a_fork_goes_on_alone(tmp_path: Path) -> None:
    filled().save(tmp_path / "index")
    queries = make_rows("normal", 1, DIM, 2)
    pool, _ = open_pool(tmp_path / "index")
    expected = answers(pool, queries)
    child = os.fork()
    if child == 0:
        right = answers(pool, queries) == expected
        add(pool, 3, [1], queries)
        os._exit(0 if right and pool.stats()["rows"] > 4000 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert answers(pool, queries) == expected


def test_saves_beside_changes_hold_one_moment(tmp_path: Path) -> None:
    """Each change adds a row to two lists and takes the oldest: every file has both lists alike."""
    pool = Pool(4, 0)
    vectors = np.ones((2, 4), np.float32)
    stop = threading.Event()
    none = np.zeros((2, 0), np.int64)

    def change() -> None:
        at = 0
        while not stop.is_set():
            rows = np.array([at, at])
            pool.apply(
                [(0, at - 90), (1, at - 90)], np.array([0, 1]), rows, rows.astype(np.uint32), none, vectors
            )
            at += 1

    writer = threading.Thread(target=change)
    writer.start()
    try:
        newest = [0]
        while newest[-1] < 2000 or len(newest) < 20:
            pool.save(tmp_path / "index")
            opened, _ = open_pool(tmp_path / "index")
            if len(opened.lists()) == 0:
                continue
            first, second = opened.rows(0)[0], opened.rows(1)[0]
            assert first.tolist() == second.tolist()
            assert np.diff(first).tolist() == [1] * (len(first) - 1) and len(first) <= 90
            assert opened.vectors(1, second).tolist() == [[1.0] * 4] * len(second)
            newest.append(int(first[-1]))
    finally:
        stop.set()
        writer.join()
    assert newest == sorted(newest)
    assert os.listdir(tmp_path) == ["index"]


def test_refused_arguments(tmp_path: Path) -> None:
    pool = Pool(3, 0)
    bad: list[tuple[Any, type[Exception], str]] = [
        ({"": b""}, ValueError, "1 to 40 bytes, none of them zero, not 0"),
        ({"a" * 41: b""}, ValueError, "not 41"),
        ({"a\0": b""}, ValueError, "none of them zero"),
        ({1: b""}, TypeError, "must be strings, not int"),
        ({"a": "text"}, TypeError, "section 'a' must be bytes-like and contiguous; it is of type str"),
        ({"a": np.zeros((4, 4))[:, 1]}, TypeError, "contiguous"),
        ([("a", b"")], TypeError, "sections must be a dict, not list"),
    ]
    for sections, error, match in bad:
        with pytest.raises(error, match=match):
            pool.save(tmp_path / "index", sections)
    with pytest.raises(TypeError):
        pool.save(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null byte"):
        pool.save("a\0b")
    assert os.listdir(tmp_path) == []
    pool.save(tmp_path / "index")
    with pytest.raises(ValueError, match="isa 'mmx' is not supported"):
        open_pool(tmp_path / "index", isa="mmx")
    with pytest.raises(ValueError, match="threads must be within 1"):
        open_pool(tmp_path / "index", threads=0)


def test_permissions_and_links_of_the_file_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    filled().save(real)
    real.chmod(0o600)
    link.symlink_to(real)
    filled(storage="int8").save(link)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    assert open_pool(real)[0].storage == "int8"


# ------------------------------------------------------------------------------------------ example


def test_the_example_of_formats_md_is_a_file(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "FORMATS.md").read_text(encoding="utf-8")
    chapter = text.split("**Example.**")[1]
    size = int(re.findall(r"Of ([\d,]+) bytes", chapter)[0].replace(",", ""))
    example = bytearray(size)
    lines = re.findall(r"^([0-9a-f]{6})  ([0-9a-f ]{35})$", chapter.split("```")[1], re.MULTILINE)
    assert len(lines) == 20
    for offset, content in lines:
        at = int(offset, 16)
        example[at : at + 16] = bytes.fromhex(content)

    assert example[:8] == bytes.fromhex("89574d490d0a1a0a")
    version, order, file_bytes, dim, n_columns, storage, metric, screen, page_rows = struct.unpack_from(
        "<IIQ6I", example, 8
    )
    assert (version, order, file_bytes, page_rows) == (1, 0x01020304, size, 64)
    assert (dim, n_columns, storage, metric, screen) == (2, 1, 0, 0, 0)
    n_lists, n_pages, n_sections, n_rows, planes, sections = struct.unpack_from("<6Q", example, 48)
    assert (n_lists, n_pages, n_sections, n_rows) == (1, 1, 1, 1)
    plane_bytes = struct.unpack_from("<4Q", example, 96)
    assert plane_bytes == (0, 0, 512 * (n_columns + 2), 256 * 32)
    tables_crc, header_crc = (
        struct.unpack_from("<I", example, 128)[0],
        struct.unpack_from("<I", example, 252)[0],
    )
    assert tables_crc == crc32c(example[256:planes]) and header_crc == crc32c(example[:252])
    assert struct.unpack_from("<qQQQ", example, 256) == (5, 1, 1, 0)
    assert struct.unpack_from("<Q", example, 288) == (1,)
    checksums = struct.unpack_from("<4I", example, 296)
    heads, rows = planes, planes + plane_bytes[2]
    assert checksums == (0, 0, crc32c(example[heads:rows]), crc32c(example[rows:sections]))
    name, offset, length, crc, zero = struct.unpack_from("<40sQQII", example, 312)
    assert (name.rstrip(b"\0"), offset, length, zero) == (b"note", sections, 2, 0)
    assert example[offset : offset + 2] == b"hi" and crc == crc32c(example[offset : offset + 64])
    assert struct.unpack_from("<q", example, heads) == (-1,)
    assert struct.unpack_from("<q", example, heads + 512) == (7,)
    assert struct.unpack_from("<I", example, heads + 1024) == (3,)
    assert struct.unpack_from("<2f", example, rows) == (0.5, -2.0)

    path = tmp_path / "example"
    path.write_bytes(example)
    pool, found = open_pool(path)
    assert [part.tolist() for part in pool.rows(5)] == [[7], [3], [[-1]]]
    assert pool.vectors(5, np.array([7])).tolist() == [[0.5, -2.0]]
    assert bytes(found["note"]) == b"hi"
    pool.save(path, {"note": b"hi"})
    assert path.read_bytes() == bytes(example)
