"""The public surface of warpmem as JSON: names, signatures, fields.

    python tools/public_api.py > tests/architecture/public_api.json

rewrites the snapshot that tests/architecture/test_public_api.py holds the package to.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import warpmem


def public_methods(kind: type) -> dict[str, Any]:
    """Public callables of a class and its bases, by name; the function of a class method."""
    bases = [base for base in reversed(kind.__mro__) if base.__module__.startswith("warpmem")]
    members = {
        name: getattr(member, "__func__", member) for base in bases for name, member in vars(base).items()
    }
    return {name: member for name, member in members.items() if not name.startswith("_") and callable(member)}


def signature(kind: type) -> str:
    """Parameters of a constructor with their defaults; exceptions take what they please."""
    if issubclass(kind, Exception):
        return ""
    shown = inspect.signature(kind)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in shown.parameters.values()]
    return str(shown.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def fields(kind: type) -> dict[str, str]:
    """Annotated fields as written in the source, so that every Python version shows them alike."""
    return {
        name: str(annotation)
        for base in reversed(kind.__mro__)
        for name, annotation in vars(base).get("__annotations__", {}).items()
        if not name.startswith("_")
    }


def snapshot() -> dict[str, Any]:
    """Everything a user of `import warpmem` can name, in plain JSON.

    AsyncMemory's twins of Memory's methods are left out: a test holds them to the originals.
    """
    public = {name: getattr(warpmem, name) for name in sorted(warpmem.__all__)}
    return {
        "names": list(public),
        "functions": {
            name: str(inspect.signature(it)) for name, it in public.items() if inspect.isfunction(it)
        },
        "classes": {
            name: {
                "signature": signature(kind),
                "fields": fields(kind),
                "methods": {
                    method: str(inspect.signature(member))
                    for method, member in public_methods(kind).items()
                    if kind is not warpmem.AsyncMemory or not hasattr(warpmem.Memory, method)
                },
            }
            for name, kind in public.items()
            if inspect.isclass(kind)
        },
        "errors": sorted(name for name, value in vars(warpmem.errors).items() if inspect.isclass(value)),
    }


if __name__ == "__main__":
    json.dump(snapshot(), sys.stdout, indent=1)
    print()
