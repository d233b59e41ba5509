"""The commands entities and relations."""

from __future__ import annotations

import argparse

from .output import entity_line, print_page, relation_line
from .stores import open_store, scope_of


def entities(args: argparse.Namespace) -> int:
    """Print one page of a scope's entities, then the cursor of the next."""
    with open_store(args, read_only=True) as memory:
        page = memory.entities(
            scope_of(args),
            query=args.query,
            as_of=args.as_of,
            known_at=args.known_at,
            limit=args.limit,
            cursor=args.cursor,
        )
    print_page(page, page.cursor, entity_line, json=args.json)
    return 0


def relations(args: argparse.Namespace) -> int:
    """Print one page of a scope's relations, or of one entity's, then the cursor of the next."""
    with open_store(args, read_only=True) as memory:
        page = memory.relations(
            scope_of(args),
            args.entity,
            predicate=args.predicate,
            as_of=args.as_of,
            known_at=args.known_at,
            include_past=args.include_past,
            limit=args.limit,
            cursor=args.cursor,
        )
    print_page(page, page.cursor, relation_line, json=args.json)
    return 0
