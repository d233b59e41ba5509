"""Changes that a follower has the process that writes make for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import msgspec

from ..ingest.media import media_reference, to_media
from ..protocols import Writer
from ..types import NewItem
from .lifetime import Lifetime


class Follower:
    """The part of Memory that may follow another process, and then has it make changes."""

    _writer: Writer | None
    _lifetime: Lifetime


M = TypeVar("M", bound=Follower)
P = ParamSpec("P")
R = TypeVar("R")
Prepare = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]

NAMES: Final[set[str]] = set()
"""Of the methods that are called so: nothing else is done for others."""


def by_writer(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """The method as it is, but in a follower, which passes the call on."""
    return prepared(_as_given)(method)


def prepared(
    prepare: Prepare,
) -> Callable[[Callable[Concatenate[M, P], R]], Callable[Concatenate[M, P], R]]:
    """As by_writer. prepare: puts into the arguments what is this process's alone, as its files are."""

    def decorate(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
        NAMES.add(method.__name__)

        @functools.wraps(method)
        def call(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
            writer = self._writer
            if writer is None:
                return method(self, *args, **kwargs)
            self._lifetime.check()
            return cast("R", writer.call(method.__name__, *prepare(args, kwargs)))

        return call

    return decorate


def _as_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def with_files(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `add` and `add_many`: files of images and audio are read here."""
    kwargs = dict(kwargs)
    for name in ("image", "audio"):
        if kwargs.get(name) is not None:
            value = kwargs[name]
            kwargs[name] = _content(value, name)
            if kwargs.get("blob") is None:
                kwargs["blob"] = media_reference(value, name)
    for name in ("content", "items"):
        if name in kwargs:
            kwargs[name] = _with_file(kwargs[name])
    return tuple(_with_file(argument) for argument in args), kwargs


def _with_file(argument: Any) -> Any:
    if type(argument) in (list, tuple):
        return [_with_file(entry) for entry in argument]
    if not isinstance(argument, NewItem) or argument.media is None:
        return argument
    name = str(argument.modality)
    blob = media_reference(argument.media, name) if argument.blob is None else argument.blob
    return msgspec.structs.replace(argument, media=_content(argument.media, name), blob=blob)


def _content(value: Any, name: str) -> Any:
    """The bytes of a file, or the URI."""
    media = to_media(value, name)
    return media.uri if media.data is None else media.data
