"""The log of a process that follows the one that writes: the same log, which others move forward."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from ..errors import ModelMismatch, StoreClosed, StoreCorrupt, StoreError
from ..ops import events
from ..ops.replay import row_changes, touched
from ..records import RowBlock, Space, StoreIdentity
from .identity import read_identity
from .log import StoreLog
from .log_state import load_state
from .rocks_follow import FollowingEngine

_TRIES: Final = 5
_SETTLING: Final = 10.0
_MOMENT: Final = 0.001
_PAUSE: Final = 0.5  # seconds after a failure, when refreshes are to come faster than that


class FollowingLog(StoreLog):
    """A read-only log over a FollowingEngine.

    refresh() takes in whatever the engine finds: entries of the log name the items that changed, and
    subscribers are told of their rows as they are now, as a commit tells them where the store is written.
    start() does so again and again. Between two refreshes everything read is of one moment or later.
    """

    def __init__(self, engine: FollowingEngine, *arguments: Any, **options: Any) -> None:
        super().__init__(engine, *arguments, **options)
        self._following = engine
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._dropped = False
        self._metadata = False
        self._counting = threading.Lock()
        self._failures = 0
        self._told: set[str] = set()
        self._sizes = super().sizes()
        self._last = self._applied  # the last change that was seen, and when the first of those was made
        self._since = self._clock.now()  # that are not taken in; or when it was seen that there is none
        self._pid = os.getpid()
        self._owed = 0  # the last change that was made for this process

    def owe(self, sequence: int) -> None:
        """Have later reads show this change, see settled()."""
        with self._counting:
            self._owed = max(self._owed, sequence)

    def settled(self) -> None:
        """See protocols.Log."""
        if self._applied >= self._owed:
            return
        owed, until = self._owed, time.monotonic() + _SETTLING
        while True:
            self.refresh()
            if self._applied >= owed:
                return
            if time.monotonic() > until:
                with self._counting:
                    self._owed = self._applied
                raise StoreError(
                    f"change {owed}, which was made for this process, does not show here: "
                    f"the store is read up to {self._applied}; open it again"
                )
            time.sleep(_MOMENT)

    def start(self, seconds: float, *, metadata: bool) -> None:
        """Refresh every `seconds` on a thread of its own, until close(); 0 for never. metadata: subscribers
        want it."""
        self._metadata = metadata
        if seconds == 0:
            return
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="warpmem-follow", daemon=True)
        self._thread.start()

    def _run(self, seconds: float) -> None:
        pause = seconds
        while not self._stopping.wait(pause):
            # Whoever asks for refresh() meets the error too. Answers go on in the state there is.
            # No error may end this thread: they would stay in that state for ever.
            try:
                self.refresh()
                pause = seconds
            except Exception as error:  # noqa: BLE001  as said
                pause = max(seconds, _PAUSE)
                self._failed(error)
        if self._dropped:
            super().close()

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        with self._counting:
            self._failures += 1
            told = kind in self._told
            self._told.add(kind)
        if not told:  # under no lock: who hears of it may ask for the lag
            events.tell(events.WARNING, "follow_failed", error=kind)

    def refresh(self) -> int:
        """See protocols.Log. Raises StoreCorrupt; ModelMismatch when the store has got another model."""
        self._check_process()
        with self._turn:
            for attempt in range(_TRIES):
                self._following.catch_up()
                try:
                    taken = self._take_in()
                    self._last, self._since = self._applied, self._clock.now()
                    return taken
                except StoreCorrupt:
                    # Damage stays; a state that the writer changed while it was read does not.
                    if attempt + 1 == _TRIES:
                        raise
            raise AssertionError("unreachable")

    def rows(
        self, owner: int, identity: StoreIdentity, metadata: bool = False, space: Space | None = None
    ) -> Iterator[RowBlock]:
        """See protocols.Log. Raises ModelMismatch when the store has got another model: the family of the
        one that this process knows is empty then, or another's, and what is read of it is no answer."""
        self._check_model()
        yield from super().rows(owner, identity, metadata, space)
        self._check_model()

    def _check_model(self) -> None:
        if read_identity(self._following) != self._identity:
            raise ModelMismatch("the store has got another model since it was opened: open it again")

    def _take_in(self) -> int:
        self._check_model()
        state, before = load_state(self._following), self._applied
        if state.sequence < before:
            raise StoreCorrupt(
                f"the log ends at change {state.sequence}, and change {before} was there before: "
                "the store was exchanged for an older one; open it again"
            )
        if state.sequence == before:
            return 0
        found = touched(self._entries(before, state.sequence))
        changes = [row_changes(self, owner, keys, metadata=self._metadata) for owner, keys in found.items()]
        self._epoch += 1
        self._tell(changes)
        self._applied = state.sequence
        self._state = state  # last: what is counted is in the feed
        return state.sequence - before

    def lag(self) -> tuple[int, float, int]:
        """See protocols.Log. Looks at what the writer has written by now, and does not take it in. Where that
        fails: what was known before, and how long ago that was."""
        self._check_process()
        failure: StoreError | None = None
        with self._turn:
            try:
                self._following.catch_up()
                last = load_state(self._following).sequence
                first = next(self._entries(self._applied, last), None)
            except StoreClosed:
                raise
            except StoreError as error:
                failure = error
            else:
                self._last = last
                self._since = self._clock.now() if first is None else first.at
                if first is None:
                    return 0, 0.0, self._failures
            changes = max(0, self._last - self._applied)
            seconds = max(0.0, (self._clock.now() - self._since) / 1e6)
        if failure is not None:
            self._failed(failure)
        return changes, seconds, self._failures

    def sizes(self) -> dict[str, int]:
        """See protocols.Log. What was known last where the directory cannot be listed."""
        try:
            self._sizes = super().sizes()
        except StoreClosed:
            raise
        except StoreError:
            pass  # lag() meets it too, and counts it
        return self._sizes

    def close(self) -> None:
        self._stopping.set()
        if self._thread is threading.current_thread():
            # The collector dropped it there, maybe in the middle of a read: the thread closes it at its end.
            self._dropped = True
            return
        if self._thread is not None and os.getpid() == self._pid:
            self._thread.join()
        super().close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreClosed(
                f"the store was opened in process {self._pid} and this is its forked child {os.getpid()}: "
                "open it there with follow=True"
            )
