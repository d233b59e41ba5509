"""IdMap against a dict, refused input, threads."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from warpmem._cpu import IdMap

LOWEST = -(1 << 63)


@pytest.mark.parametrize("seed", range(4))
def test_it_follows_a_dict(seed: int) -> None:
    rng = random.Random(seed)
    ids, model = IdMap(), dict[int, int]()
    pool = [
        LOWEST,
        LOWEST + 1,
        -1,
        0,
        1,
        (1 << 63) - 1,
        *(rng.randrange(LOWEST, 1 << 63) for _ in range(300)),
    ]
    for _ in range(300):
        keys = rng.choices(pool, k=rng.choice([0, 1, 5, 100]))
        values = [rng.randrange(LOWEST + 1, 1 << 63) for _ in keys]
        array = np.array(keys, np.int64)
        choice = rng.random()
        if choice < 0.5:
            assert ids.put(array, np.array(values, np.int64)) == len(set(keys) - model.keys())
            model.update(zip(keys, values, strict=True))
        elif choice < 0.8:
            assert ids.pop(array, -5).tolist() == [model.pop(key, -5) for key in keys]
        else:
            assert ids.get(array, LOWEST).tolist() == [model.get(key, LOWEST) for key in keys]
            assert ids.contains(array).tolist() == [key in model for key in keys]
        assert len(ids) == len(model)
        if keys:
            key = keys[0]
            assert ids.contains(key) is (key in model)
            assert ids.get(np.int64(key), 3) == model.get(key, 3)  # type: ignore[call-overload]
            assert ids.put(key, 8) == (key not in model)
            assert (ids.get(key, 3), ids.pop(key, 3), ids.pop(key, 3)) == (8, 8, 3)
            model.pop(key, None)
        found = ids.items()
        assert found[0].dtype == found[1].dtype == np.int64
        assert dict(zip(found[0].tolist(), found[1].tolist(), strict=True)) == model


def test_refused_input_changes_nothing() -> None:
    ids = IdMap()
    ids.put(1, 2)
    one = np.array([1])
    bad: list[tuple[Any, type[Exception], str]] = [
        (lambda: ids.put(one, np.array([LOWEST])), ValueError, "value 0 is -2"),
        (lambda: ids.put(1, LOWEST), ValueError, "cannot be stored"),
        (lambda: ids.put(one, np.array([1, 2])), ValueError, "expected 1 entries, not 2"),
        (lambda: ids.put([1], [2]), TypeError, "keys must be a NumPy array of int64, not list"),
        (lambda: ids.put(one.astype(np.int32), one), TypeError, "int64, not int32"),
        (lambda: ids.get("1", 0), TypeError, "not str"),
        (lambda: ids.get(1 << 63, 0), ValueError, "beyond 64 bits"),
        (lambda: ids.get(one, None), TypeError, "default must be an integer"),
        (lambda: ids.reserve(-1), ValueError, "n must be within 0"),
        (lambda: ids.reserve(1 << 41), ValueError, "n must be within 0"),
    ]
    for call, error, match in bad:
        with pytest.raises(error, match=match):
            call()
    assert [part.tolist() for part in ids.items()] == [[1], [2]]


_OUT_OF_MEMORY = """
import resource
import numpy as np
from warpmem._cpu import IdMap
ids = IdMap()
ids.put(np.arange(1000), np.arange(1000))
many = np.arange(500, 1 << 22)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
for call in (lambda: ids.put(many, many + 1), lambda: ids.reserve(1 << 22)):
    try:
        call()
    except MemoryError:
        pass
    else:
        raise AssertionError("there was memory")
assert len(ids) == 1000
assert ids.get(np.arange(1001), -1).tolist() == [*range(1000), -1]
assert ids.put(5, 6) == 0 and ids.pop(5, 0) == 6
"""


def test_without_memory_nothing_changes() -> None:
    done = subprocess.run([sys.executable, "-c", _OUT_OF_MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_see_each_call_whole() -> None:
    """Two writers put and pop ranges of their own; a reader finds all of a range or nothing."""
    ids, stop, wrong, looks = IdMap(), threading.Event(), list[int](), [0]
    ranges = [np.arange(10_000) * sign for sign in (1, -1)]
    ranges[1] -= 1

    def write(keys: Any) -> None:
        while not stop.is_set():
            ids.put(keys, keys)
            if not (ids.pop(keys, 1 << 40) == keys).all():
                wrong.append(-1)

    def read() -> None:
        while not stop.is_set():
            for keys in ranges:
                count = int(ids.contains(keys).sum())
                wrong.extend([count] if count not in (0, len(keys)) else [])
            if len(ids.items()[0]) % 10_000:
                wrong.append(-2)
            looks[0] += 1

    threads = [threading.Thread(target=write, args=(keys,)) for keys in ranges]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while looks[0] < 100 and not wrong and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and looks[0] >= 100
