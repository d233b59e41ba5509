"""Forked children of a process that had a store open: what they may do, and that none of them hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.harness import run_script

# argv: the parent's store, the child's store, and what either does.
_COMMON = """
import os, signal, sys, threading, time
import numpy as np
import warpmem
from warpmem.errors import StoreClosed, StoreError

parents, childs, first, then = sys.argv[1:]
ONE = np.ones(4)
KEYWORDS = {"write": {}, "read": {"read_only": True}, "follow": {"follow": True}}

def opened(path, how):
    return warpmem.open(path, dimension=4, backend="numpy", memtable_bytes=64 << 10, **KEYWORDS[how])

def text(number):
    return f"{number} " + "x" * 1000

def fork(body):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs is a failure
        body()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

_WRITES = f"""{_COMMON}
def write():
    with opened(childs, "write") as memory:
        for number in range(300):  # several memtables
            memory.add(text(number), user_id="ann", vector=ONE, durability="os")
    assert any(name.endswith(".sst") for name in os.listdir(childs))

def refused():
    try:
        opened(childs, "write")
    except StoreError as error:
        assert "spawn, forkserver or exec" in str(error), error
    else:
        raise AssertionError("opened for writing")
    try:
        warpmem.restore(backup, childs)
    except StoreError as error:
        assert "spawn, forkserver or exec" in str(error), error
    else:
        raise AssertionError("restored")
    assert not os.path.exists(childs)

def refused_in_its_child_too():
    refused()
    assert fork(refused) == 0

if first != "nothing":
    opened(parents, "write").close()
    backup = warpmem.backup(parents, parents + ".root").path
    warpmem.backup(parents, parents + ".root")  # a restored store notes it, which is a write
    if first != "write":
        opened(parents, first).close()
assert fork(write if first == "nothing" else refused_in_its_child_too) == 0
"""


@pytest.mark.parametrize("first", ["nothing", "write", "read", "follow"])
def test_a_child_writes_where_its_parent_had_opened_no_store(tmp_path: Path, first: str) -> None:
    run_script(_WRITES, str(tmp_path / "parents"), str(tmp_path / "childs"), first, "")


_READS = f"""{_COMMON}
with opened(parents, "write") as writer:
    writer.add(text(1), user_id="ann", vector=ONE)

    def read():
        with opened(parents, then) as memory:
            assert len(memory.search(vector=ONE, user_id="ann")) == 1

    assert fork(read) == 0
    writer.add(text(2), user_id="ann", vector=ONE)
    assert writer.stats().items == 2
"""


@pytest.mark.parametrize("then", ["read", "follow"])
def test_a_child_reads_what_its_parent_writes(tmp_path: Path, then: str) -> None:
    run_script(_READS, str(tmp_path / "store"), "", "", then)


_EXITS = f"""{_COMMON}
memory = opened(parents, "write")
memory.add(text(1), user_id="ann", vector=ONE)
walk = memory._log._engine.scan("items", b"", b"~")
next(walk, None)
if first == "closed":
    memory.close()
for _ in range(10):  # the memory of so many threads' stacks does not outlive a fork
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def leave():
    if then == "read":
        reader = opened(parents, "follow")
        assert len(reader.search(vector=ONE, user_id="ann")) == 1
    if then == "use":
        try:
            memory.stats()
        except StoreClosed:
            pass
    sys.stdout.write("said before the end")
    sys.exit(3)

sys.stdout.flush()
assert fork(leave) == 3
memory.close()
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("then", ["nothing", "use", "read"])
@pytest.mark.parametrize("first", ["open", "closed"])
def test_a_child_exits(tmp_path: Path, first: str, then: str) -> None:
    output = run_script(_EXITS, str(tmp_path / "store"), "", first, then)
    assert output == "said before the end"


_ASYNC = f"""{_COMMON}
import asyncio

async def use():
    await memory.add(text(1), user_id="ann", vector=ONE)
    await memory.search(vector=ONE, user_id="ann")

memory = asyncio.run(warpmem.AsyncMemory.open(dimension=4, backend="numpy"))
asyncio.run(use())
time.sleep(0.5)  # its threads are idle now: a call makes no new one

def use_in_child():
    for call in (lambda: memory.search(vector=ONE, user_id="ann"), memory.stats):
        try:
            asyncio.run(call())
        except StoreClosed as error:
            assert "before a fork" in str(error), error
        else:
            raise AssertionError("used in a forked child")
    asyncio.run(memory.close())

assert fork(use_in_child) == 0
asyncio.run(use())
asyncio.run(memory.close())
"""


def test_an_async_memory_is_refused_at_once() -> None:
    run_script(_ASYNC, "", "", "", "")
