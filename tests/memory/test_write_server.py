"""Changes that followers have the writing process make: the same as made there, once, and shown at once."""

from __future__ import annotations

import asyncio
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import warpmem
from warpmem import AsyncMemory, Memory, NewItem, Scope
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import (
    InputError,
    InvalidText,
    NotFound,
    StoreReadOnly,
    VersionConflict,
    WriterUnavailable,
)
from warpmem.integrations.tools import MemoryTools
from warpmem.memory.by_writer import NAMES
from warpmem.ops import wire
from warpmem.ops.writer_link import SOCKET_NAME, WriterLink, socket_path
from warpmem.reason.fakes import ScriptedLanguageModel

USER: dict[str, Any] = {"user_id": "nadia"}


def follow(path: Path, **options: Any) -> Memory:
    """A follower that looks for changes only when it has to."""
    return warpmem.open(path, follow=True, follow_ms=0, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def writer(path: Path) -> Iterator[Memory]:
    model = ScriptedLanguageModel(['{"memories": []}'] * 20)
    with warpmem.open(path, embedder="hashing", language_model=model) as memory:
        yield memory


@pytest.fixture
def follower(writer: Memory, path: Path) -> Iterator[Memory]:
    with warpmem.serve(writer), follow(path) as memory:
        yield memory


def _added(memory: Memory) -> str:
    return memory.add("Nadia lives in Porto.", **USER).id


def _add(memory: Memory) -> Any:
    done = memory.add("a", key="k", metadata={"n": [1, {"m": None}]}, entities=["Ada"], **USER)
    item = memory.get(done.id)
    return done.action, item.text, item.key, item.metadata, item.entities


def _many(memory: Memory) -> Any:
    vectors = np.eye(256, dtype=np.float32)[:2]
    done = memory.add_many([NewItem(text="a"), "b"], vectors=vectors, **USER)
    found = memory.search(vector=vectors[1], user_id="nadia", k=1, return_vectors="numpy")
    return [one.action for one in done], found[0].item.text, found.vectors.tolist()


def _update(memory: Memory) -> Any:
    done = memory.update(_added(memory), text="changed", priority=np.float32(0.25), valid_to=None)
    return done.text, done.version, done.priority, memory.get(done.id) == done


def _revert(memory: Memory) -> Any:
    key = _added(memory)
    memory.update(key, text="changed")
    return memory.revert(key, 1).text, memory.get(key).version


def _delete(memory: Memory) -> Any:
    key = _added(memory)
    return memory.delete(key), memory.get_many([key]), len(memory.history(key))


def _erase(memory: Memory) -> Any:
    receipt = memory.erase([_added(memory)])
    return receipt.items, memory.count(**USER)


def _revoke(memory: Memory) -> Any:
    memory.add("a claim", sources=["web:x"], **USER)
    return memory.revoke("web:x"), memory.count(**USER), memory.revoked()


def _reinstate(memory: Memory) -> Any:
    return _revoke(memory), memory.reinstate("web:x"), memory.count(**USER)


def _document(memory: Memory) -> Any:
    done = memory.add_document("# One\n\nFirst.\n\n# Two\n\nSecond.", name="guide.md", **USER)
    return done.added, [memory.get(chunk).text for chunk in done.chunks]


def _name(memory: Memory) -> Any:
    memory.name_entity("Ada Lovelace", aliases=["Ada"], kind="person", **USER)
    return [(entity.name, entity.aliases) for entity in memory.entities(**USER)]


def _relate(memory: Memory) -> Any:
    memory.relate("Ada", "lives in", "Porto", functional=True, **USER)
    memory.relate("Ada", "lives in", "Lisbon", functional=True, **USER)
    return [relation.object for relation in memory.relations(**USER)]


def _later(memory: Memory) -> Any:
    memory.add("later", embed="later", **USER)
    memory.embed_pending()
    return len(memory.search("later", mode="dense", **USER)), memory.stats().pending["embed"].waiting


CALLS: dict[str, Callable[[Memory], Any]] = {
    "add": _add,
    "add_many": _many,
    "add_document": _document,
    "update": _update,
    "revert": _revert,
    "delete": _delete,
    "delete_all": lambda memory: (_added(memory), memory.delete_all(kinds=["fact"], **USER))[1:],
    "erase": _erase,
    "revoke": _revoke,
    "reinstate": _reinstate,
    "name_entity": _name,
    "relate": _relate,
    "embed_pending": _later,
    "extract": lambda memory: memory.extract([_added(memory)]),
    "extract_pending": lambda memory: memory.extract_pending(),
    "run_jobs": lambda memory: [report.job for report in memory.run_jobs(["forget"], seconds=9)],
}


def test_every_change_has_a_case() -> None:
    assert set(CALLS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_it_is_as_if_made_there(name: str, writer: Memory, follower: Memory) -> None:
    with warpmem.open(
        embedder="hashing", language_model=ScriptedLanguageModel(['{"memories": []}'] * 20)
    ) as alone:
        expected = CALLS[name](alone)
    assert CALLS[name](follower) == expected
    kept = [(item.text, item.version) for item in writer.list(include_past=True, **USER)]
    assert kept == [(item.text, item.version) for item in follower.list(include_past=True, **USER)]


def test_errors_are_those_of_the_writer_and_store_nothing(writer: Memory, follower: Memory) -> None:
    key = _added(follower)
    for kind, call in (
        (InvalidText, lambda: follower.add(" ", **USER)),
        (InputError, lambda: follower.add("x", priority=object(), **USER)),
        (NotFound, lambda: follower.update("0" * 32, text="x")),
        (TypeError, lambda: follower.add("x", bogus=1)),
    ):
        with pytest.raises(kind):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(VersionConflict) as caught:
        follower.update(key, text="x", expected_version=7)
    assert (caught.value.expected, caught.value.actual) == (7, 1)
    assert writer.count(**USER) == 1


def test_without_a_server_nothing_is_changed(writer: Memory, path: Path) -> None:
    with follow(path) as follower:
        with pytest.raises(WriterUnavailable, match=r"warpmem\.serve") as caught:
            _added(follower)
        assert isinstance(caught.value, StoreReadOnly) and not caught.value.sent
        with warpmem.serve(writer):
            assert follower.get(_added(follower)).text == "Nadia lives in Porto."
        with pytest.raises(WriterUnavailable) as caught:
            follower.add("after the server", **USER)
        assert not caught.value.sent and follower.count(**USER) == 1
        with warpmem.serve(writer) as server:
            follower.add("again", **USER)
            assert server.connections == 1
        assert follower.count(**USER) == writer.count(**USER) == 2


def test_a_closed_store_takes_nothing(writer: Memory, follower: Memory) -> None:
    _added(follower)
    writer.close()
    with pytest.raises(WriterUnavailable, match="closed the store") as caught:
        _added(follower)
    assert not caught.value.sent


class Slow:
    """An embedder that waits for a word."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, texts: Any) -> NDArray[np.float32]:
        if "slow" in texts:
            self.begun.set()
            assert self.go.wait(30)
        return HashingEmbedder().embed(texts, role="document")


def test_closing_the_server_lets_calls_end(path: Path) -> None:
    slow = Slow()
    model = CallableEmbedder(slow, "slow", 256)
    with warpmem.open(path, embedder=model) as writer, ThreadPoolExecutor(2) as threads:
        server = warpmem.serve(writer)
        with follow(path, embedder=model) as follower:
            adding = threads.submit(follower.add, "slow", **USER)
            assert slow.begun.wait(30)
            closing = threads.submit(server.close)
            time.sleep(0.05)
            assert not closing.done() and not adding.done()
            slow.go.set()
            assert adding.result(30).action == "added"
            closing.result(30)
            server.close()
            assert follower.count(**USER) == 1


def test_an_interrupted_call_leaves_its_answer_to_nobody(
    follower: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _added(follower)
    receive = wire.receive

    def interrupted(connection: socket.socket) -> bytes | None:
        if threading.current_thread() is not threading.main_thread():
            return receive(connection)  # the server's
        monkeypatch.setattr(wire, "receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(wire, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follower.add("the first", **USER)
    added = follower.add("the second", **USER)
    assert follower.get(added.id).text == "the second"


def test_another_version_is_refused(writer: Memory, path: Path) -> None:
    with warpmem.serve(writer):
        link = WriterLink(str(path), "0.0.1", lambda last: None)
        with pytest.raises(WriterUnavailable, match=r"this is 0\.0\.1"):
            link.call("add", ["x"], USER)
    assert writer.count(**USER) == 0


def test_whatever_is_sent_others_are_served(writer: Memory, follower: Memory, path: Path) -> None:
    rng = random.Random(1)
    hello = wire.encoded(["warpmem writer 1", warpmem.__version__])
    calls: list[Any] = ["close", "__init__", "search", "_check_open", 5, None, ["add"]]
    for turn in range(60):
        with socket.socket(socket.AF_UNIX) as connection, socket_path(str(path)) as place:
            connection.settimeout(30)
            connection.connect(place)
            if turn % 3:
                wire.send(connection, hello)
                assert wire.receive(connection) is not None
            if turn % 3 == 1:
                call = calls[turn // 3 % len(calls)]
                wire.send(connection, wire.encoded([call, [], {}]))
                assert wire.receive(connection) is None
            else:
                connection.sendall(rng.randbytes(rng.randrange(1, 200)))
    assert follower.get(_added(follower)).text == "Nadia lives in Porto."
    assert writer.count(**USER) == 1


def test_a_store_may_have_a_long_path(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 100) / ("b" * 100)
    path.parent.mkdir()
    with warpmem.open(path, embedder="hashing") as writer, warpmem.serve(writer), follow(path) as follower:
        assert follower.get(_added(follower)).version == 1


def test_only_its_user_may_connect(writer: Memory, path: Path) -> None:
    with warpmem.serve(writer):
        assert stat.S_IMODE((path / SOCKET_NAME).stat().st_mode) == 0o600
    assert not (path / SOCKET_NAME).exists()


def test_who_does_not_write_serves_nobody(writer: Memory, follower: Memory) -> None:
    with pytest.raises(InputError, match="already"):
        warpmem.serve(writer)
    with pytest.raises(InputError, match="writes a store on disk"):
        warpmem.serve(follower)
    with warpmem.open(embedder="hashing") as volatile, pytest.raises(InputError, match="on disk"):
        warpmem.serve(volatile)
    with pytest.raises(InputError, match="must be a Memory"):
        warpmem.serve("memory.db")  # type: ignore[arg-type]


def test_files_are_the_follower_s(follower: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guide.md").write_text("# One\n\nFirst.")
    Path("dusk.png").write_bytes(b"pixels")
    sent: list[Any] = []
    call = WriterLink.call

    def seen(self: WriterLink, name: str, arguments: Any, keywords: Any) -> Any:
        sent.append((arguments, keywords))
        return call(self, name, arguments, keywords)

    monkeypatch.setattr(WriterLink, "call", seen)
    done = follower.add_document(Path("guide.md"), **USER)
    assert follower.get(done.chunks[0]).metadata["document"]["name"] == "guide.md"
    assert "First." in sent[0][0][0]
    photo = follower.add("dusk", image=Path("dusk.png"), **USER)
    item = follower.add_many([NewItem(text="dusk too", modality="image", media="dusk.png")], **USER)[0]
    assert follower.get(photo.id).blob == follower.get(item.id).blob == "dusk.png"
    assert sent[1][1]["image"] == b"pixels" and sent[2][0][0][0].media == b"pixels"
    named = follower.add(content=NewItem(text="dusk", modality="image", media="dusk.png"), **USER)
    assert follower.get(named.id).blob == "dusk.png" and sent[3][1]["content"].media == b"pixels"
    with pytest.raises(InputError, match="cannot be read"):
        follower.add("gone", image="gone.png", **USER)


def test_what_is_above_works_over_it(follower: Memory, path: Path) -> None:
    tools = MemoryTools(follower, Scope(user_id="nadia"))
    assert "error" not in tools.call("remember", '{"text": "Nadia lives in Lisbon.", "key": "home"}')
    assert "Lisbon" in tools.call("look_up", '{"key": "home"}')

    async def use() -> str:
        async with await AsyncMemory.open(path, follow=True, follow_ms=0) as memory:
            await asyncio.gather(*(memory.add(f"note {i}", **USER) for i in range(20)))
            await memory.flush()
            assert await memory.count(**USER) == 21
            return (await memory.context("where does Nadia live?", **USER)).text

    assert "Lisbon" in asyncio.run(use())
