"""Every command and option, and which function serves it. Commands are imported when they run."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable
from importlib import import_module

from ..errors import InputError
from .options import Commands, command, config, moments, narrowing, page, scope, store
from .parser_items import items
from .parser_keeping import keeping
from .values import JsonObject, cutoffs, is_text, moment, names, positive

EPILOG = """\
The store is a directory, named by --store or by the environment variable WARPMEM_STORE.

exit codes:
  0    done
  1    refused input, or a check that failed
  2    wrong usage
  3    a problem with the store: locked, damaged, read-only, disk full, another model
  130  interrupted by Ctrl-C; what was acknowledged before is stored
  141  whoever read the output went away
"""

_COMMANDS = {
    "add": "adding:add",
    "search": "items:search",
    "context": "items:context",
    "list": "items:list_items",
    "get": "single:get",
    "value": "single:value",
    "history": "single:history",
    "timeline": "items:timeline",
    "update": "single:update",
    "delete": "single:delete",
    "entities": "graph:entities",
    "relations": "graph:relations",
    "erase": "erasing:erase",
    "serve": "serving:serve",
    "stats": "items:stats",
    "costs": "costs:costs",
    "reembed": "models:reembed",
    "jobs": "jobs:run",
    "embed-pending": "models:embed_pending",
    "extract-pending": "models:extract_pending",
    "export": "transfer:export",
    "import": "transfer:import_file",
    "backup": "upkeep:backup",
    "backups": "upkeep:backups",
    "restore": "upkeep:restore",
    "verify": "upkeep:verify",
    "repair": "upkeep:repair",
    "demo": "demo:run",
    "doctor": "doctor:run",
    "eval": "locomo:run",
}


_FILES = frozenset(("config", "file", "out"))
"""Arguments that name files, which any bytes may."""


def run(args: argparse.Namespace) -> int:
    """Carry out a parsed command; returns its exit code. Raises WarpmemError."""
    for name, value in vars(args).items():
        if isinstance(value, str) and name not in _FILES and not is_text(value):
            raise InputError(f"the argument {name} holds bytes that are not UTF-8")
    module, function = _COMMANDS[args.command].split(":")
    serve: Callable[[argparse.Namespace], int] = getattr(import_module(f".{module}", __package__), function)
    return serve(args)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="warpmem",
        description="Long-term memory for AI agents: a durable store, searched exactly.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"warpmem {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo(commands)
    _add(commands)
    _search(commands)
    _context(commands)
    _list(commands)
    _entities(commands)
    _relations(commands)
    items(commands)
    _erase(commands)
    keeping(commands)
    _doctor(commands)
    _eval(commands)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("warpmem")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        from .. import __version__

        return __version__


def _demo(commands: Commands) -> None:
    parser = command(commands, "demo", "store a bundled sample, search it, and reopen it; offline")
    parser.add_argument("--keep", metavar="DIR", help="make the demo's store in DIR and leave it there")


def _add(commands: Commands) -> None:
    parser = command(commands, "add", "remember a text or a document; prints ids and what was done")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("text", nargs="?", help="the text, or - to read it from stdin")
    what.add_argument("--file", metavar="DOC", help="a document: this UTF-8 file in chunks; - for stdin")
    store(parser)
    config(parser)
    scope(parser)
    parser.add_argument("--kind", help="fact (default), preference, event, procedure, document, summary, ...")
    parser.add_argument("--key", help="name of a slot: a later text with this key supersedes this one")
    parser.add_argument("--priority", type=float, metavar="P", help="0 to 1 (default 0.5)")
    parser.add_argument("--metadata", action=JsonObject, metavar="JSON", help="a JSON object")
    parser.add_argument("--entities", type=names, metavar="NAME,...", help="whom and what it is about")
    parser.add_argument(
        "--valid-from", type=moment, metavar="TIME", help="since when it is true (default: now)"
    )
    parser.add_argument("--expires-at", type=moment, metavar="TIME", help="when it stops being found")
    parser.add_argument(
        "--embed",
        choices=("now", "later", "auto"),
        help="before it is stored, by embed-pending, or later when the embedder fails (default: the store's)",
    )
    parser.add_argument(
        "--infer",
        choices=("rules", "llm"),
        help="it is a message: make memories of it, by rule or by a model",
    )
    document = parser.add_argument_group("of a document")
    document.add_argument("--name", help="by which its next edition replaces it (default: the path as given)")
    document.add_argument(
        "--format",
        choices=("markdown", "text", "code", "log", "jsonl"),
        help="how it is parted (default: what the name's ending says)",
    )
    document.add_argument("--max-tokens", type=positive, metavar="N", help="of a chunk (default 256)")


def _search(commands: Commands) -> None:
    parser = command(commands, "search", "find the k best memories of a scope; exact")
    parser.add_argument("query")
    parser.add_argument("--k", type=int, default=10, help="how many (default 10, at most 4096)")
    _searching(parser)
    parser.add_argument("--explain", action="store_true", help="show every term of each score")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _searching(parser: argparse.ArgumentParser) -> None:
    """What is searched, and how."""
    store(parser)
    config(parser)
    scope(parser)
    narrowing(parser)
    moments(parser)
    parser.add_argument(
        "--mode",
        choices=("dense", "lexical", "hybrid"),
        help="meaning, words, or both (the default)",
    )
    parser.add_argument(
        "--recency", type=float, default=0.0, metavar="W", help="weight of recency (default 0)"
    )
    parser.add_argument(
        "--priority", type=float, default=0.0, metavar="W", help="weight of priority (default 0)"
    )
    parser.add_argument(
        "--entities", type=float, default=0.0, metavar="W", help="weight of shared entities (default 0)"
    )
    parser.add_argument("--min-similarity", type=float, metavar="S", help="leave out what is less similar")
    parser.add_argument(
        "--rerank",
        nargs="?",
        type=int,
        const=True,
        metavar="N",
        help="let the reranker of --config put the N best in order (default 50)",
    )


def _context(commands: Commands) -> None:
    parser = command(commands, "context", "what is known, as text for a prompt that is never over its budget")
    parser.add_argument("query")
    parser.add_argument("--max-tokens", type=int, default=1000, metavar="N", help="(default 1000)")
    parser.add_argument("--k", type=int, default=50, help="memories to choose from (default 50)")
    parser.add_argument(
        "--cite", choices=("id", "number"), default="id",
        help="what stands before each (default id); the ids of numbers are in the JSON",
    )  # fmt: skip
    parser.add_argument(
        "--compress",
        choices=("sentences", "model"),
        help="show of long ones what speaks of the query, picked by words and similarity or by a model",
    )
    _searching(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, with ids, tokens and what was left out")


def _list(commands: Commands) -> None:
    parser = command(commands, "list", "list a scope's memories, page by page")
    store(parser)
    scope(parser)
    narrowing(parser)
    parser.add_argument(
        "--order", choices=("recorded", "valid_from"), default="recorded", help="(default recorded)"
    )
    parser.add_argument("--reverse", action="store_true", help="latest first")
    parser.add_argument("--include-past", action="store_true", help="also what is superseded or expired")
    page(parser)


def _entities(commands: Commands) -> None:
    parser = command(commands, "entities", "list whom and what a scope's memories name, page by page")
    store(parser)
    scope(parser)
    parser.add_argument("--query", metavar="TEXT", help="only those with a name that stands in this text")
    moments(parser)
    page(parser)


def _relations(commands: Commands) -> None:
    parser = command(commands, "relations", "list a scope's relations, or those of one entity, page by page")
    parser.add_argument("entity", nargs="?", metavar="NAME", help="any name of the entity")
    store(parser)
    scope(parser)
    parser.add_argument("--predicate", metavar="TEXT", help="only this predicate, in any case")
    moments(parser)
    parser.add_argument("--include-past", action="store_true", help="whenever they are true")
    page(parser)


def _erase(commands: Commands) -> None:
    parser = command(commands, "erase", "remove items, or all of a scope, for good; prints a receipt")
    parser.add_argument("ids", nargs="*", metavar="ID", help="these items")
    parser.add_argument("--all", action="store_true", help="all of the scope instead")
    store(parser)
    scope(parser)
    parser.add_argument(
        "--keep-derived", dest="keep", action="store_true",
        help="keep items that name no other source (default: they go too)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the receipt as JSON")


def _doctor(commands: Commands) -> None:
    parser = command(commands, "doctor", "what is installed, what runs here, and whether it computes right")
    parser.add_argument(
        "--store", metavar="PATH", help="measure the disk of this store (default: $WARPMEM_STORE)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def _eval(commands: Commands) -> None:
    parser = command(commands, "eval", "measure recall and latency on a data set")
    sets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    locomo = sets.add_parser(
        "locomo", help="LoCoMo conversations", description="Recall on LoCoMo conversations."
    )
    locomo.add_argument("file", help="LoCoMo's JSON file")
    locomo.add_argument(
        "--k", type=cutoffs, default=[1, 5, 10, 20], metavar="K,...", help="(default 1,5,10,20)"
    )
    locomo.add_argument(
        "--granularity", choices=("turn", "observation"), default="turn", help="(default turn)"
    )
    locomo.add_argument(
        "--no-captions",
        dest="captions",
        action="store_false",
        help="store turns without their images' captions",
    )
    locomo.add_argument(
        "--mode", choices=("dense", "lexical", "hybrid"), default="hybrid", help="(default hybrid)"
    )
    locomo.add_argument(
        "--embedder", choices=("wordllama", "hashing"), help="(default that of --config, or wordllama)"
    )
    locomo.add_argument("--config", metavar="FILE", help="a TOML file with the fields of Config")
    locomo.add_argument(
        "--rerank", type=int, metavar="N", help="let the reranker of --config order the N best"
    )
    locomo.add_argument(
        "--context", type=int, metavar="TOKENS", help="also pack a context of so many for each question"
    )
    locomo.add_argument("--out", metavar="FILE", help="write the report as JSON")
