"""The committed stubs say what the native modules offer."""

from __future__ import annotations

import pytest

import stubs


@pytest.mark.parametrize("module", stubs.MODULES)
def test_stub_matches_the_built_module(module: str):
    if not stubs.built(module):
        assert module == "_cuda", "every build has _cpu"
        pytest.skip("this build has no CUDA module")
    assert stubs.differences(module) == []


def test_comparison_sees_every_kind_of_drift():
    committed = (
        "class Pool:\n    def __init__(self, dim: int, *, isa: str = 'auto') -> None: ...\n"
        "    @property\n    def dim(self) -> int: ...\n"
        "def crc32c(data: bytes, value: int = 0) -> int: ...\n"
    )
    known = stubs.surface(committed)
    assert known == {
        "Pool": ("class",),
        "Pool.__init__": ("dim", "isa, by keyword="),
        "Pool.dim": ("property",),
        "crc32c": ("data", "value="),
    }
    for change in (
        committed.replace("crc32c", "crc32"),
        committed.replace("value: int = 0", "value: int"),
        committed.replace("value: int = 0", "start: int = 0"),
        committed.replace("*, isa", "isa"),
        committed.replace("    @property\n", ""),
        committed.replace("class Pool", "class Pages"),
    ):
        assert stubs.surface(change) != known
