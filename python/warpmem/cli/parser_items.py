"""The options of the commands for single memories and for what was true when."""

from __future__ import annotations

import argparse

from msgspec import UNSET

from .options import Commands, command, config, kinds, narrowing, page, scope, store
from .values import JsonObject, moment, moment_or_none, names


def items(commands: Commands) -> None:
    """Add them."""
    _get(commands)
    _value(commands)
    _history(commands)
    _timeline(commands)
    _update(commands)
    _delete(commands)


def _of_an_item(parser: argparse.ArgumentParser) -> None:
    store(parser)
    scope(parser)


def _get(commands: Commands) -> None:
    parser = command(commands, "get", "show memories by their ids, whether or not they are still valid")
    parser.add_argument("ids", nargs="+", metavar="ID", help="as add, search and list print it")
    _of_an_item(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _value(commands: Commands) -> None:
    parser = command(commands, "value", "show what a key has now, or had; exit code 1 where it has nothing")
    parser.add_argument("key", metavar="KEY", help="as given to add --key, in exactly this scope")
    _of_an_item(parser)
    parser.add_argument("--as-of", type=moment, metavar="TIME", help="what was true then")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _history(commands: Commands) -> None:
    parser = command(commands, "history", "list every version of a memory, oldest first, and why it came")
    parser.add_argument("id", metavar="ID", help="as for get")
    _of_an_item(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _timeline(commands: Commands) -> None:
    parser = command(commands, "timeline", "list what was true and when, superseded ones too, page by page")
    _of_an_item(parser)
    parser.add_argument("--since", type=moment, metavar="TIME", help="what was still true then, or later")
    parser.add_argument("--until", type=moment, metavar="TIME", help="what was true before then")
    kinds(parser)
    parser.add_argument("--key", help="only the values of this key")
    parser.add_argument("--reverse", action="store_true", help="latest first")
    page(parser)


def _update(commands: Commands) -> None:
    parser = command(commands, "update", "correct a memory: what is not given stays, and so does its history")
    parser.add_argument("id", metavar="ID", help="as for get")
    _of_an_item(parser)
    config(parser)
    given = parser.add_argument_group("what to change")
    given.add_argument("--text", default=UNSET, help="or - to read it from stdin")
    given.add_argument(
        "--metadata", action=JsonObject, default=UNSET, metavar="JSON", help="all of it, as a JSON object"
    )
    given.add_argument("--priority", type=float, default=UNSET, metavar="P", help="0 to 1")
    given.add_argument("--trust", type=float, default=UNSET, metavar="T", help="0 to 1")
    given.add_argument("--entities", type=names, default=UNSET, metavar="NAME,...", help="all; '' for none")
    given.add_argument(
        "--valid-from", type=moment, default=UNSET, metavar="TIME", help="since when it is true"
    )
    given.add_argument(
        "--valid-to", type=moment_or_none, default=UNSET, metavar="TIME", help="until when, or none"
    )
    given.add_argument(
        "--expires-at", type=moment_or_none, default=UNSET, metavar="TIME", help="when to forget it, or none"
    )
    parser.add_argument(
        "--expected-version", type=int, metavar="N", help="refuse unless this is the current version"
    )


def _delete(commands: Commands) -> None:
    parser = command(commands, "delete", "hide memories, or all of a scope, and keep their history")
    parser.add_argument("ids", nargs="*", metavar="ID", help="these")
    parser.add_argument("--all", action="store_true", help="all of the scope instead, or what is left by")
    narrowing(parser)
    _of_an_item(parser)
