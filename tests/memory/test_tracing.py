"""Spans of searches and adds: which, with which sizes, and never a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import compose
from warpmem.errors import InputError, MissingDependency, Overloaded
from warpmem.ops import otel, tracing

CANARY = "qjvxkz"


class Fake:
    """A tracer that notes (name, sizes, the name of the span around it, the class of what left it)."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []

    @contextmanager
    def span(self, name: str, **sizes: int | str) -> Iterator[Any]:
        noted: dict[str, Any] = {"name": name, "within": self._open[-1]["name"] if self._open else None}
        noted |= sizes
        self.spans.append(noted)
        self._open.append(noted)
        try:
            yield _Noting(noted)
        except BaseException as error:
            noted["error"] = type(error).__name__
            raise
        finally:
            self._open.pop()


class _Noting:
    def __init__(self, noted: dict[str, Any]) -> None:
        self._noted = noted

    def set(self, **sizes: int | str) -> None:
        self._noted |= sizes


class Full:
    model_id = "full"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        raise Overloaded("too much", 1.0)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a store opened with tracing="otel" tells."""
    fake = Fake()
    monkeypatch.setattr(compose, "OpenTelemetryTracer", lambda: fake)
    return fake.spans


def test_each_part_is_a_span_within_its_call(spans: list[dict[str, Any]]) -> None:
    with warpmem.open(None, embedder="hashing", tracing="otel", reranker="overlap") as memory:
        memory.add([f"{CANARY} one", f"{CANARY} two"], user_id=CANARY)
        memory.add_document(f"# {CANARY}\n\n{CANARY} three", name=CANARY, user_id=CANARY)
        memory.search(f"{CANARY} asks", user_id=CANARY, rerank=True, k=2)
        memory.search(f"{CANARY} asks", user_id=CANARY, rerank=Full())
        with pytest.raises(InputError):
            memory.search(CANARY, user_id=CANARY, filters={CANARY: 1})
    assert spans == [
        {"name": "add", "within": None, "items": 2},
        {"name": "embed", "within": "add", "texts": 2, "lane": "ingest", "job": "add"},
        {"name": "add", "within": None, "items": 1},
        {"name": "embed", "within": "add", "texts": 2, "lane": "ingest", "job": "add"},
        {"name": "search", "within": None, "queries": 1, "hits": 2, "degraded": ""},
        {"name": "embed", "within": "search", "texts": 1, "lane": "interactive", "job": "search"},
        {"name": "scan", "within": "search", "queries": 1, "k": 50},
        {"name": "rerank", "within": "search", "texts": 4},
        {"name": "search", "within": None, "queries": 1, "hits": 4, "degraded": "rerank"},
        {"name": "scan", "within": "search", "queries": 1, "k": 50},
        {"name": "rerank", "within": "search", "texts": 4, "error": "Overloaded"},
        {"name": "search", "within": None, "queries": 1, "error": "InvalidFilter"},
    ]


def test_a_new_model_is_told_as_what_it_is(spans: list[dict[str, Any]]) -> None:
    with warpmem.open(None, embedder="hashing", tracing="otel") as memory:
        memory.add("one", user_id="a")
        memory.reembed(lambda texts: np.ones((len(texts), 4)), dimension=4, model_id="ones")
    assert spans[-1] == {"name": "embed", "within": None, "texts": 1, "lane": "background", "job": "reembed"}


def test_who_does_not_ask_gets_no_span(monkeypatch: pytest.MonkeyPatch, spans: list[dict[str, Any]]) -> None:
    used: list[str] = []
    monkeypatch.setattr(tracing.NoSpan, "set", lambda self, **sizes: used.append("set"))
    with warpmem.open(None, embedder="hashing") as memory:
        memory.add("one", user_id="a")
        memory.search("one", user_id="a")
        assert memory._tracer is None
    assert spans == used == []


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(MissingDependency, match=r"python -m pip install 'warpmem\[otel\]'"):
        warpmem.open(None, embedder="hashing", tracing="otel")
    with pytest.raises(InputError, match="tracing"):
        warpmem.open(None, tracing="jaeger")


def test_opentelemetry_gets_them() -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    exporting = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory_export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter, provider = memory_export.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(exporting.SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with warpmem.open(None, embedder="hashing", tracing="otel") as memory:
        assert isinstance(memory._tracer, otel.OpenTelemetryTracer)
        memory.add(f"{CANARY} one", user_id=CANARY)
        with trace.get_tracer("the program").start_as_current_span("a turn"):
            memory.search(f"{CANARY} asks", user_id=CANARY)
        with pytest.raises(InputError):
            memory.search(CANARY, user_id=CANARY, filters={CANARY: 1})
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert set(found) == {"a turn", "warpmem.add", "warpmem.embed", "warpmem.scan", "warpmem.search"}
    searches = [span for span in exporter.get_finished_spans() if span.name == "warpmem.search"]
    answered, refused = searches
    assert answered.parent.span_id == found["a turn"].context.span_id
    assert found["warpmem.scan"].parent.span_id == answered.context.span_id
    assert dict(answered.attributes) == {"warpmem.queries": 1, "warpmem.hits": 1, "warpmem.degraded": ""}
    assert dict(refused.attributes) == {"warpmem.queries": 1, "error.type": "InvalidFilter"}
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert refused.status.description is None and refused.events == ()
    assert CANARY not in "".join(span.to_json() for span in exporter.get_finished_spans())
