"""A store whose messages a language model reads, until its process is killed; what must hold when it is
opened."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import warpmem
from durability.memories import MEMTABLE_BYTES, USERS, check_items
from durability.queues import check_whole
from scripted_extraction import ReadingModel, Shown
from scripted_extraction import memory as claim
from warpmem import Memory, MemoryItem
from warpmem.errors import ModelError, WarpmemError
from warpmem.ops.ids import format_id, parse_id

_WANTED = warpmem.Extraction(
    instructions="What the items are.", kinds={"event": "that a message was read"}, relations=False
)
_DAY = {"from": "2026-03-01", "to": "2026-03-01"}


def _read(shown: Shown) -> object:
    """One event of each message: equal ones are two, so what is made twice can be seen."""
    messages = shown["messages"]
    made = [
        claim(f"read: {message['text']}", message["number"], kind="event", **_DAY) for message in messages
    ]
    return {"memories": made}


def _open(path: str, model: ReadingModel, **options: object) -> Memory:
    return warpmem.open(path, embedder="hashing", language_model=model, extraction=_WANTED, **options)  # type: ignore[arg-type]


def child(path: str, seed: int, acknowledge: Callable[[bytes], None]) -> None:
    """Two threads add messages, some of which they have read at once, correct and delete them; the store's
    own thread and one that asks for it make memories of the others, by a model that takes its time and fails
    now and then, and serves one to four owners at a time."""
    moods = random.Random(seed)

    def read(shown: Shown) -> object:
        time.sleep(moods.random() * 0.01)
        return "no JSON" if moods.random() < 0.1 else _read(shown)

    model = ReadingModel(read)
    model.parallel = 1 + seed % 4  # type: ignore[attr-defined]
    memory = _open(path, model, memtable_bytes=MEMTABLE_BYTES)

    def ask() -> None:
        try:
            while True:
                try:
                    memory.extract_pending()
                except ModelError:
                    continue
                time.sleep(0.002)
        except WarpmemError as error:
            acknowledge(f"failed {type(error).__name__}: {error}".encode()[:200])

    threads = [threading.Thread(target=ask)]
    for number in range(2):
        rng, tag = random.Random(seed * 2 + number), f"{seed}-{number}"
        threads.append(threading.Thread(target=_talk, args=(memory, rng, tag, acknowledge)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _talk(memory: Memory, rng: random.Random, tag: str, acknowledge: Callable[[bytes], None]) -> None:
    """Say, correct and take back messages, for ever, each acknowledged."""
    known: list[str] = []
    for n in itertools.count():
        what = rng.choice(("say", "say", "wait", "update", "delete"))
        if what == "update" and known:
            item = memory.update(rng.choice(known), text=f"corrected {tag}-{n}")
            acknowledge(f"is {item.version} {item.id} {item.text}".encode())
        elif what == "delete" and known:
            gone = known.pop(rng.randrange(len(known)))
            memory.delete(gone)
            acknowledge(f"gone 0 {gone} -".encode())
        else:
            text, user = f"item {tag}-{n}", rng.choice(USERS)
            message = {"role": "user", "content": text}
            result = memory.add(message, user_id=user, infer="llm")
            assert isinstance(result, warpmem.AddResult)
            known.append(result.id)
            acknowledge(f"is 1 {result.id} {text}".encode())
            if what == "wait":
                _wait(memory, result.id, acknowledge)


def _wait(memory: Memory, message: str, acknowledge: Callable[[bytes], None]) -> None:
    """Until the message is read, by whomever; its memories are in the change that makes it wait no more."""
    for _ in range(200):
        if not memory._log.work.has("extract", parse_id(message), 1):  # type: ignore[attr-defined]
            memory.flush()
            acknowledge(f"read 0 {message} -".encode())
            return
        time.sleep(0.001)


def check(path: str, acknowledged: Sequence[bytes]) -> Counter[str]:
    """Every acknowledged message is there, and either waits or has its memory; what was acknowledged as read
    has it; what waits is read now, and then each has one. How many were "waiting" and how many "read"
    before."""
    failed = [token for token in acknowledged if token.startswith(b"failed")]
    assert not failed, failed
    check_whole(path, acknowledged)
    with _open(path, ReadingModel(_read), background_work=False) as memory:
        check_items(memory, acknowledged)
        waits = {format_id(work.key) for work in memory._log.work.all("extract")}  # type: ignore[attr-defined]
        messages, made = _said(memory), _made(memory)
        assert waits <= set(messages), "what is no message waits"
        assert not [message for message in waits if made[message]], "what was read waits to be read again"
        lost = set(messages) - waits - set(made)
        assert not lost, f"the memories of {len(lost)} messages were lost"
        done = {token.decode().split()[2] for token in acknowledged if token.startswith(b"read")}
        assert not done & waits, "an acknowledged memory was lost"
        before = len(made)
        assert memory.extract_pending() == len(waits)
        assert memory.stats().pending["extract"].waiting == 0
        after = _made(memory)
        assert set(messages) <= set(after) and set(after.values()) <= {1}, "a message was read twice"
    assert warpmem.verify(path).ok
    return Counter({"waiting": len(waits), "read": before})


def _items(memory: Memory, kind: str) -> list[MemoryItem]:
    return [
        item
        for user in USERS
        for item in memory.list(user_id=user, kinds=[kind], include_past=True, limit=10_000)
    ]


def _said(memory: Memory) -> dict[str, str]:
    """The texts of the messages that are there, by id."""
    return {item.id: item.text for item in _items(memory, "message")}


def _made(memory: Memory) -> Counter[str]:
    """How many memories were made of each message, those of deleted ones included."""
    made = _items(memory, "event")
    assert all(item.metadata == {"event_time": _DAY} for item in made), "a memory lost its time"
    return Counter(item.sources[0] for item in made)
