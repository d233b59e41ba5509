"""Bad input and bad weather: a typed error that says what to do, nothing half stored, nothing lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpmem
from warpmem import Memory, NewItem, errors


@pytest.fixture
def kept(memory: Memory) -> Any:
    """A memory with one item; afterwards exactly that item is still there."""
    item_id = memory.add("Has a cat", user_id="u").id
    before = memory.stats().sequence
    yield memory
    assert memory.stats().sequence == before, "a refused call must not reach the log"
    assert [hit.item.id for hit in memory.search("cat", user_id="u")] == [item_id]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(kept: Memory, text: str) -> None:
    with pytest.raises(errors.InvalidText):
        kept.add(text, user_id="u")
    with pytest.raises(errors.InvalidText):
        kept.search(text, user_id="u")


def test_two_mebibytes_of_text(kept: Memory) -> None:
    with pytest.raises(errors.InvalidText, match=r"1048576.*2097152|2097152.*1048576"):
        kept.add("x" * (2 << 20), user_id="u")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_unusable_vectors(kept: Memory, bad: float) -> None:
    vector = np.zeros(256)
    vector[0] = bad
    with pytest.raises(errors.InvalidVector):
        kept.add("x", user_id="u", vector=vector)
    with pytest.raises(errors.InvalidVector):
        kept.search(vector=vector, user_id="u")


def test_wrong_dimension(kept: Memory) -> None:
    with pytest.raises(errors.InvalidVector, match=r"256.*768"):
        kept.add("x", user_id="u", vector=np.ones(768))
    with pytest.raises(errors.InvalidVector, match=r"256.*768"):
        kept.search(vector=np.ones(768), user_id="u")


def test_missing_scope(kept: Memory) -> None:
    for call in (lambda: kept.add("x"), lambda: kept.search("x"), kept.list, kept.count, kept.delete_all):
        with pytest.raises(errors.InvalidScope, match="user_id"):
            call()
    for ids in ({"user_id": ""}, {"user_id": 7}, {"user_id": "u", "corpus_id": "c"}, {"user_id": "x" * 513}):
        with pytest.raises(errors.InvalidScope):
            kept.add("x", **ids)  # type: ignore[arg-type]


def test_unknown_filter_operator(kept: Memory) -> None:
    with pytest.raises(errors.InvalidFilter, match="like") as caught:
        kept.search("cat", user_id="u", filters={"and": [{"kind": "fact"}, {"metadata.a": {"like": "x"}}]})
    assert "and[1]" in caught.value.path and "metadata.a" in caught.value.path
    with pytest.raises(errors.InvalidFilter):
        kept.list(user_id="u", filters={"colour": "red"})


@pytest.mark.parametrize("k", [0, -1, 10**6, 2.5, True, None])
def test_k_out_of_range(kept: Memory, k: Any) -> None:
    with pytest.raises(errors.InputError, match="4096"):
        kept.search("cat", user_id="u", k=k)


@pytest.mark.parametrize(
    "metadata",
    [{"a": object()}, {"a": float("nan")}, {1: "a"}, {"a": "x" * 70_000}, ["a"], {"a": 2**70}, {"a": b"x"}],
)
def test_metadata_that_is_not_json(kept: Memory, metadata: Any) -> None:
    with pytest.raises(errors.InvalidMetadata):
        kept.add("x", user_id="u", metadata=metadata)


def test_naive_datetimes(kept: Memory) -> None:
    naive = datetime(2026, 1, 1)
    with pytest.raises(errors.InvalidTime, match="timezone"):
        kept.add("x", user_id="u", valid_from=naive)
    with pytest.raises(errors.InvalidTime):
        kept.add("x", user_id="u", expires_at=naive)
    for name in ("as_of", "known_at", "now"):
        with pytest.raises(errors.InvalidTime):
            kept.search("cat", user_id="u", **{name: naive})  # type: ignore[arg-type]


@pytest.mark.parametrize("embedder", ["hashing", "wordllama"])
def test_text_without_a_token(embedder: str) -> None:
    with warpmem.open(embedder=embedder) as memory, pytest.raises(errors.InvalidText):
        memory.add("\u200b\u200b", user_id="u")


def test_metadata_against_its_schema() -> None:
    schemas = {
        "preference": {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
    }
    with warpmem.open(embedder="hashing", schemas=schemas) as memory:
        memory.add("Likes tea", user_id="u", kind="preference", metadata={"level": 3})
        with pytest.raises(errors.SchemaViolation, match="level"):
            memory.add("Likes mate", user_id="u", kind="preference", metadata={"level": "high"})
        item_id = memory.list(user_id="u").items[0].id
        with pytest.raises(errors.SchemaViolation):
            memory.update(item_id, metadata={})
        assert memory.count(user_id="u") == 1 and memory.get(item_id).version == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 2},
        {"priority": "high"},
        {"kind": "No Spaces"},
        {"key": ""},
        {"key": 3},
        {"durability": "maybe"},
    ],
)
def test_other_arguments_out_of_range(kept: Memory, fields: dict[str, Any]) -> None:
    with pytest.raises(errors.InputError):
        kept.add("x", user_id="u", **fields)


@pytest.mark.parametrize("content", [None, 3, {"no": "role"}, [["nested"]], object()])
def test_content_of_an_unknown_shape(kept: Memory, content: Any) -> None:
    with pytest.raises(errors.InputError):
        kept.add(content, user_id="u")


def test_too_many_items_in_one_call(kept: Memory) -> None:
    with pytest.raises(errors.InputError, match=r"10000.*10001"):
        kept.add_many([NewItem(text="x")] * 10_001, user_id="u")


# --------------------------------------------------------------------------------- the data directory


def small_store(path: Path) -> list[str]:
    with warpmem.open(path, embedder="hashing") as memory:
        return [memory.add(f"note {i}", user_id="u").id for i in range(50)]


def test_a_corrupted_data_directory(tmp_path: Path) -> None:
    path = tmp_path / "store"
    small_store(path)
    (log,) = [file for file in path.iterdir() if file.suffix == ".log" and file.stat().st_size > 1000] or [
        None
    ]
    victim = log or max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0x10
    victim.write_bytes(data)
    with pytest.raises(errors.StoreCorrupt):
        read_everything(path)


def read_everything(path: Path) -> None:
    with warpmem.open(path, embedder="hashing") as memory:
        assert memory.count(user_id="u") == 50
        assert len(memory.search("note", user_id="u", k=100)) == 50
        memory.changes()


def test_a_directory_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(errors.FormatError):
        warpmem.open(tmp_path, embedder="hashing")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_model(tmp_path: Path) -> None:
    path = tmp_path / "store"
    small_store(path)
    with pytest.raises(errors.ModelMismatch, match=r"hashing-256-v1.*wordllama"):
        warpmem.open(path, embedder="wordllama")
    with pytest.raises(errors.ModelMismatch):
        warpmem.open(path, dimension=384)
    with warpmem.open(path) as memory:
        assert memory.stats().model_id == "hashing-256-v1", "without a name the store's own model is taken"


def test_a_read_only_store_refuses_writes_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "store"
    ids = small_store(path)
    with warpmem.open(path, embedder="hashing", read_only=True) as memory:
        for call in (lambda: memory.add("x", user_id="u"), lambda: memory.delete(ids[0])):
            with pytest.raises(errors.StoreReadOnly):
                call()
        assert len(memory.search("note", user_id="u", k=100)) == 50
    with pytest.raises(errors.StoreError):
        warpmem.open(tmp_path / "nothing here", embedder="hashing", read_only=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores permissions; the engine's test covers root")
def test_a_directory_without_write_permission(tmp_path: Path) -> None:
    path = tmp_path / "store"
    small_store(path)
    path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(errors.StoreError):
            warpmem.open(path, embedder="hashing")
    finally:
        path.chmod(stat.S_IRWXU)


def test_a_full_disk_refuses_early_and_keeps_reading(tmp_path: Path) -> None:
    path = tmp_path / "store"
    ids = small_store(path)
    with warpmem.open(path, embedder="hashing", min_free_bytes=1 << 60) as memory:
        with pytest.raises(errors.DiskFull, match="free"):
            memory.add("one more", user_id="u")
        assert memory.stats().items == 50
        assert {hit.item.id for hit in memory.search("note", user_id="u", k=100)} == set(ids)
    with warpmem.open(path, embedder="hashing") as memory:
        assert memory.add("one more", user_id="u").action == "added"


def test_a_second_process_is_told_who_holds_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    code = f"import warpmem; warpmem.open({str(path)!r}, embedder='hashing')"
    with warpmem.open(path, embedder="hashing"):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert result.returncode != 0
        assert "StoreLocked" in result.stderr and str(os.getpid()) in result.stderr


def test_use_after_close(tmp_path: Path) -> None:
    memory = warpmem.open(tmp_path / "store", embedder="hashing")
    memory.close()
    memory.close()
    for call in (lambda: memory.add("x", user_id="u"), lambda: memory.search("x", user_id="u"), memory.stats):
        with pytest.raises(errors.StoreClosed):
            call()


def test_an_embedder_that_misbehaves(tmp_path: Path) -> None:
    answers: list[Any] = [np.ones((1, 4))]
    with warpmem.open(
        tmp_path / "store", embedder=lambda texts: answers[0], dimension=4, model_id="mine"
    ) as memory:
        memory.add("good", user_id="u")
        for bad in (
            np.ones((1, 5)),
            np.ones((2, 4)),
            np.full((1, 4), np.nan),
            np.zeros((1, 4)),
            "text",
            None,
        ):
            answers[0] = bad
            with pytest.raises(errors.EmbeddingError):
                memory.add("bad", user_id="u")
        assert memory.count(user_id="u") == 1


def test_unknown_settings() -> None:
    for options in ({"durabilty": "os"}, {"durability": "never"}, {"item_cache": 0}, {"backend": "tpu"}):
        with pytest.raises(errors.InputError):
            warpmem.open(embedder="hashing", **options)
    with pytest.raises(errors.InputError):
        warpmem.open(embedder=lambda texts: texts)
    with pytest.raises(errors.InputError):
        warpmem.open(embedder="bert")
