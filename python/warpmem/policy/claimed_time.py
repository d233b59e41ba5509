"""When something happened, as a language model answers: believed where it is a time at all, and one that can
be. A memory is kept without its time else, and its history says so."""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from typing import Final

from ..ops.event_time import Days, apart, parse_day

YEARS_BEFORE: Final = 200
YEARS_AFTER: Final = 100
"""How far from the message a time may lie."""

_PERIOD = re.compile(r"([0-9]{4})(?:-([0-9]{2}))?", re.ASCII)
_LEFT_OUT: Final = "its time was left out: "


def event_days(
    since: str | None, until: str | None, by_words: Days | None, said: datetime
) -> tuple[Days | None, str | None]:
    """(the days, why they are not the model's). by_words: what the memory's own text says; where the model
    says otherwise, or nothing that can be, it is that."""
    days, wrong = _checked(since, until, said)
    if by_words is None:
        return days, None if wrong is None else f"{_LEFT_OUT}{wrong}"
    if days is None:
        return by_words, None if wrong is None else f"its time is that of its text: {wrong}"
    if apart(days, by_words):
        return by_words, "its time is that of its text: the model gave another one"
    return days, None


def _checked(since: str | None, until: str | None, said: datetime) -> tuple[Days | None, str | None]:
    """(the days that the model gave, what is wrong with them)."""
    since, until = (None if one is None else one.strip() or None for one in (since, until))
    if since is None:
        return None, None if until is None else "the model gave an end without a beginning"
    if _is_copied(_moment(since), said):
        return None, "the model gave the moment of the message"
    first = _period(since)
    last = first if until is None else _period(until)
    if first is None or last is None:
        return None, "the model gave something that is no date"
    if last[1] < first[0]:
        return None, "the model gave an end before the beginning"
    if first[0].year < said.year - YEARS_BEFORE or last[1].year > said.year + YEARS_AFTER:
        return None, "the model gave a time too far away"
    return (first[0], last[1]), None


def _period(text: str) -> Days | None:
    """The first and the last day of a day, a month or a year; of a moment, its day."""
    match = _PERIOD.fullmatch(text)
    if match is None:
        moment = _moment(text)
        day = parse_day(text) if moment is None else moment.date()
        return None if day is None else (day, day)
    year, month = int(match[1]), match[2]
    try:
        if month is None:
            return date(year, 1, 1), date(year, 12, 31)
        return date(year, int(month), 1), date(year, int(month), calendar.monthrange(year, int(month))[1])
    except ValueError:
        return None


def _is_copied(moment: datetime | None, said: datetime) -> bool:
    """Whether it is when the message was said: small models copy what they were shown, or the beginning."""
    if moment is None:
        return False
    return abs(moment.replace(tzinfo=moment.tzinfo or said.tzinfo) - said) < timedelta(minutes=1)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if "T" in text else None
    except ValueError:
        return None


def disjoint(one: Days | None, other: Days | None) -> bool:
    """Whether two things happened at times that have no day in common, as far as both have one."""
    return one is not None and other is not None and apart(one, other)
