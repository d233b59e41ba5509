"""The command erase."""

from __future__ import annotations

import argparse

from .output import print_json
from .stores import ids_or_all, open_existing, scope_of


def erase(args: argparse.Namespace) -> int:
    """Erase items or a scope for good; prints the receipt."""
    ids_or_all(args)
    with open_existing(args) as memory:
        receipt = memory.erase(
            args.ids or None, scope=scope_of(args), derived="keep" if args.keep else "erase"
        )
    if args.json:
        print_json(receipt)
        return 0
    for name in receipt.__struct_fields__:
        value = getattr(receipt, name)
        if name == "backups":
            continue
        if name == "versions":
            value = tuple(f"{item_id}:{version}" for item_id, version in value)
        print(f"{name:15} {' '.join(value) if isinstance(value, tuple) else value}")
    for backup in receipt.backups:
        print(f"may still hold it: {backup.path} of {backup.at.isoformat()}")
    return 0
