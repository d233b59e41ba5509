"""AsyncMemory: the same methods for asyncio, each run in a worker thread. No second implementation."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from .compose import open as open_memory
from .memory import Memory
from .ops.cancel import Cancellation, current

P = ParamSpec("P")
R = TypeVar("R")


def _delegate(
    method: Callable[Concatenate[Memory, P], R],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        cancellation = Cancellation()
        before = current.set(cancellation)  # for the thread, which gets a copy of this context
        try:
            return await asyncio.to_thread(method, self.memory, *args, **kwargs)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        finally:
            current.reset(before)

    return call


class AsyncMemory:
    """A Memory for asyncio code: `async with await AsyncMemory.open(path) as memory: await memory.add(...)`.

    A call that is cancelled while it waits for its turn at the embedder leaves the queue, frees its thread,
    and changes nothing. Later than that, cancelling stops the waiting and not the work: what is being
    embedded is embedded to its end, and a change that was under way is still made.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @classmethod
    async def open(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Self:
        """As warpmem.open."""
        return cls(await asyncio.to_thread(open_memory, path, **options))

    add = _delegate(Memory.add)
    add_many = _delegate(Memory.add_many)
    update = _delegate(Memory.update)
    delete = _delegate(Memory.delete)
    delete_all = _delegate(Memory.delete_all)
    erase = _delegate(Memory.erase)
    search = _delegate(Memory.search)
    search_many = _delegate(Memory.search_many)
    context = _delegate(Memory.context)
    get = _delegate(Memory.get)
    get_many = _delegate(Memory.get_many)
    list = _delegate(Memory.list)
    count = _delegate(Memory.count)
    owners = _delegate(Memory.owners)
    history = _delegate(Memory.history)
    changes = _delegate(Memory.changes)
    stats = _delegate(Memory.stats)
    checkpoint = _delegate(Memory.checkpoint)
    reembed = _delegate(Memory.reembed)
    flush = _delegate(Memory.flush)
    backup = _delegate(Memory.backup)
    export = _delegate(Memory.export)
    import_ = _delegate(Memory.import_)
    refresh = _delegate(Memory.refresh)
    close = _delegate(Memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
