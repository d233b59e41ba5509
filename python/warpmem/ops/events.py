"""What happens, to the standard library's logging: logger "warpmem", one event a record.

A record's message and its field `event` are the event's name; what else it tells stands in fields of its own
(`extra`), as formatters for JSON write them: numbers, names of this package's parts and of exceptions, the
path of the store. Never a text, a vector, an id or the name of an owner.
"""

from __future__ import annotations

import logging
from typing import Any, Final

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
WARNING: Final = logging.WARNING
ERROR: Final = logging.ERROR

_logger: Final = logging.getLogger("warpmem")
_logger.addHandler(logging.NullHandler())

wanted: Final = _logger.isEnabledFor
"""Whether anybody hears of events of a level."""


def tell(level: int, event: str, **fields: Any) -> None:
    """One event. The names of fields are none of a LogRecord's own."""
    if wanted(level):
        _logger.log(level, event, extra={"event": event, **fields}, stacklevel=2)
