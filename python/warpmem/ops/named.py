"""Models by name and options, as a configuration names them. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from ..errors import InputError


def make_named(module: str, kind: str, options: Mapping[str, Any], what: str, *arguments: Any) -> Any:
    """An object of the class `kind` of `module`, with `options` as its arguments beside `arguments`.

    Raises InputError, which names `what` the options are of, for one that it does not know or that is
    missing, MissingDependency with the install line, and what the constructor raises.
    """
    make = getattr(importlib.import_module(module), kind)
    try:
        inspect.signature(make).bind(*arguments, **options)
    except TypeError as error:
        raise InputError(f"{what}: {error}") from None
    return make(*arguments, **options)
