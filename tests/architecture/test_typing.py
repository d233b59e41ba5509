"""What a type checker tells the users of the package."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

import public_api
import warpmem
from warpmem import AsyncMemory, Config, Memory
from warpmem.memory.options import AddOptions, ConfigOptions, OpenOptions, SearchOptions


@pytest.mark.parametrize(
    ("options", "method", "besides"),
    [
        (AddOptions, Memory.add, {"self", "content"}),
        (SearchOptions, Memory.search, {"self", "query", "k"}),
        (OpenOptions, warpmem.open, {"path", "options"}),
    ],
)
def test_options_are_the_keywords_of_the_method(options: type, method: object, besides: set[str]) -> None:
    assert callable(method)
    parameters = inspect.signature(method).parameters.values()
    keywords = {it.name: it.annotation for it in parameters if it.name not in besides}
    passed_on = ConfigOptions.__annotations__ if options is OpenOptions else {}
    own = options.__annotations__.keys() - passed_on.keys()
    assert {name: options.__annotations__[name].__forward_arg__ for name in own} == keywords


def _as_given(kind: Any) -> Any:
    """The type of a field of Config as open() takes it: tables as dicts, too, and any mapping for a dict."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind | Mapping[str, Any]
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return Mapping[key, _as_given(value)]  # type: ignore[valid-type]
    if type(None) in get_args(kind):
        (inner,) = set(get_args(kind)) - {type(None)}
        return _as_given(inner) | None
    return kind


def test_options_of_open_are_the_fields_of_the_configuration() -> None:
    own = {"path", *inspect.signature(warpmem.open).parameters}
    fields = {name: kind for name, kind in get_type_hints(Config).items() if name not in own}
    paths = dict.fromkeys(("tokenizer", "migration_backup"), str | os.PathLike[str] | None)
    expected = {name: _as_given(kind) for name, kind in fields.items()} | paths
    assert get_type_hints(ConfigOptions) == expected
    assert get_type_hints(AsyncMemory.open)["options"].__args__ == (OpenOptions,)


RIGHT = """
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import warpmem

def opened(texts: warpmem.Config) -> warpmem.Memory:
    warpmem.open("m.db", columns={"year": "number"}, forgetting={"max_items": 5}, tokenizer=Path("t"))
    warpmem.open(embedder="hashing", owner_budget=warpmem.Budget(money=1.0), durability="os", jobs_minutes=60)
    return warpmem.open("m.db", dimension=4, config=texts, embedders={"code": "hashing"})

async def opened_for_asyncio() -> warpmem.AsyncMemory:
    return await warpmem.AsyncMemory.open("m.db", threads=8, embedder="hashing", follow=True)

def of_an_index(index: warpmem.VectorIndex) -> NDArray[np.int64]:
    ids, scores = index.search(np.ones(4))
    assert scores.shape == ids.shape
    found = index.search(np.ones(4))
    worst: float = found.scores.min().item()
    return found.ids[found.scores > worst]

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
    "memory.search('text', user_id='u').vectors.shap",
    "warpmem.open('m.db', colums={'year': 'number'})",
    "warpmem.open('m.db', columns={'year': 'int'})",
    "warpmem.open('m.db', durability='fast')",
    "warpmem.open('m.db', item_cache='5')",
    "warpmem.open('m.db', embedder='wordlama')",
    "warpmem.AsyncMemory.open('m.db', folow=True)",
    "memory.reembed('wordlama')",
    "index.search([1.0]).ids.shap",
    "text: str = index.search([1.0]).scores",
]


def test_mypy_accepts_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT, encoding="utf-8")
    head = "import warpmem\ndef f(memory: warpmem.Memory, index: warpmem.VectorIndex) -> None:"
    wrong.write_text("\n    ".join([head, *WRONG]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", right.name, wrong.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = {line.rsplit(": error:")[0] for line in done.stdout.splitlines() if ": error:" in line}
    assert told == {f"wrong.py:{number}" for number in range(3, 3 + len(WRONG))}, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [Memory, AsyncMemory, warpmem.VectorIndex, warpmem.TrainingStream])
def test_annotations_of_methods_can_be_read_at_run_time(kind: type) -> None:
    """As makers of tools do; those of `context` and `add_document` named what was not there."""
    for name, method in public_api.public_methods(kind).items():
        assert "return" in get_type_hints(method), name


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(warpmem.__file__).parent / "py.typed").exists()
    assert inspect.signature(AsyncMemory.add) == inspect.signature(Memory.add)
