"""The options of the commands that keep a store: exports, counters and costs, models, jobs, backups."""

from __future__ import annotations

from .options import Commands, command, config, scope, store
from .values import day, names, positive


def keeping(commands: Commands) -> None:
    """Add them."""
    _export(commands)
    _import(commands)
    _serve(commands)
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


def _serve(commands: Commands) -> None:
    parser = command(
        commands, "serve", "write a store for the processes of this host that have it open with follow=True"
    )
    store(parser)
    config(parser)


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
