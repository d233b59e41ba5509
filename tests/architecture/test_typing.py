"""What a type checker tells the users of the package."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import warpmem
from warpmem import AsyncMemory, Memory
from warpmem.memory.options import AddOptions, SearchOptions


@pytest.mark.parametrize(
    ("options", "method", "besides"),
    [
        (AddOptions, Memory.add, {"self", "content"}),
        (SearchOptions, Memory.search, {"self", "query", "k"}),
    ],
)
def test_options_are_the_keywords_of_the_method(options: type, method: object, besides: set[str]) -> None:
    assert callable(method)
    parameters = inspect.signature(method).parameters.values()
    keywords = {it.name: it.annotation for it in parameters if it.name not in besides}
    assert {name: it.__forward_arg__ for name, it in options.__annotations__.items()} == keywords


RIGHT = """
import warpmem

def of_one(memory: warpmem.Memory) -> str:
    item = memory.add("text", user_id="u", metadata={"a": 1})
    said = memory.add({"role": "user", "content": "text"}, user_id="u")
    return item.id + said.id + memory.context("text", user_id="u", mode="hybrid", k=3).text

def of_several(memory: warpmem.Memory) -> int:
    return len(memory.add(["text", warpmem.NewItem(text="text")], user_id="u")[0].id)

async def for_asyncio(memory: warpmem.AsyncMemory) -> str:
    await memory.context("text", user_id="u", deadline=1.0)
    (item,) = await memory.add(["text"], user_id="u")
    return (await memory.add("text", user_id="u")).id + item.id
"""
WRONG = [
    "memory.add('text', user='u')",
    "memory.add(5, user_id='u')",
    "memory.add(['text'], user_id='u').id",
    "memory.context('text', usr_id='u')",
    "memory.context('text', user_id=5)",
    "memory.search('text', user_id='u', mode='words')",
]


def test_mypy_accepts_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT, encoding="utf-8")
    head = "import warpmem\ndef f(memory: warpmem.Memory) -> None:"
    wrong.write_text("\n    ".join([head, *WRONG]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", right.name, wrong.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = {line.rsplit(": error:")[0] for line in done.stdout.splitlines() if ": error:" in line}
    assert told == {f"wrong.py:{number}" for number in range(3, 3 + len(WRONG))}, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(warpmem.__file__).parent / "py.typed").exists()
    assert inspect.signature(AsyncMemory.add) == inspect.signature(Memory.add)
