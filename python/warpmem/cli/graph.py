"""The commands entities and relations."""

from __future__ import annotations

import argparse

from .output import entity_line, print_json, print_more, relation_line
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
    for entity in page:
        if args.json:
            print_json(entity)
        else:
            print(entity_line(entity))
    print_more(page.cursor, json=args.json)
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
    for relation in page:
        if args.json:
            print_json(relation)
        else:
            print(relation_line(relation))
    print_more(page.cursor, json=args.json)
    return 0
