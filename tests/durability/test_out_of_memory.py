"""Running out of memory, at whatever allocation, leaves the store whole."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from durability import out_of_memory

COUNT = 6


@pytest.mark.slow
def test_one_failed_allocation_leaves_the_store_whole(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc, and a C compiler for the shim that makes an allocation fail")
    outcomes = out_of_memory.run(out_of_memory.build(tmp_path, compiler), tmp_path, count=COUNT, seed=3)
    assert "exit" in outcomes, f"no allocation failed: {outcomes}"
