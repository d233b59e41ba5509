"""Values of arguments, as argparse wants them checked."""

from __future__ import annotations

import argparse
import json
from datetime import date, datetime
from typing import Any

from ..errors import InputError


def moment(text: str) -> datetime:
    """An ISO 8601 time. Whether it needs an offset is for the library to say."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not an ISO 8601 time such as 2026-01-31T08:00:00+00:00") from None


def moment_or_none(text: str) -> datetime | None:
    """As `moment`; None for "none"."""
    return None if text == "none" else moment(text)


def day(text: str) -> date:
    """A date."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a day such as 2026-01-31") from None


def is_text(argument: str) -> bool:
    """Whether an argument was UTF-8: Python stands lone surrogates in for bytes that are not."""
    try:
        argument.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class JsonObject(argparse.Action):
    """Takes a JSON object. An action, since argparse would report a type's InputError as wrong usage."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            value = json.loads(values)
        except RecursionError:
            raise InputError(f"{option_string}: the JSON is nested too deeply") from None
        except ValueError as error:
            raise argparse.ArgumentError(self, f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise argparse.ArgumentError(self, f"expected a JSON object, not {type(value).__name__}")
        setattr(namespace, self.dest, value)


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",")]


def cutoffs(text: str) -> list[int]:
    """Positive numbers separated by commas, ascending and without repetition."""
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError("expected numbers separated by commas, such as 1,5,10,20") from None
    if values[0] < 1:
        raise argparse.ArgumentTypeError(f"each must be at least 1, not {values[0]}")
    return values


def positive(text: str) -> int:
    """A number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value
