"""Spans by OpenTelemetry, through the tracer provider that the program has set up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingDependency


class OpenTelemetryTracer:
    """Implements protocols.Tracer with the API alone: what becomes of spans is the provider's. Raises
    MissingDependency."""

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingDependency(
                "tracing needs OpenTelemetry: python -m pip install 'warpmem[otel]'"
            ) from error
        self._tracer = trace.get_tracer("warpmem")
        self._failed = trace.Status(trace.StatusCode.ERROR)

    @contextmanager
    def span(self, name: str, **sizes: int | str) -> Iterator[_Span]:
        # What OpenTelemetry records of an exception has its message and the lines of its traceback.
        with self._tracer.start_as_current_span(
            f"warpmem.{name}", attributes=_named(sizes), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Span(span)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._failed)
                raise


class _Span:
    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, **sizes: int | str) -> None:
        self._span.set_attributes(_named(sizes))


def _named(sizes: dict[str, int | str]) -> dict[str, int | str]:
    return {f"warpmem.{name}": size for name, size in sizes.items()}
