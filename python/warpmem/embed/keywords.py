"""What a function of somebody else's can be passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes_keyword(function: Callable[..., Any], name: str) -> bool:
    """Whether it has a parameter of this name that can be passed by keyword."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # some compiled functions have no signature
        return False
    return parameter is not None and parameter.kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
