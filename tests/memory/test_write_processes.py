"""Processes that write one store by one of them: killed, forked, and several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import warpmem
from warpmem import Memory
from warpmem.embed.callable import CallableEmbedder
from warpmem.errors import WriterUnavailable

USER: dict[str, Any] = {"user_id": "nadia"}


def follow(path: Path, **options: Any) -> Memory:
    return warpmem.open(path, follow=True, follow_ms=0, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


WRITER = """
import sys, time, warpmem
from warpmem.embed.hashing import HashingEmbedder
from warpmem.embed.callable import CallableEmbedder

def embed(texts):
    if "slow" in texts:
        print("slow", flush=True)
        time.sleep(60)
    return HashingEmbedder().embed(texts, role="document")

with warpmem.open(sys.argv[1], embedder=CallableEmbedder(embed, "m", 256)) as memory, warpmem.serve(memory):
    print("ready", flush=True)
    sys.stdin.read()
"""


def started(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_a_killed_writer_is_told_and_the_next_one_found(path: Path) -> None:
    with started(path) as first, ThreadPoolExecutor(1) as threads:
        follower = follow(path, embedder=CallableEmbedder(len, "m", 256))  # type: ignore[arg-type]
        assert first.stdout is not None
        kept = follower.add("kept", **USER)
        adding = threads.submit(follower.add, "slow", **USER)
        assert first.stdout.readline() == "slow\n"
        first.kill()
        with pytest.raises(WriterUnavailable, match="broke off") as caught:
            adding.result(30)
        assert caught.value.sent
        assert follower.get(kept.id).text == "kept"
        with pytest.raises(WriterUnavailable) as caught:
            follower.add("nobody there", **USER)
        assert not caught.value.sent
    with started(path) as second:
        again = follower.add("again", **USER)
        assert {item.text for item in follower.list(**USER)} == {"kept", "again"}
        assert follower.get(again.id).version == 1
        second.terminate()
    follower.close()


CHILD = """
import sys, warpmem
with warpmem.open(sys.argv[1], follow=True) as memory:
    for number in range(25):
        added = memory.add(f"{sys.argv[2]} {number}", user_id=sys.argv[2], durability="os")
        assert memory.get(added.id).text == f"{sys.argv[2]} {number}"
        assert memory.count(user_id=sys.argv[2]) == number + 1
    assert memory.add("of all", user_id="all", key="one", durability="os").action in ("added", "touched")
"""


def test_several_processes_write(path: Path) -> None:
    with warpmem.open(path, embedder="hashing") as writer, warpmem.serve(writer):
        names = [f"p{i}" for i in range(4)]
        children = [subprocess.Popen([sys.executable, "-c", CHILD, str(path), name]) for name in names]
        assert [child.wait(120) for child in children] == [0] * 4
        assert [writer.count(user_id=name) for name in names] == [25] * 4
        assert writer.count(user_id="all", include_past=True) == 1


def test_a_forked_child_keeps_no_connection_open(path: Path) -> None:
    with warpmem.open(path, embedder="hashing") as writer:
        server = warpmem.serve(writer)
        follower = follow(path)
        follower.add("Nadia lives in Porto.", **USER)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        try:
            server.close()
            with pytest.raises(WriterUnavailable):
                follower.add("x", **USER)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            follower.close()


def test_the_command_serves_until_it_is_told_to_stop(path: Path) -> None:
    command = [sys.executable, "-m", "warpmem", "serve", "--store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"taking changes for {path}\n"
        with follow(path) as follower:
            follower.add("Nadia lives in Porto.", **USER)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with warpmem.open(path) as memory:
        assert memory.count(**USER) == 1
