"""What a Memory does to take in documents."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import MAX_DOCUMENT_BYTES, MAX_NAMES
from ..errors import InputError, InvalidText
from ..ops.texts import check_text
from ..policy.metadata import check_metadata
from ..protocols import TokenCounter
from ..types import DocumentResult, Durability, Format, Scope
from . import arguments
from .by_writer import Follower, prepared
from .documents import Document

if TYPE_CHECKING:
    from ..protocols import Tracer
    from .serving import Current
    from .telemetry import Telemetry

_MAX_TOKENS = 1 << 16


def _with_text(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A follower reads the file itself."""
    kwargs = dict(kwargs)
    content = args[0] if args else kwargs.pop("content", None)
    text, kwargs["name"] = _read(content, kwargs.get("name"))
    return (text, *args[1:]), kwargs


class Documented(Follower):
    """The part of Memory that takes in documents. See Memory."""

    _counter: TokenCounter
    _current: Current
    _telemetry: Telemetry
    _tracer: Tracer | None
    _check_open: Callable[[], None]

    @prepared(_with_text)
    def add_document(
        self,
        content: str | os.PathLike[str],
        *,
        name: str | None = None,
        format: Format | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        kind: str = "document",
        max_tokens: int = 256,
        metadata: dict[str, Any] | None = None,
        priority: float | None = None,
        sources: Sequence[str] = (),
        trust: float = 1.0,
        durability: Durability | None = None,
    ) -> DocumentResult:
        """Remember a document in chunks of up to `max_tokens` by the store's token counter: a text, or the
        UTF-8 file at a Path.

        `name` finds it again in its scope (default: the path as given). The next edition under that name
        supersedes the chunks that changed, adds new ones and ends those that are gone, all in one change;
        what did not change is not embedded again, and the same text again changes nothing. `sources`: up to
        255. `format`: "markdown", "text", "code", "log", "jsonl", by default what the name's ending says. The
        chunks, in order, are the document; `metadata["document"]` of each has its name, `start` and `end` in
        characters and the `path` of its headings. Raises InputError, and as `add`.
        """
        from ..ingest.blocks import check_format, format_of  # patterns that nothing else needs
        from ..ingest.chunks import chunks

        self._check_open()
        arguments.check_durability(durability)
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        text, name = _read(content, name)
        given = {} if metadata is None else check_metadata(metadata)
        if "document" in given:
            raise InputError("metadata may not have the key 'document': it tells where a chunk stands")
        max_tokens = arguments.check_count(max_tokens, "max_tokens", _MAX_TOKENS)
        kind = arguments.check_kind(kind)
        style = format_of(name) if format is None else check_format(format)
        document = Document(
            name=name, text=text, format=style, chunks=chunks(text, style, self._counter, max_tokens),
            scope=whose, kind=kind, metadata=given, priority=priority,
            sources=arguments.check_names(sources, "sources", MAX_NAMES - 1),
            trust=arguments.check_share(trust, "trust"),
        )  # fmt: skip
        with self._telemetry.adding(len(document.chunks), self._tracer) as added:
            result = self._current.write(
                lambda serving: serving.documents.add(document, durability), own_vectors=False
            )
            added += ["added"] * result.added + ["superseded"] * result.superseded
        return result


def _read(content: Any, name: str | None) -> tuple[str, str]:
    """(text, name) of a document. Raises InputError."""
    if isinstance(content, str):
        if name is None:
            raise InputError("a text needs name=, by which its next edition finds it; a file is a Path")
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InvalidText(f"the document has {len(content)} characters, over {MAX_DOCUMENT_BYTES}")
        check_text(content, "the document")
        return content, arguments.check_name(name, "name")
    if not isinstance(content, os.PathLike):
        raise InputError(f"a document is a string or a Path, not {type(content).__name__}")
    path = Path(content)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file has such a name"
        raise InputError(f"cannot read {os.fspath(path)!r}: {reason}") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidText(f"the document is larger than {MAX_DOCUMENT_BYTES} bytes; split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(f"the document is not UTF-8 at byte {error.start}") from None
    return text, arguments.check_name(os.fspath(path) if name is None else name, "name")
