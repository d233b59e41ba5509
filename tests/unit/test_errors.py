"""Errors go from one process to another whole."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from warpmem import errors

WORDS = ("message", "why", "kind", "path", "reason")
KINDS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and kind.__module__ == errors.__name__
]


def made(kind: type[errors.WarpmemError]) -> errors.WarpmemError:
    """One with whatever its constructor asks for."""
    if "__init__" not in vars(kind):
        return kind("what is wrong")
    code = kind.__init__.__code__
    return kind(
        *[
            f"{name} {place}" if name in WORDS else place + 7
            for place, name in enumerate(code.co_varnames[1 : code.co_argcount])
        ]
    )


def raised(kind: type[errors.WarpmemError]) -> None:
    raise made(kind)


def fields(error: BaseException) -> tuple[Any, ...]:
    return type(error), str(error), error.args, error.__dict__, getattr(error, "msg", None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_says_the_same(kind: type[errors.WarpmemError]) -> None:
    error = made(kind)
    assert fields(copy.copy(error)) == fields(error)
    assert fields(copy.deepcopy(error)) == fields(error)


def test_a_process_of_a_pool_says_what_it_raised() -> None:
    """Some could not be read where they arrived: that broke the pool, and one of multiprocessing never
    answered again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for kind in KINDS:
            with pytest.raises(kind) as caught:
                pool.submit(raised, kind).result(timeout=60)
            assert fields(caught.value)[:3] == fields(made(kind))[:3]
