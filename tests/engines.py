"""Shared by the engine tests."""

from __future__ import annotations

from warpmem.protocols import Engine


def everything(engine: Engine, family: str) -> list[tuple[bytes, bytes]]:
    return list(engine.scan(family, b"", b"\xff" * 64))
