"""The command costs."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from ..types import Cost, Scope
from .output import one_line, print_json
from .stores import open_store, scope_of


def costs(args: argparse.Namespace) -> int:
    """Print what models did and cost, one line for each row."""
    with open_store(args, read_only=True) as memory:
        rows = memory.costs(scope_of(args), since=args.since, by=args.by)
    for row in rows:
        if args.json:
            print_json(row)
        else:
            print(_line(row, args.by))
    return 0


def _line(row: Cost, by: list[str]) -> str:
    told = [_name(getattr(row, name)) for name in ("day", "scope", "lane", "job", "model") if name in by]
    return (
        f"{' '.join(told) or 'all':40} {row.device_ms:.1f} ms, {row.tokens} tokens, {row.bytes} bytes, "
        f"{row.calls} calls, {row.cache_hits} cache hits, {row.money:.6g}"
    )


def _name(value: Any) -> str:
    if isinstance(value, Scope):
        return " ".join(
            f"{name}={one_line(part)}" for name, part in msgspec.structs.asdict(value).items() if part
        )
    return "(nobody)" if value is None else one_line(str(value))
