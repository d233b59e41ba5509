"""VectorIndex.save and load. The frame of the file and its checksums are tested with the pool's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vector_indexes import BACKENDS, COLUMNS, T0, state_of
from warpmem import VectorIndex
from warpmem.errors import BackendUnavailable, FormatError, IndexCorrupt, InputError, StoreError
from warpmem.index import cpu, vector_file

DIM = 24


def make(backend: str = "cpu", **options: Any) -> VectorIndex:
    made = VectorIndex(DIM, backend=backend, columns=COLUMNS, threads=1, **options)
    rows = np.random.default_rng(0).standard_normal((300, DIM))
    words = [None if i % 7 == 0 else f"wört {i % 11}" for i in range(300)]
    made.add(rows, owners=np.arange(300) % 5, attributes={"s": words, "n": range(300), "t": T0})
    made.remove(range(0, 300, 4))
    made.update(range(1, 300, 4), attributes={"x": 0.5})
    return made


@pytest.mark.parametrize("storage", ["f32", "f16", "int8"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("through", BACKENDS)
def test_round_trip(tmp_path: Path, storage: Any, metric: Any, backend: str, through: str) -> None:
    made = make(backend, storage=storage, metric=metric, recall=0.75)
    queries = np.random.default_rng(1).standard_normal((3, DIM))
    made.save(tmp_path / "index")
    back = VectorIndex.load(str(tmp_path / "index"), backend=through, threads=1)
    assert state_of(back)[:6] == state_of(made)[:6]
    for condition in (None, {"s": {"contains": "1"}}, {"s": {"exists": False}}, {"x": 0.5, "n": {"lt": 90}}):
        found, expected = (
            back.search(queries, 30, filter=condition),
            made.search(queries, 30, filter=condition),
        )
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.scores.tobytes() == expected.scores.tobytes()
    stats = back.stats()
    assert (stats["metric"], stats["storage"], stats["wanted_recall"]) == (metric, storage, 0.75)
    for index in (made, back):  # and both go on alike
        assert index.add(np.ones((2, DIM)), attributes={"s": ["wört 3", "other"]}).tolist() == [300, 301]
        assert index.remove([1, 2, 4]) == 2
    assert state_of(back)[:6] == state_of(made)[:6]


def test_the_map_of_ids_is_built_when_it_is_needed(tmp_path: Path) -> None:
    made = make()
    made.save(tmp_path / "index")
    for use in (
        lambda back: back.remove(1) == 1,
        lambda back: 1 in back and 0 not in back,
        lambda back: back.vectors([1, 299]).tobytes() == made.vectors([1, 299]).tobytes(),
        lambda back: back.update(1, attributes={"n": 7}) is None,
        lambda back: back.add(np.ones(DIM), ids=0).tolist() == [0],
    ):
        back = VectorIndex.load(tmp_path / "index", threads=1)
        assert len(back) == 225
        back.search(np.ones(DIM), 5)
        assert back.add(np.ones(DIM)).tolist() == [300]
        assert back._store._ids is None
        assert use(back)
        assert back._store._ids is not None and 300 in back
    with pytest.raises(InputError, match="1 of the 1 ids are in the index"):
        VectorIndex.load(tmp_path / "index", threads=1).add(np.ones(DIM), ids=1)


def test_an_empty_index(tmp_path: Path) -> None:
    VectorIndex(3, threads=1).save(tmp_path / "index")
    back = VectorIndex.load(tmp_path / "index", threads=1)
    assert len(back) == 0
    assert back.search(np.ones(3), 2).ids.tolist() == [[-1, -1]]
    assert back.add(np.ones((1, 3))).tolist() == [0]


def test_saving_again_replaces(tmp_path: Path) -> None:
    made = make()
    made.save(tmp_path / "index")
    back = VectorIndex.load(tmp_path / "index", threads=1)
    back.add(np.ones((5, DIM)), attributes={"s": "newer"})
    back.save(tmp_path / "index")  # over the file it is mapped from
    again = VectorIndex.load(tmp_path / "index", threads=1)
    assert len(again) == len(back) == 230
    assert again.search(np.ones(DIM), 9, filter={"s": "newer"}).ids[0, :5].tolist() == list(range(300, 305))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def section_of(path: Path) -> Any:
    module, _ = cpu._load()
    assert module is not None
    pool, sections = module.open_pool(str(path))
    return pool, json.loads(bytes(sections[vector_file.SECTION]))


def test_the_section_is_as_documented(tmp_path: Path) -> None:
    make(metric="l2").save(tmp_path / "index")
    pool, described = section_of(tmp_path / "index")
    words = described.pop("strings")["s"]
    assert words[0] == "wört 1" and len(words) == 11
    assert described == {
        "version": 1,
        "dim": DIM,
        "metric": "l2",
        "storage": "f32",
        "recall": 1.0,
        "columns": [list(pair) for pair in COLUMNS.items()],
        "next_id": 300,
        "next_ordinal": 300,
        "approximate": False,
        "trained": True,
        "rows": 225,
    }
    assert (pool.dim, pool.n_columns, pool.metric) == (DIM, 5, "l2")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"version": 2}, FormatError, "format 2, this one reads up to 1"),
        (
            {"dim": DIM + 1},
            IndexCorrupt,
            f"of {DIM + 1} dimensions, 5 columns, l2 and f32, but they have {DIM}, 5, l2",
        ),
        ({"columns": [["n", "int64"]]}, IndexCorrupt, "1 columns"),
        ({"metric": 5}, IndexCorrupt, "not what was written"),
        ({"metric": "cosine"}, IndexCorrupt, "dot and f32, but they have"),
        ({"storage": "f16"}, IndexCorrupt, "l2 and f16, but they have"),
        ({"columns": 5}, IndexCorrupt, "not what was written"),
        ({"columns": [["or", "int64"]] * 5}, IndexCorrupt, "not what was written"),
        ({"next_id": -1}, IndexCorrupt, "not what was written"),
        ({"recall": 7}, IndexCorrupt, "not what was written"),
    ],
)
def test_a_section_that_does_not_fit(tmp_path: Path, change: Any, error: Any, words: str) -> None:
    make(metric="l2").save(tmp_path / "index")
    pool, described = section_of(tmp_path / "index")
    pool.save(str(tmp_path / "other"), {vector_file.SECTION: json.dumps({**described, **change}).encode()})
    with pytest.raises(error, match=words) as caught:
        VectorIndex.load(tmp_path / "other", threads=1)
    assert "other" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    make().save(tmp_path / "index")
    pool, _ = section_of(tmp_path / "index")
    pool.save(str(tmp_path / "bare"), {})
    with pytest.raises(FormatError, match="bare holds rows but no vector index"):
        VectorIndex.load(tmp_path / "bare")
    for text in (b"[]", b"{", b"5", b"\xff"):
        pool.save(str(tmp_path / "odd"), {vector_file.SECTION: text})
        with pytest.raises(IndexCorrupt, match="odd"):
            VectorIndex.load(tmp_path / "odd")
    (tmp_path / "text").write_text("hello" * 100)
    for name in ("text", "absent", "."):
        with pytest.raises((StoreError, InputError)):
            VectorIndex.load(tmp_path / name)
    with pytest.raises(InputError, match="no file has the name"):
        make().save("\ud800")
    with pytest.raises(InputError, match="no file has the name"):
        VectorIndex.load("\ud800")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a device or a pipe"):  # /dev/null became a file
        make().save(tmp_path / "pipe")
    with pytest.raises(InputError, match="path must be a path, not int"):
        VectorIndex.load(5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        VectorIndex.load(tmp_path / "index", threads=0)


def test_a_full_folder_leaves_the_old_file(tmp_path: Path) -> None:
    made = make()
    made.save(tmp_path / "index")
    before = (tmp_path / "index").read_bytes()
    with pytest.raises(StoreError):
        made.save(tmp_path / "no such folder" / "index")
    assert (tmp_path / "index").read_bytes() == before


def test_without_the_native_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("numpy")
    monkeypatch.setattr(cpu, "_load", lambda: (None, "it is not here"))
    with pytest.raises(BackendUnavailable, match="it is not here; reinstall"):
        made.save(tmp_path / "index")
    with pytest.raises(BackendUnavailable, match="it is not here; reinstall"):
        VectorIndex.load(tmp_path / "index", backend="numpy")
