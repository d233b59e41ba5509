"""What an export is written to: files, pipes, devices and open files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import warpmem
from warpmem import Memory
from warpmem.errors import InputError


@pytest.fixture
def memory() -> Memory:
    return warpmem.open(embedder="hashing")


def test_nothing_is_exported_into_the_store(tmp_path: Path) -> None:
    """A name such as warpmem.index took the place of what is kept there."""
    with warpmem.open(tmp_path / "store", embedder="hashing") as memory:
        (tmp_path / "link").symlink_to(tmp_path / "store")
        for inside in (tmp_path / "store" / "warpmem.index", tmp_path / "link" / "out.jsonl"):
            with pytest.raises(InputError, match="inside"):
                memory.export(inside)
        assert memory.export(tmp_path / "out.jsonl") == 0


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_file_is_written_to_and_not_replaced(memory: Memory, tmp_path: Path, name: str) -> None:
    """Exports to /dev/stdout put a file in its place."""
    memory.add("text", user_id="u")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert memory.export(tmp_path / name) == 1
        assert json.loads(os.read(reader, 1 << 16).splitlines()[0])["text"] == "text"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_an_open_file_is_written_on_by_its_descriptor(memory: Memory, tmp_path: Path) -> None:
    """A pipe behind /dev/fd had no name to be opened by, and what a file held already was lost."""
    memory.add("text", user_id="u")
    reading, writing = os.pipe()
    assert memory.export(f"/dev/fd/{writing}") == 1
    assert json.loads(os.read(reading, 1 << 16).splitlines()[0])["text"] == "text"
    os.close(reading)
    os.close(writing)
    (tmp_path / "out").write_bytes(b"before\n")
    with open(tmp_path / "out", "ab") as out:
        assert memory.export(f"/dev/fd/{out.fileno()}") == 1
    before, *lines = (tmp_path / "out").read_bytes().splitlines()
    assert before == b"before" and json.loads(lines[0])["text"] == "text"


def test_standard_output_is_written_to_whatever_it_is(tmp_path: Path) -> None:
    code = (
        "import warpmem\n"
        "with warpmem.open(embedder='hashing') as memory:\n"
        "    memory.add('text', user_id='u')\n"
        "    memory.export('/dev/stdout')\n"
    )
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60)
    assert json.loads(piped.stdout.splitlines()[0])["text"] == "text"
    (tmp_path / "out").write_bytes(b"before\n")
    with open(tmp_path / "out", "ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=60)
    assert (tmp_path / "out").read_bytes().startswith(b'before\n{"')


def test_a_closed_stream_is_refused(memory: Memory) -> None:
    memory.add("text", user_id="u")
    for move in (memory.export, memory.import_):
        closed = io.BytesIO()
        closed.close()
        with pytest.raises(InputError, match="closed"):
            move(closed)


def test_a_link_to_a_file_goes_on_leading_there(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("today")
    memory.export(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink() and (tmp_path / "today").read_bytes()
