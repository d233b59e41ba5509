"""The commands search, context, list, timeline and stats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from ..memory.options import SearchOptions
from ..types import Ranking
from .output import hit_fields, item_fields, item_line, print_json, print_page, score_terms
from .stores import open_store, scope_of


def search(args: argparse.Namespace) -> int:
    """Print the best hits."""
    options = _options(args)
    options["explain"] = args.explain
    with open_store(args, read_only=True) as memory:
        result = memory.search(args.query, k=args.k, **options)
    _say_degraded(result.degraded)
    for hit in result:
        if args.json:
            print_json(hit_fields(hit))
            continue
        print(f"{hit.score:.4f}  {item_line(hit.item)}")
        if args.explain:
            print(f"        {score_terms(hit)}")
    if args.explain and not args.json:
        times = ", ".join(f"{stage} {seconds * 1e3:.2f} ms" for stage, seconds in result.timings.items())
        print(f"backend {result.backend}; {result.plan}; {times}")
    return 0


def _options(args: argparse.Namespace) -> SearchOptions:
    """What the commands search and context have in common, as Memory takes it. Raises InputError."""
    given = {"recency": args.recency, "priority": args.priority, "entities": args.entities}
    ranking = Ranking(**given) if any(given.values()) else None
    return {
        "scope": scope_of(args),
        "kinds": args.kinds,
        "filters": args.filter,
        "as_of": args.as_of,
        "known_at": args.known_at,
        "min_similarity": args.min_similarity,
        "ranking": ranking,
        "mode": args.mode,
        "rerank": args.rerank,
    }


def _say_degraded(parts: Sequence[str]) -> None:
    if parts:
        print(f"left out, for want of time: {', '.join(parts)}", file=sys.stderr)


def context(args: argparse.Namespace) -> int:
    """Print the text for a prompt; nothing where nothing is known or fits."""
    options = _options(args)
    with open_store(args, read_only=True) as memory:
        block = memory.context(
            args.query, max_tokens=args.max_tokens, k=args.k, cite=args.cite, compress=args.compress,
            **options,
        )  # fmt: skip
    _say_degraded(block.degraded)
    if args.json:
        print_json(block)
    elif block.text:
        print(block.text)
    return 0


def list_items(args: argparse.Namespace) -> int:
    """Print one page of a scope's items, then the cursor of the next."""
    with open_store(args, read_only=True) as memory:
        page = memory.list(
            scope_of(args),
            kinds=args.kinds,
            filters=args.filter,
            order=args.order,
            reverse=args.reverse,
            limit=args.limit,
            cursor=args.cursor,
            include_past=args.include_past,
        )
    print_page(page, page.cursor, item_line, json=args.json, fields=item_fields)
    return 0


def timeline(args: argparse.Namespace) -> int:
    """Print one page of what was true in a scope, then the cursor of the next."""
    with open_store(args, read_only=True) as memory:
        page = memory.timeline(
            scope_of(args),
            since=args.since,
            until=args.until,
            kinds=args.kinds,
            key=args.key,
            reverse=args.reverse,
            limit=args.limit,
            cursor=args.cursor,
        )
    print_page(page, page.cursor, item_line, json=args.json, fields=item_fields)
    return 0


def stats(args: argparse.Namespace) -> int:
    """Print the store's counters."""
    with open_store(args, read_only=True) as memory:
        if args.prometheus:
            print(memory.metrics(), end="")
            return 0
        counters = memory.stats()
    if args.json:
        print_json(counters)
        return 0
    for name in counters.__struct_fields__:
        value = getattr(counters, name)
        if name == "models":
            for part, counts in value.items():
                print(f"{part:15} {_counters(counts)}")
        elif name == "pending":
            for kind, work in value.items():
                print(f"{'to ' + kind:15} {_counters(msgspec.structs.asdict(work))}")
        else:
            print(f"{name:15} {_counters(value) if isinstance(value, dict) else value}")
    return 0


def _counters(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {'/'.join(map(str, value.values())) if isinstance(value, dict) else value}"
        for name, value in values.items()
    )
