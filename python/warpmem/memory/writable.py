"""What a Memory does to remember, correct and hide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from msgspec import UNSET, UnsetType

from ..errors import InputError, StoreReadOnly
from ..ingest.media import one_of_a_modality
from ..ingest.messages import to_new_items
from ..ops.ids import parse_id
from ..types import AddResult, Durability, EmbedWhen, Extraction, ItemUpdate, MemoryItem, Scope
from . import arguments
from .by_writer import Follower, by_writer, prepared, with_files
from .inferring import stated
from .writer import Defaults

if TYPE_CHECKING:
    from ..config import Config
    from ..policy.schema import Schemas
    from ..protocols import TokenCounter, Tracer
    from .browser import Browser
    from .embed_later import EmbedLater
    from .extract_later import ExtractLater
    from .options import AddOptions, One, Several
    from .pending import Runner
    from .reasoning import Reasoning
    from .serving import Current
    from .telemetry import Telemetry

_MAX_VERSION = (1 << 31) - 1


class Writable(Follower):
    """The part of Memory that writes. See Memory."""

    _browser: Browser
    _config: Config
    _counter: TokenCounter
    _current: Current
    _embed_later: EmbedLater
    _extract_later: ExtractLater
    _pending: Runner
    _reasoning: Reasoning
    _schemas: Schemas
    _telemetry: Telemetry
    _tracer: Tracer | None
    _check_open: Callable[[], None]

    @overload
    def add(self, /, content: Several, **options: Unpack[AddOptions]) -> tuple[AddResult, ...]: ...
    @overload
    def add(self, /, content: One | None = None, **options: Unpack[AddOptions]) -> AddResult: ...
    @prepared(with_files)
    def add(
        self,
        content: Any = None,
        *,
        image: Any = None,
        audio: Any = None,
        code: str | None = None,
        log: str | None = None,
        blob: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        kind: str | None = None,
        metadata: dict[str, Any] | None = None,
        priority: float | None = None,
        key: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        expires_at: datetime | None = None,
        vector: Any = None,
        entities: Sequence[str] = (),
        sources: Sequence[str] = (),
        trust: float | None = None,
        idempotency_key: str | None = None,
        infer: Literal["none", "rules", "llm"] = "none",
        wait: bool = False,
        durability: Durability | None = None,
        embed: EmbedWhen | None = None,
    ) -> AddResult | tuple[AddResult, ...]:
        """Remember `content`: a string, a Message or {"role", "content"}, a NewItem, a NewEntity, a
        NewRelation, or a list of them.

        A list gives a tuple of results and is stored whole or not at all. When it returns, the change is as
        durable as `durability` says and the next search in this process sees it. `kind` defaults to "fact"
        ("message" for chat messages). `vector`: (dim,) or (n, dim) float, NumPy or DLPack; replaces
        embedding. `entities`: names of what it is about. `sources`: what it comes from, ids of items and
        names of origins, up to 256 (of what memories are made of, 255); `trust`: how far these are believed,
        from 0 to 1 (1); below 0.5 it is in quarantine.

        `metadata`: JSON, up to 64 KiB. `priority`: from 0 to 1 (0.5), for rankings that weigh it. `key`: the
        name of a slot in exactly this scope; a later item with it ends this one, which stays for `as_of` and
        `timeline`. `valid_from`, `valid_to`: when it is true, aware datetimes (from now on, without an end);
        one whose `valid_from` lies ahead is found from then on. `expires_at`: from when it is found no more.
        What is there already, but for case and spaces, is "touched" and not stored again; not so messages and
        events.
        `idempotency_key`: the same call with it has the same result for 7 days; another content is
        IdempotencyConflict.

        `infer`: "rules" stores each sentence that states something as a fact of its own, too, in the same
        change, but for those of assistants, tools and systems. When what is said happened stands in the
        metadata of either, `{"event_time": {"from": "2026-03-01", "to": "2026-03-01"}}`, where that is clear
        from the words. "llm" has the language model make typed
        memories of the messages, when they are stored, and compare them with what is known: what is said
        again is not stored again, what changed ends what it was. What is to be remembered the configuration's
        `extraction` says. `sources` of a memory begin with the
        message. A plain string is then a message. `expires_at` and `metadata` are the message's alone, but
        that a fact by rule says who said it. This is done in
        the background, after a restart too, or in `extract_pending`; with `wait` before `add` returns. When
        the model fails then its error is raised, and the messages are stored and wait.

        `embed`: "now"; "later", which stores at once and embeds in the background (or in `embed_pending`),
        with the action "queued": until then the item is found by words and entities alone; "auto"
        does so when the embedder is down, overloaded or fails, which else is an error with nothing stored.
        None: as the store is configured ("now"). What has an embedder of its own, as images may, is always
        embedded now; near-duplicates of what is embedded later are not looked for.

        Raises InputError, InvalidScope, Conflict, EmbeddingError, Overloaded, DiskFull; with a model as the
        model.

        `image`, `audio`: bytes, the path of a file or a URI, for the embedder that open() was given for it;
        `content` is the caption then, and may be left out. Stored are its vector and a reference: `blob`, or
        the path or URI, or "sha256:" and the digest of the bytes. Without such an embedder the caption is
        embedded as any text. `code`, `log`: the text of an item of that modality, in place of `content`.
        """
        self._check_open()
        if not isinstance(infer, str) or infer not in ("none", "rules", "llm"):
            raise InputError("infer must be 'none', 'rules' or 'llm'")
        other = one_of_a_modality(content, image=image, audio=audio, code=code, log=log, blob=blob)
        items, was_list = ([other], False) if other is not None else to_new_items(content, kind)
        model = None
        if infer != "none":
            if key is not None or vector is not None or any(item.key is not None for item in items):
                raise InputError("what memories are made of has neither key nor vector: leave them out")
            kind = kind or "message"
        if infer == "llm":
            model = self._reasoning.language_model()
        defaults = Defaults(
            scope=arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id), kind=kind,
            metadata=metadata, priority=priority, key=key, valid_from=valid_from, valid_to=valid_to,
            expires_at=expires_at, vector=vector, entities=entities,
            sources=arguments.check_names(sources, "sources"), trust=trust,
        )  # fmt: skip
        if key is not None and len(items) > 1:
            raise InputError(f"one key cannot name {len(items)} items; give each NewItem its own key")
        arguments.check_durability(durability)
        arguments.check_flag(wait, "wait")
        when = self._when(embed)
        with self._telemetry.adding(len(items), self._tracer) as added:
            results = self._current.write(
                lambda serving: serving.writer.add(
                    items,
                    defaults,
                    idempotency_key=idempotency_key,
                    durability=durability,
                    embed=when,
                    reading=lambda: self._current.reading(serving),
                    states=stated if infer == "rules" else None,
                    retention=None if infer == "none" else self._retention(),
                    extract=infer == "llm",
                ),
                own_vectors=vector is not None or any(item.vector is not None for item in items),
            )
            added += [result.action for result in results]
        if model is not None and wait:
            self._extract_later.extract([parse_id(result.id) for result in results], model, waiting=True)
        return results if was_list else results[0]

    @by_writer
    def extract(
        self, ids: Sequence[str], *, scope: Scope | None = None, extraction: Extraction | None = None
    ) -> tuple[AddResult, ...]:
        """Have the language model make memories of items that are stored already, messages as a rule, as
        `add(infer="llm")` does: after a failure, or with a better model. What became of each. extraction:
        what is to be remembered, in the place of what the store's configuration says.

        Raises InputError, NotFound, ModelError and as the language model; what was made by then stays.
        """
        self._check_open()
        if extraction is not None:
            if not isinstance(extraction, Extraction):
                raise InputError(f"extraction must be a warpmem.Extraction, not {type(extraction).__name__}")
            self._schemas.check_empty(extraction.kinds)
        items = self._browser.get_many(ids, arguments.check_scope(scope))
        found = [parse_id(arguments.existing(item).id) for item in items]
        model = self._reasoning.language_model()
        return tuple(self._extract_later.extract(found, model, waiting=False, wanted=extraction))

    @by_writer
    def extract_pending(self) -> int:
        """Have the language model make memories of every message that waits for it, here and now, what it
        answered badly about before included; returns of how many it did. Raises InputError without a model,
        and what keeps it from going on; what was made by then is stored.
        """
        self._check_open()
        if self._current.read_only:
            raise StoreReadOnly("the store was opened read-only: open it without to make memories")
        self._reasoning.language_model()
        return self._pending.run(self._extract_later)

    def _retention(self) -> timedelta | None:
        days = self._config.message_days
        return timedelta(days=days) if days else None

    @prepared(with_files)
    def add_many(
        self,
        items: Sequence[Any],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        scope: Scope | None = None,
        kind: str | None = None,
        vectors: Any = None,
        idempotency_key: str | None = None,
        durability: Durability | None = None,
        embed: EmbedWhen | None = None,
    ) -> tuple[AddResult, ...]:
        """Remember up to 10,000 things in one atomic change; NewItem.scope may differ from item to item.

        `vectors`: (n, dim) float for all of them. Raises as `add`.
        """
        if isinstance(items, (str, Mapping)) or not isinstance(items, Sequence):
            raise InputError(f"add_many takes a list, not {type(items).__name__}")
        results = self.add(
            list(items), scope=arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id), kind=kind,
            vector=vectors, idempotency_key=idempotency_key, durability=durability, embed=embed,
        )  # fmt: skip
        assert isinstance(results, tuple)
        return results

    @by_writer
    def embed_pending(self) -> int:
        """Embed everything that was stored to be embedded later, here and now; returns how many vectors this
        call made. What the model cannot embed stays as it is. Raises EmbeddingError, Overloaded and what else
        keeps it from going on; what was embedded by then is stored.
        """
        self._check_open()
        if self._current.read_only:
            raise StoreReadOnly("the store was opened read-only: open it without to embed what waits")
        return self._pending.run(self._embed_later)

    def _when(self, embed: EmbedWhen | None) -> EmbedWhen:
        if embed is None:
            return self._config.embed
        if not isinstance(embed, str) or embed not in ("now", "later", "auto"):
            raise InputError("embed must be 'now', 'later' or 'auto'")
        return embed

    @by_writer
    def update(
        self,
        id: str,
        *,
        text: str | UnsetType = UNSET,
        metadata: dict[str, Any] | UnsetType = UNSET,
        priority: float | UnsetType = UNSET,
        entities: Sequence[str] | UnsetType = UNSET,
        sources: Sequence[str] | UnsetType = UNSET,
        trust: float | UnsetType = UNSET,
        valid_from: datetime | UnsetType = UNSET,
        valid_to: datetime | UnsetType | None = UNSET,
        expires_at: datetime | UnsetType | None = UNSET,
        vector: Any = UNSET,
        expected_version: int | None = None,
        scope: Scope | None = None,
        durability: Durability | None = None,
    ) -> MemoryItem:
        """Correct what was known: same id, next version; the old version stays in history and under
        `known_at`.

        What is not given stays, also the days of what the text told (`event_time`); `metadata`, `entities`
        and `sources` replace all there were, and None as `valid_to` or `expires_at` is no end. A changed text
        is embedded again, now or later as the store's configuration says. Values and errors are those of
        `add`; also raises NotFound, VersionConflict when `expected_version` is not the current one.
        """
        self._check_open()
        arguments.check_durability(durability)
        if expected_version is not None:
            expected_version = arguments.check_count(expected_version, "expected_version", _MAX_VERSION)
        fields = ItemUpdate(
            text=text, metadata=metadata, priority=priority, entities=entities, sources=sources, trust=trust,
            valid_from=valid_from, valid_to=valid_to, expires_at=expires_at, vector=vector,
        )  # fmt: skip
        known = arguments.check_scope(scope)
        return self._current.write(
            lambda serving: serving.editor.update(
                id, fields, known, expected_version, durability, self._config.embed
            ),
            own_vectors=vector is not UNSET,
        )

    @by_writer
    def revert(
        self,
        id: str,
        version: int,
        *,
        expected_version: int | None = None,
        scope: Scope | None = None,
        durability: Durability | None = None,
    ) -> MemoryItem:
        """Undo what was done to an item since `version`: its next version is what it was then, with the
        operation "revert" in its history. No more trusted than now where it is trusted less for its sources.

        Of a value that ended because its key got a newer one, delete the newer one first; InvalidTime else. A
        deleted item stays deleted. Raises NotFound, VersionConflict as `update`, SchemaViolation.
        """
        self._check_open()
        arguments.check_durability(durability)
        version = arguments.check_count(version, "version", _MAX_VERSION)
        if expected_version is not None:
            expected_version = arguments.check_count(expected_version, "expected_version", _MAX_VERSION)
        whose = arguments.check_scope(scope)
        return self._current.write(
            lambda serving: serving.editor.revert(id, version, whose, expected_version, durability),
            own_vectors=False,
        )

    @by_writer
    def delete(self, id: str, *, scope: Scope | None = None, durability: Durability | None = None) -> None:
        """Hide and unindex an item at once, in all its versions; its history stays. A document's id takes its
        chunks along, those of former editions too. Raises NotFound."""
        self._check_open()
        arguments.check_durability(durability)
        self._current.now.editor.delete(id, scope=arguments.check_scope(scope), durability=durability)

    @by_writer
    def delete_all(
        self,
        scope: Scope | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        corpus_id: str | None = None,
        kinds: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        durability: Durability | None = None,
    ) -> int:
        """Delete every item of a scope in one atomic change, or those of `kinds` that pass `filters`, past
        ones too; returns how many. As `delete` does it: a document goes with its chunks, and history stays.
        Raises InvalidScope, InvalidFilter and InputError."""
        self._check_open()
        arguments.check_durability(durability)
        whose = arguments.required(arguments.one_scope(scope, user_id, agent_id, run_id, corpus_id))
        return self._current.now.editor.delete_all(whose, kinds, filters, durability=durability)
