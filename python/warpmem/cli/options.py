"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any

from .values import JsonObject, moment, names

Commands = Any  # argparse names the type of add_subparsers' result privately


def command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """A command, with its help."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    return made


def store(parser: argparse.ArgumentParser) -> None:
    """Which store."""
    parser.add_argument("--store", metavar="PATH", help="the store's directory (default: $WARPMEM_STORE)")


def config(parser: argparse.ArgumentParser) -> None:
    """A file of settings."""
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with the fields of Config, models above all"
    )


def scope(parser: argparse.ArgumentParser) -> None:
    """Whose memory: user, agent, run, corpus."""
    group = parser.add_argument_group("whose memory")
    group.add_argument("--user", metavar="ID", help="user_id")
    group.add_argument("--agent", metavar="ID", help="agent_id")
    group.add_argument("--run", metavar="ID", dest="run_id", help="run_id")
    group.add_argument("--corpus", metavar="ID", help="corpus_id; stands alone")


def kinds(parser: argparse.ArgumentParser) -> None:
    """Which kinds."""
    parser.add_argument("--kinds", type=names, metavar="KIND,...", help="only these kinds")


def narrowing(parser: argparse.ArgumentParser) -> None:
    """Which items of a scope."""
    kinds(parser)
    parser.add_argument(
        "--filter", action=JsonObject, metavar="JSON", help='such as {"metadata.level": {"gte": 3}}'
    )


def moments(parser: argparse.ArgumentParser) -> None:
    """The two moments a question may be about."""
    parser.add_argument("--as-of", type=moment, metavar="TIME", help="what was true then")
    parser.add_argument("--known-at", type=moment, metavar="TIME", help="what had been recorded by then")


def page(parser: argparse.ArgumentParser) -> None:
    """A page of a listing."""
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="length of a page (default 100)")
    parser.add_argument("--cursor", help="continue after a page: the cursor it printed")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the cursor on the last")
