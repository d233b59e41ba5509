"""What the adapters of other packages say where these are not installed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from warpmem.errors import MissingDependency


@pytest.mark.parametrize(("name", "package"), [("mcp", "anyio"), ("langgraph", "langgraph")])
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"warpmem.integrations.{name}", raising=False)
    with pytest.raises(MissingDependency, match=rf"pip install 'warpmem\[{name}\]'"):
        importlib.import_module(f"warpmem.integrations.{name}")


def test_the_server_says_so_in_a_line() -> None:
    code = (
        "import runpy, sys; sys.modules['anyio'] = None; "
        "runpy.run_module('warpmem.integrations.mcp', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "error: the Model Context Protocol needs its package: python -m pip install 'warpmem[mcp]'"
    ]
