"""Every command and option, and which function serves it. Commands are imported when they run."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Callable
from importlib import import_module

from ..errors import InputError
from .options import Commands, command, config, moments, page, scope, store
from .values import JsonObject, cutoffs, day, is_text, moment, names, positive

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
    "list": "items:list_items",
    "entities": "graph:entities",
    "relations": "graph:relations",
    "erase": "erasing:erase",
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
    _list(commands)
    _entities(commands)
    _relations(commands)
    _erase(commands)
    _export(commands)
    _import(commands)
    _stats(commands)
    _costs(commands)
    _reembed(commands)
    _jobs(commands)
    _embed_pending(commands)
    _extract_pending(commands)
    _backup(commands)
    _restore(commands)
    _verify(commands)
    _repair(commands)
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
    store(parser)
    config(parser)
    scope(parser)
    parser.add_argument("--k", type=int, default=10, help="how many (default 10, at most 4096)")
    parser.add_argument("--kinds", type=names, metavar="KIND,...", help="only these kinds")
    parser.add_argument(
        "--filter", action=JsonObject, metavar="JSON", help='such as {"metadata.level": {"gte": 3}}'
    )
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
    parser.add_argument("--explain", action="store_true", help="show every term of each score")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _list(commands: Commands) -> None:
    parser = command(commands, "list", "list a scope's memories, page by page")
    store(parser)
    scope(parser)
    parser.add_argument("--kinds", type=names, metavar="KIND,...", help="only these kinds")
    parser.add_argument("--filter", action=JsonObject, metavar="JSON", help="as for search")
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
    parser.add_argument("ids", nargs="*", metavar="ID", help="these items; without any, all of the scope")
    store(parser)
    scope(parser)
    parser.add_argument(
        "--keep-derived", dest="keep", action="store_true",
        help="keep items that name no other source (default: they go too)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the receipt as JSON")


def _export(commands: Commands) -> None:
    parser = command(commands, "export", "write all memories as JSON lines, superseded ones included")
    parser.add_argument(
        "file", nargs="?", default="-", help="file to write (replaced when complete), - for stdout"
    )
    parser.add_argument("--vectors", action="store_true", help="each line gets its vector, as base64 float32")
    store(parser)
    scope(parser)


def _import(commands: Commands) -> None:
    parser = command(commands, "import", "add exported lines, plain items or chat messages from JSON lines")
    parser.add_argument("file", help="file to read, - for stdin")
    store(parser)
    scope(parser)
    parser.add_argument(
        "--kind",
        help="kind of lines that name none, all chat messages included (default: fact, and message for chat "
        "messages)",
    )
    parser.add_argument(
        "--enforce-scope",
        action="store_true",
        help="refuse lines that name another scope than the command does",
    )
    parser.add_argument(
        "--batch", type=positive, default=500, metavar="N", help="lines a commit (default 500)"
    )
    parser.add_argument(
        "--skip-errors",
        action="store_true",
        help="report bad lines, go on, and exit 0; the next import tries them again",
    )
    parser.add_argument(
        "--again", action="store_true", help="do not pass over what an earlier import has stored"
    )
    parser.add_argument("--progress", action="store_true", help="show progress though stderr is no terminal")


def _stats(commands: Commands) -> None:
    parser = command(commands, "stats", "counters of the store")
    store(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="as JSON")
    shown.add_argument("--prometheus", action="store_true", help="as Prometheus reads them")


def _costs(commands: Commands) -> None:
    parser = command(commands, "costs", "what models did and cost, by owner")
    store(parser)
    scope(parser)
    parser.add_argument("--since", type=day, metavar="DAY", help="the first day of UTC, as 2026-01-31")
    parser.add_argument(
        "--by", type=names, default=["scope"], metavar="NAME,...",
        help="what to tell apart: day, scope, lane, job, model (default scope)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _reembed(commands: Commands) -> None:
    parser = command(
        commands, "reembed", "change the embedding model; interrupted, it goes on when called again"
    )
    parser.add_argument("embedder", choices=("wordllama", "hashing"), help="the new model")
    store(parser)
    parser.add_argument(
        "--batch", type=positive, default=64, metavar="N", help="texts embedded at a time (default 64)"
    )
    parser.add_argument("--progress", action="store_true", help="show progress though stderr is no terminal")


def _jobs(commands: Commands) -> None:
    parser = command(commands, "jobs", "upkeep by rule; interrupted, it goes on when called again")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="deduplicate, consolidate, forget, reflect, optimise (default: what --config configures)",
    )
    store(parser)
    config(parser)
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after so long")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _embed_pending(commands: Commands) -> None:
    parser = command(commands, "embed-pending", "embed what was added to be embedded later")
    store(parser)
    config(parser)


def _extract_pending(commands: Commands) -> None:
    parser = command(commands, "extract-pending", "make memories of messages that wait for a language model")
    store(parser)
    config(parser)


def _backup(commands: Commands) -> None:
    parser = command(commands, "backup", "make a backup of a store that no process has open for writing")
    parser.add_argument("root", metavar="ROOT", help="the directory below which backups are made")
    store(parser)
    parser.add_argument("--no-verify", action="store_true", help="do not read it back in full")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser = command(commands, "backups", "list the backups below a directory, oldest first")
    parser.add_argument("root", metavar="ROOT", help="as for backup")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _restore(commands: Commands) -> None:
    parser = command(commands, "restore", "make a new store of a backup, every file compared with its digest")
    parser.add_argument("backup", metavar="BACKUP", help="the directory of one backup")
    parser.add_argument("path", metavar="PATH", help="a directory that does not exist yet, or an empty one")
    parser.add_argument(
        "--copy", action="store_true", help="copy tables instead of sharing them with the backup"
    )


def _verify(commands: Commands) -> None:
    parser = command(commands, "verify", "read all of a store and say what is wrong with it; only reads")
    parser.add_argument("path", metavar="PATH", help="the store's directory")
    parser.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="faults to list (default 1000)"
    )
    parser.add_argument("--progress", action="store_true", help="show progress though stderr is no terminal")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _repair(commands: Commands) -> None:
    parser = command(
        commands, "repair", "bring everything whole of a damaged store, which is only read, into a new one"
    )
    parser.add_argument("path", metavar="PATH", help="the damaged store's directory")
    parser.add_argument("new", metavar="NEW", help="a directory that does not exist yet, or an empty one")
    parser.add_argument("--progress", action="store_true", help="show progress though stderr is no terminal")
    parser.add_argument("--json", action="store_true", help="as JSON, with everything that is lost")


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
