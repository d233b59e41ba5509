"""Compare the committed stubs of the native modules with the modules themselves.

    python tools/stubs.py        prints what differs and exits 1 if anything does

pybind11-stubgen reads the built module; both sides are parsed with ast and compared by the names of
functions, classes, methods and properties, and by parameters: name, order, kind, default or none.
Types are written by hand (the generator knows no array dtypes), so they are not compared.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("_cpu", "_cuda")

Signature: TypeAlias = tuple[str, ...]
Surface: TypeAlias = dict[str, Signature]


def surface(source: str) -> Surface:
    """Qualified public name -> what a caller can see of it, from the text of a stub."""
    found: Surface = {}
    _collect(ast.parse(source).body, "", found)
    return found


def _collect(body: list[ast.stmt], prefix: str, found: Surface) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[prefix + node.name] = ("class",)
            _collect(node.body, f"{prefix}{node.name}.", found)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
            name, shown = prefix + node.name, _parameters(node.args)
            if "overload" in marks and name in found:
                # Overloads are one function, in which a parameter is optional if any of them lets it be.
                shown = tuple(max(pair, key=len) for pair in zip(found[name], shown, strict=True))
            found[name] = ("property",) if "property" in marks else shown


def _parameters(arguments: ast.arguments) -> Signature:
    plain = [*arguments.posonlyargs, *arguments.args]
    optional = len(plain) - len(arguments.defaults)
    shown = [
        argument.arg + ("=" if position >= optional else "")
        for position, argument in enumerate(plain)
        if position or argument.arg != "self"
    ]
    if arguments.vararg is not None:
        shown.append(f"*{arguments.vararg.arg}")
    shown.extend(
        f"{argument.arg}, by keyword" + ("" if default is None else "=")
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    )
    if arguments.kwarg is not None:
        shown.append(f"**{arguments.kwarg.arg}")
    return tuple(shown)


def built(module: str) -> bool:
    """Whether this installation has the native module."""
    return importlib.util.find_spec(f"warpmem.{module}") is not None


def generate(module: str) -> str:
    """The stub that pybind11-stubgen writes for an installed native module."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", f"warpmem.{module}", "-o", folder, "--exit-code"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"pybind11-stubgen failed on warpmem.{module}:\n{done.stderr}")
        return (Path(folder) / "warpmem" / f"{module}.pyi").read_text(encoding="utf-8")


def differences(module: str) -> list[str]:
    """One line for each name that the committed stub and the built module do not share."""
    committed = surface((ROOT / "python" / "warpmem" / f"{module}.pyi").read_text(encoding="utf-8"))
    actual = surface(generate(module))
    return [
        f"{module}.{name}: the stub says {committed.get(name)}, the module {actual.get(name)}"
        for name in sorted(committed.keys() | actual.keys())
        if committed.get(name) != actual.get(name)
    ]


if __name__ == "__main__":
    lines = [line for module in MODULES if built(module) for line in differences(module)]
    print("\n".join(lines) or f"stubs agree: {', '.join(module for module in MODULES if built(module))}")
    sys.exit(1 if lines else 0)
