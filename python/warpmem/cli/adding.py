"""The command add: a text, a message that memories are made of, or a document."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from ..types import AddResult
from .stores import open_store, scope_of

_OF_A_TEXT = ("key", "entities", "valid_from", "expires_at", "embed", "infer")
_OF_A_DOCUMENT = ("name", "format", "max_tokens")


def add(args: argparse.Namespace) -> int:
    """Remember one text, or one document with --file."""
    others = _OF_A_TEXT if args.file is not None else _OF_A_DOCUMENT
    given = next((name for name in others if getattr(args, name) is not None), None)
    if given is not None:
        option = f"--{given.replace('_', '-')}"
        where = "--file takes no" if args.file is not None else "only a --file takes"
        raise argparse.ArgumentError(None, f"{where} {option}")
    return _document(args) if args.file is not None else _text(args)


def _text(args: argparse.Namespace) -> int:
    text = read_stdin().removesuffix("\n") if args.text == "-" else args.text
    with open_store(args, read_only=False, background_work=False) as memory:
        result = memory.add(
            text,
            scope=scope_of(args),
            kind=args.kind,
            key=args.key,
            priority=args.priority,
            metadata=args.metadata,
            entities=args.entities or (),
            valid_from=args.valid_from,
            expires_at=args.expires_at,
            embed=args.embed,
            infer=args.infer or "none",
        )
        assert isinstance(result, AddResult)
        _print(result)
        if args.infer == "llm":
            for made in memory.extract([result.id]):
                _print(made)
    return 0


def _print(result: AddResult) -> None:
    print(result.id, result.action, *([f"replaced {result.replaced}"] if result.replaced else []))


def _document(args: argparse.Namespace) -> int:
    if args.file == "-" and args.name is None:
        raise argparse.ArgumentError(None, "a document from stdin needs --name, by which it is replaced")
    content = read_stdin() if args.file == "-" else Path(args.file)
    with open_store(args, read_only=False, background_work=False) as memory:
        result = memory.add_document(
            content,
            name=args.name,
            format=args.format,
            scope=scope_of(args),
            kind=args.kind or "document",
            max_tokens=args.max_tokens or 256,
            metadata=args.metadata,
            priority=args.priority,
        )
    print(
        f"{result.id} {len(result.chunks)} chunks: {result.added} added, {result.superseded} superseded, "
        f"{result.moved} moved, {result.removed} removed"
    )
    return 0


def read_stdin() -> str:
    """All of stdin as text. Raises InputError when it is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not UTF-8 at byte {error.start}") from error
