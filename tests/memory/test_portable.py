"""Export and import as methods: vectors on request, imports that go on where they were, and what they add."""

from __future__ import annotations

import base64
import codecs
import io
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import warpmem
from durability import exports
from durability.harness import run_kills
from warpmem import Memory
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError, InvalidScope, InvalidVector, StoreError

LINES = 40


def lines_of(count: int, kind: str = "message", begin: int = 0) -> bytes:
    """Lines whose repetition would be stored again, were they not known."""
    return b"".join(
        json.dumps({"text": f"line {n}", "user_id": "u", "kind": kind}).encode() + b"\n"
        for n in range(begin, count)
    )


def texts(memory: Memory) -> list[str]:
    return [item.text for item in memory.list(user_id="u", include_past=True, limit=10_000)]


@pytest.fixture
def memory() -> Memory:
    return warpmem.open(embedder="hashing")


# ------------------------------------------------------------------------------------------- vectors


def test_vectors_are_exported_on_request_and_not_embedded_again(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    given = rng.standard_normal((3, 256)).astype(np.float32)
    memory.add_many([f"text {n}" for n in range(3)], user_id="u", vectors=given)
    plain, full = io.BytesIO(), tmp_path / "full.jsonl"
    assert memory.export(plain) == memory.export(full, vectors=True) == 3
    assert b'"vector"' not in plain.getvalue()
    line = json.loads(full.read_bytes().splitlines()[0])
    stored = np.frombuffer(base64.b64decode(line["vector"]), "<f4")
    assert abs(float(np.linalg.norm(stored)) - 1) < 1e-6
    assert np.allclose(stored, given[0] / np.linalg.norm(given[0]), atol=1e-6)

    other = warpmem.open(embedder="hashing")
    monkeypatch.setattr(HashingEmbedder, "embed", refuse)
    assert other.import_(full).stored == {"added": 3}
    again = io.BytesIO()
    other.export(again, vectors=True)
    assert vectors_in(again.getvalue()) == vectors_in(full.read_bytes()) != []


def vectors_in(export: bytes) -> list[str]:
    return [line["vector"] for line in map(json.loads, export.splitlines()) if "end" not in line]


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the vectors were given")


def test_vectors_of_another_model_are_made_anew(memory: Memory) -> None:
    vector = base64.b64encode(np.eye(1, 256, dtype="<f4").tobytes()).decode()
    line = {"text": "hello", "user_id": "u", "vector": vector, "model_id": "another"}
    memory.import_(io.BytesIO(json.dumps(line).encode()))
    (hit,) = memory.search("hello", user_id="u", k=1, return_vectors="numpy")
    assert hit.score > 0.99


@pytest.mark.parametrize("vector", ["???", "AAAA", base64.b64encode(bytes(1024)).decode()])
def test_vectors_that_are_none_are_refused(memory: Memory, vector: str) -> None:
    line = {"text": "x", "user_id": "u", "vector": vector, "model_id": memory.stats().model_id}
    report = memory.import_(io.BytesIO(json.dumps(line).encode()))
    assert report.stopped and report.refused[0][1].startswith(f"{InvalidVector.__name__}: line 1: ")
    assert texts(memory) == []


# -------------------------------------------------------------------------------------- going on


def test_a_file_that_was_imported_adds_nothing_for_good(memory: Memory) -> None:
    data = lines_of(LINES)
    assert memory.import_(io.BytesIO(data)).stored == {"added": LINES}
    forget_keys(memory)
    report = memory.import_(io.BytesIO(data))
    assert (report.stored, report.before) == ({}, LINES)
    assert len(texts(memory)) == LINES
    # Without it the keys of the lines are all that is known, and they were forgotten.
    assert memory.import_(io.BytesIO(data), again=True).stored == {"added": LINES}


def test_a_file_that_has_grown_goes_on_at_its_end(memory: Memory) -> None:
    memory.import_(io.BytesIO(lines_of(LINES)), batch=7)
    forget_keys(memory)
    report = memory.import_(io.BytesIO(lines_of(LINES + 5)), batch=7)
    assert (report.stored, report.before) == ({"added": 5}, LINES)


def test_another_file_with_the_same_first_line_begins_anew(memory: Memory) -> None:
    memory.import_(io.BytesIO(lines_of(3)))
    changed = lines_of(1) + lines_of(9, begin=6)
    report = memory.import_(io.BytesIO(changed))
    assert report.before == 0 and report.stored == {"added": 4}, "one of them by its key, three are new"
    assert len(texts(memory)) == 6


def test_the_scope_and_the_kind_of_the_call_are_part_of_what_is_known(memory: Memory) -> None:
    data = b'{"text": "hello"}\n'
    for scope in (warpmem.Scope(user_id="u"), warpmem.Scope(user_id="v")):
        for kind in ("message", "event"):
            assert memory.import_(io.BytesIO(data), scope=scope, kind=kind).stored == {"added": 1}


def test_equal_lines_stay_two_when_the_first_was_passed_over(memory: Memory) -> None:
    """The second of two equal lines has a key of its own, which counts the lines passed over."""
    line = lines_of(1)
    memory.import_(io.BytesIO(line))
    assert memory.import_(io.BytesIO(line + line)).stored == {"added": 1}
    assert texts(memory) == ["line 0", "line 0"]
    assert memory.import_(io.BytesIO(line + line), again=True).stored == {"added": 2}
    assert texts(memory) == ["line 0", "line 0"]


def test_an_import_that_is_cut_short_goes_on(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    add_many: Callable[..., Any] = Memory.add_many

    def fail_at_the_third(self: Memory, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StoreError("the disk is gone")
        return add_many(self, *arguments, **options)

    monkeypatch.setattr(Memory, "add_many", fail_at_the_third)
    with pytest.raises(StoreError, match="gone"):
        memory.import_(io.BytesIO(lines_of(LINES)), batch=10)
    assert len(texts(memory)) == 20
    forget_keys(memory)
    report = memory.import_(io.BytesIO(lines_of(LINES)), batch=10)
    assert (report.before, report.stored) == (20, {"added": 20})
    assert texts(memory) == [f"line {n}" for n in range(LINES)]


def test_a_refused_line_is_where_the_next_run_goes_on(memory: Memory) -> None:
    data = lines_of(10) + b"no json\n" + lines_of(12, begin=10)
    said: list[str] = []
    report = memory.import_(io.BytesIO(data), batch=4, say=said.append)
    assert report.stopped and report.stored == {"added": 10} and said == [report.refused[0][1]]
    assert report.refused[0][0] == 11
    forget_keys(memory)
    report = memory.import_(io.BytesIO(data), batch=4, skip_errors=True)
    assert (report.before, report.stored, report.skipped, report.stopped) == (10, {"added": 2}, 1, False)
    forget_keys(memory)
    report = memory.import_(io.BytesIO(data))
    assert (report.before, report.stored, report.stopped) == (10, {}, True)
    report = memory.import_(io.BytesIO(data), skip_errors=True)
    assert (report.before, report.stored, report.skipped, report.stopped) == (12, {}, 1, False)


def test_an_enforced_scope_refuses_lines_that_name_another(memory: Memory) -> None:
    """A file went wherever it said, and superseded others' values."""
    memory.add("trusted", user_id="bob", key="home")
    ann = warpmem.Scope(user_id="ann", agent_id="a")
    others: list[dict[str, Any]] = [
        {"text": "evil", "user_id": "bob", "key": "home"},
        {"role": "user", "content": "evil", "user_id": "bob"},
        {"text": "evil", "user_id": "ann"},
        {"text": "evil", "user_id": "ann", "agent_id": "b"},
        {"text": "evil", "agent_id": "a"},
        {"text": "evil", "corpus_id": "handbook"},
    ]
    own = {"user_id": "ann", "agent_id": "a", "run_id": "r"}
    lines = [*others, {"text": "one"}, {"role": "user", "content": "two"}, {"text": "three", **own}]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    report = memory.import_(io.BytesIO(data), scope=ann, enforce_scope=True, skip_errors=True)
    assert (report.stored, report.skipped) == ({"added": 3}, len(others))
    assert all(text.startswith(InvalidScope.__name__) for _, text in report.refused)
    assert [item.text for item in memory.list(ann)] == ["one", "two", "three"]
    assert [item.text for item in memory.list(user_id="bob")] == ["trusted"]
    assert [scope.owner.id for scope in memory.owners()] == ["bob", "ann"]
    with pytest.raises(InputError, match="enforce_scope is for an import with a scope"):
        memory.import_(io.BytesIO(data), enforce_scope=True)


def test_streams_that_cannot_seek(memory: Memory) -> None:
    read, write = os.pipe()
    os.write(write, lines_of(5))
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        report = memory.import_(stream)
    assert (report.stored, report.before) == ({"added": 5}, 0)


@pytest.mark.parametrize("name", ["text", "content"])
def test_large_lines_are_not_held_by_the_batch(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A text over its limit is refused when its line is read, and a commit has 8 MiB of lines."""
    calls: list[int] = []
    add_many: Callable[..., Any] = Memory.add_many
    monkeypatch.setattr(
        Memory, "add_many", lambda self, items: calls.append(len(items)) or add_many(self, items)
    )
    who = {"role": "user"} if name == "content" else {}
    over = [{**who, name: "x" * (2 << 20), "user_id": "u"}] * 20
    large = [{"text": f"{n}", "user_id": "u", "metadata": {"x": "y" * (2 << 20)}} for n in range(8)]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in over + large) + lines_of(3)
    report = memory.import_(io.BytesIO(data), skip_errors=True)
    assert (report.skipped, report.stored) == (28, {"added": 3})
    assert max(calls) == 4


def test_what_is_no_file_is_refused(memory: Memory, tmp_path: Path) -> None:
    for call in (memory.import_, memory.export):
        with pytest.raises(InputError, match="file must be a path or a binary stream, not int"):
            call(5)
    text: Any = io.StringIO('{"text": "x", "user_id": "u"}')
    for call in (memory.import_, memory.export):
        with pytest.raises(InputError, match="open it in binary mode"):
            call(text)
    with tempfile.TemporaryFile("w+", dir=tmp_path) as whole, tempfile.NamedTemporaryFile("w+") as wrapped:
        for stream in (whole, wrapped):
            stream.write(text.getvalue())
            stream.seek(0)
            with pytest.raises(InputError, match="open it in binary mode"):
                memory.import_(stream)
    with open(tmp_path / "file", "wb") as only_written, pytest.raises(InputError, match="mode 'rb'"):
        memory.import_(only_written)
    with open(tmp_path / "file", "rb") as only_read, pytest.raises(InputError, match="mode 'wb'"):
        memory.export(only_read)
    with pytest.raises(InputError, match="cannot read"):
        memory.import_(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot write"):
        memory.export(tmp_path / "absent" / "file")
    with pytest.raises(InputError, match="batch"):
        memory.import_(io.BytesIO(b""), batch=0)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: tempfile.NamedTemporaryFile("w+"),  # noqa: SIM115
        lambda: tempfile.SpooledTemporaryFile(mode="w+"),  # noqa: SIM115
        lambda: codecs.StreamReaderWriter(io.BytesIO(), *codecs.lookup("ascii")[2:]),
    ],
    ids=["named", "spooled", "codecs"],
)
def test_wrappers_of_text_are_refused_with_the_remedy(memory: Memory, wrapped: Callable[[], Any]) -> None:
    """They are no TextIOBase: export raised a bare TypeError, and import a bare UnicodeDecodeError."""
    with wrapped() as stream:
        with pytest.raises(InputError, match="open it in binary mode"):
            memory.export(stream)
        stream.seek(0)
        assert stream.read() == ""
        stream.write("no line\n")
        stream.seek(0)
        with pytest.raises(InputError, match="open it in binary mode"):
            memory.import_(stream)
    stream = codecs.getreader("ascii")(io.BytesIO(b"\xff\n"))
    with pytest.raises(InputError, match="open it in binary mode"):
        memory.import_(stream)


def test_a_binary_stream_needs_no_more_than_the_method_that_is_called(memory: Memory) -> None:
    """Import asked for seekable() and export for flush()."""
    written = bytearray()
    memory.add("one", user_id="u")
    memory.export(SimpleNamespace(write=written.extend))  # type: ignore[arg-type]
    source = io.BytesIO(written)
    memory.delete_all(user_id="u")
    report = memory.import_(SimpleNamespace(readline=source.readline), again=True)  # type: ignore[arg-type]
    assert report.stored == {"added": 1}
    for call in (memory.import_, memory.export):
        with pytest.raises(InputError, match=r"SimpleNamespace, which has no (readline|write)\(\)"):
            call(SimpleNamespace(flush=bool))  # type: ignore[arg-type]


def forget_keys(memory: Memory) -> None:
    """What a week does: the idempotency keys of lines are not known any more."""
    engine = memory._log._engine
    keys = [key for key, _ in engine.scan("lookup", b"", b"\xff" * 64) if key[4:5] in (b"i", b"t")]
    assert keys
    engine.write([("lookup", key, None) for key in keys])


# -------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("kind", exports.KINDS)
def test_damage_to_an_export_is_refused_or_harmless(kind: str) -> None:
    outcomes = exports.run_many(kind, 30)
    assert outcomes["refused"] >= 20, outcomes


def test_an_export_laid_out_otherwise_is_taken(memory: Memory) -> None:
    data = exports.make_export(5).splitlines()
    loose = [json.dumps(dict(reversed(json.loads(line).items())), indent=None) for line in data]
    assert memory.import_(io.BytesIO("\n".join(loose).encode())).stored == {"added": 5}
    joined = exports.make_export(3) + exports.make_export(4)
    assert not memory.import_(io.BytesIO(joined)).stopped


def test_an_empty_file_is_refused(memory: Memory) -> None:
    report = memory.import_(io.BytesIO(b""))
    ((number, error),) = report.refused
    assert report.stopped and report.stored == {} and number == 1 and "an empty file is no export" in error


def test_an_export_that_is_cut_off_goes_on_when_it_is_whole(memory: Memory) -> None:
    data = exports.make_export(9)
    lines = data.splitlines(keepends=True)
    report = memory.import_(io.BytesIO(b"".join(lines[:6])))
    assert report.stopped and "cut off after this line" in report.refused[0][1]
    report = memory.import_(io.BytesIO(data))
    assert (report.before, report.stored, report.stopped) == (6, {"added": 3}, False)


# -------------------------------------------------------------------------------------------- kill -9


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Imports one file again and again, a few lines longer each time."""
    memory = warpmem.open(path, embedder="hashing", min_free_bytes=0)
    rng = random.Random(seed)
    file = Path(f"{path}.jsonl")
    while True:
        count = len(texts(memory)) + rng.randrange(1, 40)
        temporary = file.with_suffix(".new")
        temporary.write_bytes(lines_of(count))
        temporary.replace(file)
        memory.import_(file, batch=rng.randrange(1, 10))
        acknowledge(b"%d" % count)


def check(path: str, acknowledged: list[bytes]) -> None:
    """The lines of the file so far, each once."""
    with warpmem.open(path, embedder="hashing", min_free_bytes=0) as memory:
        found = texts(memory)
        assert found == [f"line {n}" for n in range(len(found))]
        assert len(found) >= max([int(token) for token in acknowledged], default=0)


def kill_imports(folder: Path, kills: int, seed: int) -> int:
    """Kill a process that imports, `kills` times; returns how many imports were acknowledged."""
    return run_kills(
        "memory.test_portable:child", check, folder, kills=kills, seed=seed, fresh_every=8, longest=0.8
    )


@pytest.mark.slow
def test_killed_imports_add_nothing_twice(tmp_path: Path) -> None:
    assert kill_imports(tmp_path, kills=8, seed=3) > 0
