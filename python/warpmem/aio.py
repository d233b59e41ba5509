"""AsyncMemory: the same methods for asyncio, each run in a worker thread. No second implementation."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from .compose import open as open_memory
from .memory import Memory
from .memory.arguments import check_count
from .memory.facade import check_memory
from .memory.options import OpenOptions
from .ops.cancel import Cancellation, current

P = ParamSpec("P")
R = TypeVar("R")

_MOST = 1024


def _delegate(
    method: Callable[Concatenate[Memory, P], R],
) -> Callable[Concatenate[AsyncMemory, P], Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def call(self: AsyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # Before any thread is asked: a forked child has none of its parent's, and would wait for them.
        self.memory._check_open()
        cancellation = Cancellation()
        context = contextvars.copy_context()
        context.run(current.set, cancellation)
        work = functools.partial(context.run, method, self.memory, *args, **kwargs)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    return call


class AsyncMemory:
    """A Memory for asyncio code: `async with await AsyncMemory.open(path) as memory: await memory.add(...)`.

    `threads` calls are under way at a time at most, each in a thread, and a deadline begins when a call gets
    its own. A call that is cancelled before that, or while it waits for its turn at the embedder, leaves the
    queue, frees its thread, and changes nothing. Later than that, cancelling stops the waiting and not the
    work: what is being embedded is embedded to its end, a change that was under way is still made, and
    `close` releases the directory.
    """

    def __init__(self, memory: Memory, *, threads: int = 64) -> None:
        self.memory = check_memory(memory)
        threads = check_count(threads, "threads", _MOST)
        # asyncio's own has a few more than there are cores: it is meant for work that does not wait.
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, "warpmem")

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        threads: int = 64,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """As warpmem.open. threads: see AsyncMemory."""
        threads = check_count(threads, "threads", _MOST)
        return cls(await asyncio.to_thread(open_memory, path, **options), threads=threads)

    add = _delegate(Memory.add)
    add_many = _delegate(Memory.add_many)
    embed_pending = _delegate(Memory.embed_pending)
    add_document = _delegate(Memory.add_document)
    extract = _delegate(Memory.extract)
    extract_pending = _delegate(Memory.extract_pending)
    update = _delegate(Memory.update)
    revert = _delegate(Memory.revert)
    delete = _delegate(Memory.delete)
    delete_all = _delegate(Memory.delete_all)
    revoke = _delegate(Memory.revoke)
    reinstate = _delegate(Memory.reinstate)
    revoked = _delegate(Memory.revoked)
    erase = _delegate(Memory.erase)
    search = _delegate(Memory.search)
    search_many = _delegate(Memory.search_many)
    context = _delegate(Memory.context)
    get = _delegate(Memory.get)
    get_many = _delegate(Memory.get_many)
    value = _delegate(Memory.value)
    list = _delegate(Memory.list)
    timeline = _delegate(Memory.timeline)
    count = _delegate(Memory.count)
    owners = _delegate(Memory.owners)
    history = _delegate(Memory.history)
    changes = _delegate(Memory.changes)
    name_entity = _delegate(Memory.name_entity)
    relate = _delegate(Memory.relate)
    entities = _delegate(Memory.entities)
    relations = _delegate(Memory.relations)
    stats = _delegate(Memory.stats)
    costs = _delegate(Memory.costs)
    metrics = _delegate(Memory.metrics)
    checkpoint = _delegate(Memory.checkpoint)
    warm = _delegate(Memory.warm)
    evict = _delegate(Memory.evict)
    rebuild_device = _delegate(Memory.rebuild_device)
    reembed = _delegate(Memory.reembed)
    flush = _delegate(Memory.flush)
    backup = _delegate(Memory.backup)
    export = _delegate(Memory.export)
    training_stream = _delegate(Memory.training_stream)
    run_jobs = _delegate(Memory.run_jobs)
    import_ = _delegate(Memory.import_)
    refresh = _delegate(Memory.refresh)

    async def close(self) -> None:
        """Finish running changes, flush, and release the directory. Idempotent, and to be called again where
        KeyboardInterrupt cut it short."""
        closing = ThreadPoolExecutor(1, "warpmem-close")  # the others may all be busy
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(closing, self.memory.close))
        finally:
            threads, self._threads = self._threads, None  # what is called now is told that by any thread
            for pool in (closing, threads):
                if pool is not None:
                    pool.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
