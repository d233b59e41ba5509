"""RocksEngine.renew() beside everything else that uses the database, in every order that matters."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from committers import Submission
from engines import everything
from warpmem.errors import StoreClosed
from warpmem.storage.codec import KEYS_END
from warpmem.storage.rocks import RocksEngine
from warpmem.storage.rocks_scan import Chunks

ITEMS = ("items", b"", KEYS_END)
WAIT = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RocksEngine]:
    made = RocksEngine(tmp_path / "store", min_free_bytes=0)
    made.write([("items", b"%03d" % n, b"value %03d" % n) for n in range(100)])
    yield made
    made.close()


class Beside(Submission):
    """A call on a thread of its own; outcome() gives what it returned or raises what it raised."""

    def outcome(self) -> Any:
        self.join(WAIT)
        assert not self.is_alive(), "it waits for ever"
        if self.error is not None:
            raise self.error
        return self.result


USES: dict[str, Callable[[RocksEngine], Any]] = {
    "flush": RocksEngine.flush,
    "compact": lambda engine: engine.compact([ITEMS]),
    "scan": lambda engine: len(everything(engine, "items")),
    "chunks": lambda engine: [len(keys) for keys, _ in engine.chunks(*ITEMS, 1000)],
}


@pytest.mark.parametrize("use", USES)
def test_what_meets_a_renewal_waits_for_it(
    engine: RocksEngine, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """A flush for a backup, and a compaction, said that the store was closed while it was opened again."""
    begun: list[Beside] = []
    reopen = engine._open_database

    def while_closed() -> Any:
        if not begun:
            begun.append(Beside(lambda: USES[use](engine)))
            begun[0].join(0.1)
            assert begun[0].is_alive() or begun[0].outcome()
        return reopen()

    monkeypatch.setattr(engine, "_open_database", while_closed)
    engine.renew()
    begun[0].outcome()
    engine.write([("items", b"more", b"x")])
    assert len(everything(engine, "items")) == 101


def before_a_flush(engine: RocksEngine, do: Callable[[], Any]) -> None:
    """Let something happen before one family is flushed."""

    class Slow:
        """The family."""

        def __init__(self, family: Any) -> None:
            self._family = family

        def __getattr__(self, name: str) -> Any:
            return getattr(self._family, name)

        def flush(self) -> None:
            do()
            self._family.flush()

    engine._families["log"] = Slow(engine._families["log"])


@pytest.mark.parametrize("use", ["flush", "compact"])
def test_a_renewal_waits_for_who_is_at_work(engine: RocksEngine, use: str) -> None:
    """It took the database away from under a compaction, and the engine was closed for good."""
    inside, go_on = threading.Event(), threading.Event()
    before_a_flush(engine, lambda: inside.set() or go_on.wait(WAIT))
    working = Beside(lambda: USES[use](engine))
    assert inside.wait(WAIT)
    renewing = Beside(engine.renew)
    renewing.join(0.1)
    assert engine.get("items", b"007") == b"value 007", "readers need not wait yet"
    go_on.set()
    working.outcome()
    renewing.outcome()
    assert len(everything(engine, "items")) == 100


@pytest.mark.parametrize("use", ["flush", "compact"])
def test_what_is_at_work_may_be_closed_on_its_own_thread(engine: RocksEngine, use: str) -> None:
    """As the collector does with a store that was dropped; Memory.close() in a signal handler does not."""
    closed: list[bool] = []

    def close() -> None:
        if not closed:
            closed.append(True)
            engine.close()

    before_a_flush(engine, close)
    working = Beside(lambda: USES[use](engine))
    if use == "compact":
        with pytest.raises(StoreClosed):
            working.outcome()
    else:
        working.outcome()
    with pytest.raises(StoreClosed):
        engine.get("items", b"007")


def test_a_walk_may_be_closed_on_its_own_thread_while_it_begins(engine: RocksEngine) -> None:
    class Closing(weakref.WeakSet[Any]):
        """The walks that are known; who adds one drops the store."""

        def add(self, item: Any) -> None:
            super().add(item)
            engine.close()

    engine._scans = Closing()
    with pytest.raises(StoreClosed):
        Beside(lambda: next(engine.scan(*ITEMS))).outcome()


def test_a_walk_that_waits_for_a_renewal_keeps_nobody_waiting(
    engine: RocksEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so under its own lock, for which a compaction waits."""
    walk = engine.chunks(*ITEMS, 10)
    assert len(next(walk)[0]) == 10
    begun: list[Beside] = []
    reopen = engine._open_database

    def while_closed() -> Any:
        if not begun:
            begun.append(Beside(lambda: next(walk)))
            begun.append(Beside(lambda: engine.compact([ITEMS])))
            begun[1].join(0.1)
        return reopen()

    monkeypatch.setattr(engine, "_open_database", while_closed)
    engine.renew()
    assert begun[0].outcome()[0][0] == b"010"
    begun[1].outcome()


class Gate:
    """A lock that lets one thread wait in front of it."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.held: threading.Thread | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __enter__(self) -> Any:
        if threading.current_thread() is self.held:
            self.reached.set()
            assert self.go_on.wait(WAIT)
        return self._lock.__enter__()

    def __exit__(self, *error: object) -> Any:
        return self._lock.__exit__(*error)


def test_a_walk_that_begins_beside_an_erasure_keeps_nothing_of_it(
    engine: RocksEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It had its snapshot before anybody knew of it: the compaction left what was erased in a new table."""
    engine.flush()
    gate = Gate(engine._scans_lock)
    monkeypatch.setattr(engine, "_scans_lock", gate)
    start = threading.Event()
    walking = Beside(lambda: start.wait(WAIT) and list(engine.chunks(*ITEMS, 10)))
    gate.held = walking
    start.set()
    assert gate.reached.wait(WAIT)
    engine.write([("items", b"%03d" % n, None) for n in range(90)])
    engine.compact([ITEMS])
    gate.go_on.set()
    engine.renew()
    assert sum(len(keys) for keys, _ in walking.outcome()) == 10
    holding = [file.name for file in (tmp_path / "store").iterdir() if b"value 007" in file.read_bytes()]
    assert holding == []


@pytest.mark.parametrize("kind", ["scan", "chunks"])
def test_a_walk_that_begins_beside_a_closing_does_not_keep_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its iterator kept RocksDB open, with its lock."""
    engine = RocksEngine(tmp_path, min_free_bytes=0)
    reached, go_on = threading.Event(), threading.Event()
    family = engine._family

    class Slow:
        """A family that takes a while to make what a walk stands on."""

        def __init__(self, name: str) -> None:
            self._family = family(name)

        def __getattr__(self, name: str) -> Any:
            made = getattr(self._family, name)()
            reached.set()
            assert go_on.wait(WAIT)
            return lambda: made

    monkeypatch.setattr(engine, "_family", Slow)
    walking = Beside(lambda: engine.scan(*ITEMS) if kind == "scan" else engine.chunks(*ITEMS, 10))
    assert reached.wait(WAIT)
    engine.close()
    go_on.set()
    with pytest.raises(StoreClosed):
        walking.outcome()
    del walking
    RocksEngine(tmp_path, min_free_bytes=0).close()


def test_a_walk_that_is_at_work_lets_go_after_its_step() -> None:
    """It kept its snapshot when whoever wanted it gone asked in the middle of a step."""

    class Moment:
        """A snapshot of ten entries, in the fifth of which it is to go."""

        def items(self, from_key: bytes) -> Iterator[tuple[bytes, bytes]]:
            for n in range(10):
                if n == 4:
                    walk.let_go(False)
                if (key := b"%d" % n) >= from_key:
                    yield key, b"x"

    kept: weakref.WeakSet[Moment] = weakref.WeakSet()

    def moment() -> Moment:
        kept.add(made := Moment())
        return made

    walk = Chunks(lambda: "closed", moment, b"", KEYS_END, 5)
    walk.begin()
    assert len(kept) == 1
    assert next(walk)[0] == [b"%d" % n for n in range(5)]
    assert not kept
    assert next(walk)[0][0] == b"5"
