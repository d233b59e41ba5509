"""The commands for single memories: get, value, history, update and delete."""

from __future__ import annotations

import argparse
from typing import Any, Final

from msgspec import UNSET

from ..errors import NotFound
from ..types import MemoryItem, Version
from .adding import read_stdin
from .output import item_fields, item_line, one_line, print_json, to_json
from .stores import ids_or_all, open_existing, open_store, scope_of

_CHANGES: Final = (
    "text", "metadata", "priority", "trust", "entities", "valid_from", "valid_to", "expires_at"
)  # fmt: skip


def get(args: argparse.Namespace) -> int:
    """Print items with all that is known of them."""
    with open_store(args, read_only=True) as memory:
        found = [memory.get(item_id, scope=scope_of(args)) for item_id in args.ids]
    for place, item in enumerate(found):
        if args.json:
            print_json(item_fields(item))
            continue
        if place:
            print()
        _show(item)
    return 0


def _show(item: MemoryItem) -> None:
    fields = item_fields(item)
    text = fields.pop("text")
    for name, value in fields.items():
        if value not in ((), {}):
            print(f"{name:15} {_told(value)}")
    print("text")
    for line in text.splitlines():
        print(f"  {one_line(line)}")


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(one_line, value))
    if isinstance(value, dict):
        return to_json(value)
    return value.isoformat() if hasattr(value, "isoformat") else one_line(str(value))


def value(args: argparse.Namespace) -> int:
    """Print the item that is the value of a key. Raises NotFound where there is none."""
    with open_store(args, read_only=True) as memory:
        item = memory.value(args.key, scope=scope_of(args), as_of=args.as_of)
    if item is None:
        raise NotFound("this key has no value in exactly this scope" + (" then" if args.as_of else ""))
    if args.json:
        print_json(item_fields(item))
    else:
        print(item_line(item))
    return 0


def history(args: argparse.Namespace) -> int:
    """Print the versions of an item, oldest first."""
    with open_store(args, read_only=True) as memory:
        versions = memory.history(args.id, scope=scope_of(args))
    for version in versions:
        if args.json:
            print_json(_version_fields(version))
        else:
            print(_version_line(version))
    return 0


def _version_fields(version: Version) -> dict[str, Any]:
    fields: dict[str, Any] = {"operation": version.operation, "at": version.at}
    if version.reason is not None:
        fields["reason"] = version.reason
    return fields if version.item is None else {**fields, "item": item_fields(version.item)}


def _version_line(version: Version) -> str:
    reason = f" ({one_line(version.reason)})" if version.reason is not None else ""
    done = f"{version.at.isoformat()}  {version.operation}{reason}"
    return done if version.item is None else f"{done}, version {version.item.version}: {_said(version.item)}"


def _said(item: MemoryItem) -> str:
    return item_line(item).removeprefix(f"{item.id}  ")


def update(args: argparse.Namespace) -> int:
    """Correct an item; prints its id and version."""
    given = {name: getattr(args, name) for name in _CHANGES if getattr(args, name) is not UNSET}
    if not given:
        raise argparse.ArgumentError(None, "nothing to change: give --text, --metadata or another of them")
    if given.get("text") == "-":
        given["text"] = read_stdin().removesuffix("\n")
    if "entities" in given:
        given["entities"] = [name for name in args.entities if name]
    with open_existing(args, background_work=False) as memory:
        item = memory.update(args.id, scope=scope_of(args), expected_version=args.expected_version, **given)
    print(item.id, f"version {item.version}")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Hide items or all of a scope; prints what was hidden."""
    ids_or_all(args)
    with open_existing(args, background_work=False) as memory:
        if not args.ids:
            print(memory.delete_all(scope_of(args), kinds=args.kinds, filters=args.filter), "deleted")
        for item_id in args.ids:
            memory.delete(item_id, scope=scope_of(args))
            print(item_id, "deleted")
    return 0
