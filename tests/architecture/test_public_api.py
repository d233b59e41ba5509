"""What users can name is pinned: a change to it is a decision, not an accident."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

import public_api
from warpmem import AsyncMemory, Memory, VectorIndex, errors

SNAPSHOT = Path(__file__).with_name("public_api.json")
_TREE_LINE = re.compile(r"^( +)([A-Z]\w+)(?: \((\w+)\))?(?: {2,}\S.*)?$")


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {leaf: it for key, inner in value.items() for leaf, it in _leaves(inner, f"{path}/{key}").items()}


def test_public_surface_is_the_recorded_one():
    """After a decision to change it: python tools/public_api.py > tests/architecture/public_api.json"""
    recorded = _leaves(json.loads(SNAPSHOT.read_text(encoding="utf-8")))
    actual = _leaves(public_api.snapshot())
    changed = {
        name: (recorded.get(name), actual.get(name))
        for name in sorted(recorded.keys() | actual.keys())
        if recorded.get(name) != actual.get(name)
    }
    assert changed == {}


@pytest.mark.parametrize("name", sorted(public_api.public_methods(Memory)))
def test_async_memory_has_the_same_method(name: str):
    method, twin = getattr(Memory, name), getattr(AsyncMemory, name, None)
    assert twin is not None, f"AsyncMemory lacks {name}"
    assert inspect.iscoroutinefunction(twin)
    assert _call(twin) == _call(method)
    assert twin.__doc__ == method.__doc__


def _call(method: Any) -> list[inspect.Parameter]:
    """Parameters after self, whose own kind does not show in a call."""
    return list(inspect.signature(method).parameters.values())[1:]


def test_every_public_method_has_a_contract():
    bare = [
        f"{kind}.{name}"
        for kind, owner in (("Memory", Memory), ("AsyncMemory", AsyncMemory), ("VectorIndex", VectorIndex))
        for name, member in public_api.public_methods(owner).items()
        if not (member.__doc__ or "").strip()
    ]
    assert bare == []


def test_exception_tree_is_the_documented_one():
    """The tree in the docstring of errors.py names every class, under its parent."""
    documented: dict[str, tuple[str | None, str | None]] = {}
    ancestors: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := _TREE_LINE.match(line):
            depth, name, builtin = len(match[1]), match[2], match[3]
            ancestors = [entry for entry in ancestors if entry[0] < depth]
            documented[name] = (ancestors[-1][1] if ancestors else None, builtin)
            ancestors.append((depth, name))
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    assert set(documented) == set(classes)
    for name, (parent, builtin) in documented.items():
        bases = [base.__name__ for base in classes[name].__bases__]
        assert bases == [base for base in (parent or "Exception", builtin) if base], name
