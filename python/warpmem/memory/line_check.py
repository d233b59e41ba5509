"""The check in each exported line, and the last line that counts them: damage to an export is not imported.

`check` is the CRC32C, in eight hex digits, of the line's other fields as JSON with sorted keys and no spaces,
so it survives being laid out otherwise. The last line of an export is {"end": lines, "check": ...}.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InputError
from ..storage.crc import crc32c

_PASSING = ("check", "model_id", "touched_at", "vector")
_encode = msgspec.json.Encoder(order="deterministic").encode


def check_of(fields: dict[str, Any]) -> str:
    """The check of a line with these fields, `check` not among them."""
    return f"{crc32c(_encode(msgspec.json.decode(_encode(fields)))):08x}"


def with_check(fields: dict[str, Any]) -> bytes:
    """The line, with its check as the last field."""
    return msgspec.json.encode({**fields, "check": check_of(fields)}) + b"\n"


def content_of(fields: dict[str, Any]) -> bytes:
    """What a line with these fields says of its item: the same in every export until the item is changed."""
    return _encode({name: value for name, value in fields.items() if name not in _PASSING})


class Checks:
    """Compares the lines of one file with what they say of themselves."""

    def __init__(self) -> None:
        self._lines = 0

    @property
    def cut_off(self) -> bool:
        """Whether exported lines came that no last line has counted."""
        return self._lines > 0

    def is_end(self, raw: dict[str, Any]) -> bool:
        """Whether `raw` is the last line of an export; else an item, which is counted if it has a check.

        Raises InputError when it is not what was exported, or other lines came than the last one says.
        """
        if "check" not in raw:
            return False
        fields = {name: value for name, value in raw.items() if name != "check"}
        expected = check_of(fields)
        if raw["check"] != expected:
            raise InputError(
                f"the line is not what was exported: its check is {raw['check']!r}, expected {expected!r}; "
                "export it again, or remove the check to take it as it is"
            )
        if "end" not in fields:
            self._lines += 1
            return False
        lines, self._lines = self._lines, 0
        if lines != fields["end"]:
            raise InputError(f"the export had {fields['end']} lines, {lines} came: export it again")
        return True
