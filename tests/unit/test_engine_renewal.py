"""RocksEngine.renew() beside everything else that uses the database, in every order that matters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import everything
from warpmem.storage.codec import KEYS_END
from warpmem.storage.rocks import RocksEngine

ITEMS = ("items", b"", KEYS_END)
WAIT = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RocksEngine]:
    made = RocksEngine(tmp_path / "store", min_free_bytes=0)
    made.write([("items", b"%03d" % n, b"value %03d" % n) for n in range(100)])
    yield made
    made.close()


class Beside(threading.Thread):
    """Calls a function on a thread of its own; result() gives what it returned or raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._outcome: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:  # noqa: BLE001  it is raised again where it is asked for
            self._error = error

    def result(self) -> Any:
        self.join(WAIT)
        assert not self.is_alive(), "it waits for ever"
        if self._error is not None:
            raise self._error
        return self._outcome


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
            assert begun[0].is_alive() or begun[0].result()
        return reopen()

    monkeypatch.setattr(engine, "_open_database", while_closed)
    engine.renew()
    begun[0].result()
    engine.write([("items", b"more", b"x")])
    assert len(everything(engine, "items")) == 101


@pytest.mark.parametrize("use", ["flush", "compact"])
def test_a_renewal_waits_for_who_is_at_work(engine: RocksEngine, use: str) -> None:
    """It took the database away from under a compaction, and the engine was closed for good."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow:
        """A family whose flush takes a while."""

        def __init__(self, family: Any) -> None:
            self._family = family

        def __getattr__(self, name: str) -> Any:
            return getattr(self._family, name)

        def flush(self) -> None:
            inside.set()
            assert go_on.wait(WAIT)
            self._family.flush()

    engine._families["log"] = Slow(engine._families["log"])
    working = Beside(lambda: USES[use](engine))
    assert inside.wait(WAIT)
    renewing = Beside(engine.renew)
    renewing.join(0.1)
    assert engine.get("items", b"007") == b"value 007", "readers need not wait yet"
    go_on.set()
    working.result()
    renewing.result()
    assert len(everything(engine, "items")) == 100


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
    assert begun[0].result()[0][0] == b"010"
    begun[1].result()
