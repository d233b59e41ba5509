"""Runs jobs over all owners, remembers where each of them is, and goes on there."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import Final

import msgspec

from ..config import Config, Consolidation, Deduplication, Forgetting, Optimisation, Reflection
from ..errors import (
    Conflict,
    InputError,
    ModelError,
    Overloaded,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    WarpmemError,
)
from ..ops import events
from ..ops.ids import format_id
from ..records import Record
from ..types import JobReport, MemoryItem
from .consolidate import MADE, Consolidate, is_told, rebuild
from .deduplicate import Deduplicate
from .forget import Forget
from .optimise import Optimise
from .reflect import CHANGED, Reflect, is_profile
from .tools import Job, Stopped, Tools, Turn

KEY: Final = b"job"
_SAVE_SECONDS: Final = 2.0
_ENDING_SECONDS: Final = 10.0
"""How long the interpreter waits at its end for jobs to stop between two changes."""


class JobState(msgspec.Struct, frozen=True, array_like=True):
    """Where a job is: behind which owner, what it has done since it began with the first, and where within
    another owner it was stopped (Turn.place)."""

    owner: int
    counts: dict[str, int]
    within: int = 0
    place: int | None = None


class Jobs:
    """Implements memory.jobbing.JobRunner. Thread-safe; one run at a time."""

    def __init__(self, tools: Tools, config: Config) -> None:
        self._tools = tools
        self._reflect = Reflect(config.reflection or Reflection())
        self._jobs: Mapping[str, Job] = {
            "deduplicate": Deduplicate(config.deduplication or Deduplication(), config.near_duplicate),
            "consolidate": Consolidate(config.consolidation or Consolidation()),
            "forget": Forget(config.forgetting or Forgetting()),
            "reflect": self._reflect,
            "optimise": Optimise(config.optimisation or Optimisation(), config.checkpoint_rows),
        }
        wanted = {
            "deduplicate": config.deduplication,
            "consolidate": config.consolidation,
            "forget": config.forgetting,
            "reflect": config.reflection,
            "optimise": config.optimisation,
        }
        self._configured = [name for name in self._jobs if wanted[name] is not None]
        self._running = threading.Lock()
        self._runner = 0  # the thread that runs
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if config.jobs_minutes and self._configured and not tools.log.read_only:
            self._thread = threading.Thread(
                target=_repeat,
                args=(weakref.ref(self), self._closing, 60.0 * config.jobs_minutes),
                name="warpmem-jobs",
                daemon=True,
            )
            self._thread.start()
            weakref.finalize(self, _end, self._closing, self._thread)

    def run(self, names: Sequence[str] | None, seconds: float | None) -> tuple[JobReport, ...]:
        """See Memory.run_jobs."""
        chosen = self._configured if names is None else list(dict.fromkeys(names))
        for name in chosen:
            if name not in self._jobs:
                raise InputError(f"there is no job {name!r}; the jobs are {', '.join(self._jobs)}")
        if self._tools.log.read_only:
            raise StoreReadOnly("the store was opened read-only: open it without to run jobs")
        if not self._running.acquire(blocking=False):
            raise Conflict("jobs are running already: wait until they are done")
        self._runner = threading.get_ident()
        try:
            turn = Turn(seconds, self._closing)
            # Who was stopped goes on first: a job that takes all the time would leave none to the others.
            order = sorted(chosen, key=lambda name: self._tools.log.kept(_place(name)) is None)
            reports = {name: self._one(self._jobs[name], turn) for name in order}
            return tuple(reports[name] for name in chosen)
        finally:
            self._runner = 0
            self._running.release()

    def _one(self, job: Job, turn: Turn) -> JobReport:
        log, began = self._tools.log, time.monotonic()
        state = self._load(job.name)
        counts, owners, at, saved = Counter(state.counts), 0, state.owner, began
        finished, failure = False, None
        within, turn.place = state.within, state.place
        try:
            for number, _ in log.owners(state.owner):
                turn.check()
                if number != within:
                    within, turn.place = number, None
                try:
                    job.of_owner(self._tools, number, turn, counts)
                except StoreError:
                    raise
                except Overloaded as error:
                    if not error.one_owner:
                        raise
                    counts["owners that wait"] += 1
                except (WarpmemError, ValueError) as error:  # his alone: others are not to wait for him
                    counts["owners that failed"] += 1
                    events.tell(events.WARNING, "job_failed", job=job.name, error=type(error).__name__)
                at, owners, turn.place = number, owners + 1, None
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self._save(job.name, JobState(at, dict(counts)))
                    saved = time.monotonic()
            job.of_store(self._tools, turn, counts)
            finished = True
        except Stopped:
            pass
        except Overloaded as error:  # the job's budget is spent, or a model that has too much to do
            failure = type(error).__name__
        finally:
            self._save(job.name, None if finished else JobState(at, dict(counts), within, turn.place))
        counts = +counts  # what was looked for and not found is nothing done
        seconds = time.monotonic() - began
        events.tell(
            events.INFO, "job", job=job.name, owners=owners, seconds=seconds, finished=finished, **counts
        )
        return JobReport(
            job=job.name, finished=finished, owners=owners, done=dict(counts), seconds=seconds,
            failure=failure,
        )  # fmt: skip

    def _load(self, name: str) -> JobState:
        payload = self._tools.log.kept(_place(name))
        if payload is None:
            return JobState(0, {})
        try:
            return msgspec.msgpack.decode(payload, type=JobState)
        except msgspec.MsgspecError as error:
            raise StoreCorrupt(f"the place of the job {name!r} does not decode") from error

    def _save(self, name: str, state: JobState | None) -> None:
        """A loss of it costs no more than looking at some owners again."""
        payload = None if state is None else msgspec.msgpack.encode(state)
        key = _place(name)
        if payload != self._tools.log.kept(key):
            self._tools.log.transact(lambda transaction: transaction.keep(key, payload), "os")

    def rebuild(self, keys: Collection[bytes], erased: Collection[bytes]) -> set[bytes]:
        """Of these items, which lose some of their sources to an erasure, or told of a version that it takes
        from one, those that a job has made: each of them made anew without what is erased, and to be erased
        with it. Profiles come last: they may tell of the others."""
        records = dict(zip(keys, self._tools.log.get_many(list(keys)), strict=True))
        without = {format_id(key) for key in erased}
        found: set[bytes] = set()
        for key in sorted(records, key=lambda key: _is_profile(records[key])):
            record = records[key]
            item = record.item if record is not None else _last(self._tools, key)
            if item is None or not (is_profile(item) or (item.kind == "summary" and MADE in item.metadata)):
                continue
            try:
                if record is not None and not self._made_anew(record, without):
                    continue  # its words are somebody's by now
                if record is None and not is_profile(item) and is_told(self._tools, key):
                    rebuild(self._tools, item, without)  # what tells of it goes too
            except (ModelError, InputError, Overloaded):
                continue  # the receipt names it
            found.add(key)
            without.add(format_id(key))
        return found

    def _made_anew(self, record: Record, without: Set[str]) -> bool:
        """Store anew what a job has made; False where somebody has put other words in its place."""
        if not _is_as_made(self._tools, record):
            return False
        if is_profile(record.item):
            self._reflect.rebuild(self._tools, record.item, without)
        else:
            rebuild(self._tools, record.item, without)
        return True

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Meanwhile no job puts anything in the place of items."""
        with self._tools.exchanging:
            yield

    def _again(self) -> bool:
        """Run all that are configured, on the thread; whether there may be another time."""
        try:
            self.run(None, None)
        except (StoreClosed, StoreReadOnly):
            return False
        except Exception as error:  # noqa: BLE001  a model of the caller's may raise anything
            events.tell(events.WARNING, "jobs_failed", error=type(error).__name__)
        return True

    def close(self) -> None:
        """Stop between two changes, and wait for that."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._runner != threading.get_ident():
            with self._running:
                pass


def _place(name: str) -> bytes:
    """Where the log keeps the place of a job that was stopped."""
    return KEY + name.encode("ascii")


def _end(closing: threading.Event, thread: threading.Thread) -> None:
    """When nobody has the Jobs any more, or the interpreter ends: a thread that is in native code then would
    bring the process down."""
    closing.set()
    if thread is not threading.current_thread():
        thread.join(_ENDING_SECONDS)


def _repeat(found: Callable[[], Jobs | None], closing: threading.Event, pause: float) -> None:
    """Run jobs every so many seconds. Between two runs nothing keeps them, so that a Memory may be dropped
    without close()."""
    while not closing.wait(pause):
        jobs = found()
        if jobs is None or not jobs._again():
            return
        del jobs


def _is_profile(record: Record | None) -> bool:
    return record is not None and is_profile(record.item)


def _last(tools: Tools, key: bytes) -> MemoryItem | None:
    """What a deleted item was; None where nothing is known of it."""
    known = [past.record.item for past in tools.log.history(key) if past.record is not None]
    return known[-1] if known else None


def _is_as_made(tools: Tools, record: Record) -> bool:
    """Whether an item says what a job has once made it say. Others may have made versions since: who moved
    its trust or its priority has not made its words his own."""
    now = record.item
    for past in tools.log.history(record.key):
        if past.record is not None and (past.record.item.version == 1 or past.reason == CHANGED):
            made = past.record.item
            if (made.text, made.metadata) == (now.text, now.metadata):
                return True
    return False
