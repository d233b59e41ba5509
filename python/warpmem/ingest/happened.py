"""When what a sentence says happened, or will: English expressions, worked out from when it was said.

    yesterday, last night, the day after tomorrow, 3 days ago, in two weeks, a year from now
    last week, this month, next year, the week before last, this weekend
    on Monday, last Friday, next Tuesday, Thursday next week
    3 March, March 3rd 2024, 3-5 March, in May, in May 2023, in 2019, 2024-03-01, 13/04/2024, 1.4.2024

What may mean two things gives nothing: two times in one sentence (but for one that lies within the other),
"last Monday" where this week has had one, 3/4/2024, a time that something is before, after or until, a
condition, a habit. A day without its year, and "on Monday", are in the past or to come by the tense of the
sentence, where it has one only. Weeks begin on Monday. What is not English gives nothing either, unless it
looks like one of these.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from ..ops.clock import to_micros
from ..ops.event_time import Days
from ..ops.texts import check_text
from .tenses import Tense, is_no_event, tense_of
from .time_words import COUNTS, DAYS, NAMES, is_changed

_MOST: Final = 1000
"""Characters of a sentence; a longer one says more than one thing."""
_MANY: Final = 8
"""Times in a sentence of which one is not looked for any more."""
_GONE: Final = "\0"
_FAR: Final = timedelta(300)
"""How far away a day may be whose year is not said."""


class _Said(NamedTuple):
    """What an expression is worked out from."""

    at: datetime
    day: date
    tense: Tense | None


Resolved = Days | None
_Work = Callable[[_Said, "re.Match[str]"], Resolved]


def happened(sentence: str, said: datetime) -> tuple[date, date] | None:
    """The first and the last day of what an English sentence says happened or will, as it was said at `said`
    (aware) and in its time zone: "last week" is Monday to Sunday. None where it names no time, or not
    unambiguously; ingest/happened.py has what it knows. Raises InputError."""
    check_text(sentence, "sentence")
    to_micros(said, "said")
    if len(sentence) > _MOST or _HINT.search(sentence) is None:
        return None
    text = _QUOTED.sub(lambda match: _GONE * len(match[0]), sentence.replace("\u2019", "'"))
    text = _ASKED.sub(lambda match: f"{match[1]}     ", text)
    found: list[Resolved] = []
    base: _Said | None = None
    for pattern, work in _EXPRESSIONS:
        for match in list(pattern.finditer(text)):
            if len(found) == _MANY:
                return None
            if base is None:
                if is_no_event(text):
                    return None
                base = _Said(said, said.date(), tense_of(text))
            found.append(_of(base, match, work, text))
            text = text[: match.start()] + _GONE * len(match[0]) + text[match.end() :]
    return _one(found)


def _of(base: _Said, match: re.Match[str], work: _Work, text: str) -> Resolved:
    if is_changed(match[0], text[: match.start()], text[match.end() :]):
        return None
    try:
        return work(base, match)
    except (ValueError, OverflowError):  # no such day
        return None


def _one(found: list[Resolved]) -> Days | None:
    """What all of them say together: the one that lies within all the others."""
    days = [one for one in found if one is not None]
    if not days or len(days) < len(found):
        return None
    narrow = min(days, key=lambda one: (one[1] - one[0], one[0]))
    within = all(other[0] <= narrow[0] and narrow[1] <= other[1] for other in days)
    return narrow if within else None


# ------------------------------------------------------------------------------------------- periods


def _day(when: date) -> Days:
    return when, when


def _week(when: date) -> Days:
    monday = when - timedelta(when.weekday())
    return monday, monday + timedelta(6)


def _month(year: int, month: int) -> Days:
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def _year(year: int) -> Days:
    return date(year, 1, 1), date(year, 12, 31)


def _away(day: date, unit: str, count: int) -> Days:
    """The day, week, month or year that lies `count` of them after the one of `day`."""
    if unit == "day":
        return _day(day + timedelta(count))
    if unit == "week":
        return _week(day + timedelta(weeks=count))
    if unit == "month":
        months = 12 * day.year + day.month - 1 + count
        return _month(months // 12, months % 12 + 1)
    return _year(day.year + count)


def _weekend(day: date, weeks: int) -> Days:
    monday, sunday = _week(day + timedelta(weeks=weeks))
    return monday + timedelta(5), sunday


def _nearest(base: _Said, of_year: Callable[[int], Days]) -> Resolved:
    """By the tense the last one or the next one, of this year or of the one beside it; none where that is
    nearly a year away, for then the other one may be meant."""
    if base.tense is None:
        return None
    past = base.tense == "past"
    for years in (0, -1 if past else 1):
        try:
            days = of_year(base.day.year + years)
        except ValueError:  # a year without this day
            continue
        if days[0] <= base.day <= days[1] and days[0] != days[1]:
            return None  # "in May", said in May
        away = base.day - days[1] if past else days[0] - base.day
        if timedelta(0) <= away <= _FAR:
            return days
    return None


# --------------------------------------------------------------------------------------- expressions

_WHICH: Final = {"last": -1, "this": 0, "next": 1}

_N: Final = rf"(?<![\d.,/-])\b(?P<n>\d{{1,4}}|{'|'.join(COUNTS)})"
_UNIT: Final = r"(?P<unit>day|week|month|year)s?"
_M: Final = rf"(?P<m>{'|'.join(sorted(NAMES, key=len, reverse=True))})\b\.?"
_D: Final = r"(?<![\d.,/:-])(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_D2: Final = r"(?P<d2>\d{1,2})(?:st|nd|rd|th)?(?![\d:])"
_Y: Final = r"(?P<y>(?:1[5-9]|20)\d\d)(?![\d-])"
_W: Final = rf"(?P<w>{'|'.join(DAYS)}|(?-i:Mon|Tues?|Wed|Thu(?:rs?)?|Fri))\b(?!')"
_TO: Final = r"\s*(?P<to>-|\u2013|to|until|till|and|or)\s*"


def _ago(base: _Said, match: re.Match[str]) -> Resolved:
    """N units ago, or from now on."""
    count = _count(match)
    return _away(base.day, match["unit"].lower(), -count if match["ago"].lower() == "ago" else count)


def _hours(base: _Said, match: re.Match[str]) -> Resolved:
    """Of clocks that may have been put forward or back meanwhile."""
    unit = timedelta(hours=1) if match["unit"].lower() == "hour" else timedelta(minutes=1)
    then = base.at.astimezone(UTC) - _count(match) * unit
    return _day(then.astimezone(base.at.tzinfo).date())


def _in(base: _Said, match: re.Match[str]) -> Resolved:
    """In two weeks: what was done in two weeks took as long."""
    return _away(base.day, match["unit"].lower(), _count(match)) if base.tense == "future" else None


def _weekday_of(match: re.Match[str]) -> int:
    """From 0, Monday."""
    return [name[:3] for name in DAYS].index(match["w"][:3].lower())


def _weekends(base: _Said, match: re.Match[str]) -> Resolved:
    return _weekend(base.day, -_count(match))


def _count(match: re.Match[str]) -> int:
    said = match["n"].lower()
    return COUNTS[said] if said in COUNTS else int(said)


def _numeric(base: _Said, match: re.Match[str]) -> Resolved:
    """13/04/2024; with points the day comes first, with strokes only a number above 12 tells."""
    day, month = int(match["a"]), int(match["b"])
    if match["by"] == "/":
        if day <= 12 and month <= 12 and day != month:
            return None
        if month > 12:
            day, month = month, day
    return _day(date(int(match["y"]), month, day))


def _dated(base: _Said, match: re.Match[str]) -> Resolved:
    """A day of a month, or several, with or without the year."""
    found = match.groupdict()
    month = NAMES[found["m"].lower()]
    first, last = int(found["d"]), int(found.get("d2") or found["d"])
    if (found.get("to") or "").lower() in ("and", "or"):
        return None

    def of_year(year: int) -> Days:
        return date(year, month, first), date(year, month, last)

    if found["y"]:
        days = of_year(int(found["y"]))
    elif first == last:
        return _nearest(base, of_year)
    else:
        begins = _nearest(base, lambda year: _day(of_year(year)[0]))
        if begins is None:
            return None
        days = of_year(begins[0].year)
    return None if days[1] < days[0] else days


def _month_of_year(base: _Said, match: re.Match[str]) -> Resolved:
    return _month(int(match["y"]), NAMES[match["m"].lower()])


def _month_alone(base: _Said, match: re.Match[str]) -> Resolved:
    if match[0][:5].lower() == "since":  # whatever is so since then
        base = base._replace(tense="past")
    return _nearest(base, lambda year: _month(year, NAMES[match["m"].lower()]))


def _weekday_of_week(base: _Said, match: re.Match[str]) -> Resolved:
    monday, _ = _week(base.day + timedelta(weeks=_WHICH[match["which"].lower()]))
    return _day(monday + timedelta(_weekday_of(match)))


def _weekday_which(base: _Said, match: re.Match[str]) -> Resolved:
    """Last Friday is that of last week, where this week has had none yet; else it may be either."""
    which, weekday = match["which"].lower(), _weekday_of(match)
    today = base.day.weekday()
    clear = {"last": weekday >= today, "this": weekday >= today, "next": weekday <= today}[which]
    return _weekday_of_week(base, match) if clear else None


def _weekday(base: _Said, match: re.Match[str]) -> Resolved:
    away = (_weekday_of(match) - base.day.weekday()) % 7
    if away == 0 or base.tense is None:  # on Monday, said on a Monday
        return None
    return _day(base.day + timedelta(away if base.tense == "future" else away - 7))


def _near(days: int) -> _Work:
    return lambda base, match: _day(base.day + timedelta(days))


def _last_night(base: _Said, match: re.Match[str]) -> Resolved:
    return base.day - timedelta(1), base.day


def _calendar(base: _Said, match: re.Match[str]) -> Resolved:
    return _away(base.day, match["unit"].lower(), _WHICH[match["which"].lower()])


def _before_last(base: _Said, match: re.Match[str]) -> Resolved:
    return _away(base.day, match["unit"].lower(), -2)


def _which_weekend(base: _Said, match: re.Match[str]) -> Resolved:
    return _weekend(base.day, _WHICH[match["which"].lower()])


def _iso(base: _Said, match: re.Match[str]) -> Resolved:
    return _day(date(int(match["y"]), int(match["b"]), int(match["a"])))


def _in_year(base: _Said, match: re.Match[str]) -> Resolved:
    return _year(int(match["y"]))


def _unclear(base: _Said, match: re.Match[str]) -> Resolved:
    return None


def _compiled(*rules: tuple[str, _Work]) -> Iterator[tuple[re.Pattern[str], _Work]]:
    for pattern, work in rules:
        yield re.compile(pattern, re.IGNORECASE | re.ASCII), work


# A verb and a noun look like two months: without a year, and written small, these are no months.
_VERB: Final = r"(?-i:(?!may\b|march\b))"

_ENDS: Final = r"\s*(?:[.,;:!?)\0\u2013-]|$)"
_ON: Final = (
    r"i|we|he|she|they|it|you|my|our|his|her|their|the|an?|and|but|when|with|was|were|at|for|to|as|because|"
    r"while|by|after|before"
)
_GOES_ON: Final = rf"{_ENDS}|\s+(?:{_ON})\b"
"""What comes after a year; a number of something is followed by its noun."""
_DAY_GOES_ON: Final = (
    rf"{_GOES_ON}|\s+(?:(?:{_ON}|is|are|will|in|on|from|of|or|about|around|over|so|that|who|which|until|till|"
    r"instead|again|too|last|this|next|if|there|here|morning|afternoon|evening|night|noon)\b"
    r"|(?-i:(?!School\b)[A-Z])|\d)"
)
"""What comes after a day: Sunday school is none, and in "paid Jan 20 euros" there is none."""
_ALONE: Final = rf"(?:(?<=st)|(?<=nd)|(?<=rd)|(?<=th)|(?={_DAY_GOES_ON}))"
_NO_TIME: Final = r"(?![\d:]|\s*[ap]\.?m\b)"

_EXPRESSIONS: Final[tuple[tuple[Any, _Work], ...]] = tuple(
    _compiled(
        (r"(?<![\w-])(?P<y>\d{4})-(?P<b>\d\d)-(?P<a>\d\d)(?![\d-])", _iso),
        (r"(?<![\d./])(?P<a>\d{1,2})(?P<by>[/.])(?P<b>\d{1,2})(?P=by)(?P<y>\d{4})(?![\d./]*\d)", _numeric),
        (r"(?<![\d./])\d{1,2}[/.]\d{1,2}[/.]\d{2}(?![\d./]*\d)", _unclear),
        (rf"(?:\bfrom\s+)?(?:\bthe\s+)?{_D}{_TO}(?:the\s+)?{_D2}(?:\s+of)?\s+{_M}(?:,?\s+{_Y})", _dated),
        (rf"(?:\bfrom\s+)?\b{_M}\s+{_D}{_TO}{_D2}(?:,?\s+{_Y})", _dated),
        (rf"(?:\bthe\s+)?{_D}(?:\s+of)?\s+{_M}(?:,?\s+{_Y})", _dated),
        (rf"\b{_M}\s+(?:the\s+)?{_D}(?![\d:])(?:,?\s+{_Y})", _dated),
        (rf"\b{_M}(?:,|\s+of)?\s+{_Y}", _month_of_year),
        (rf"(?:\bfrom\s+)?(?:\bthe\s+)?{_D}{_TO}(?:the\s+)?{_D2}(?:\s+of)?\s+{_VERB}{_M}(?P<y>)", _dated),
        (rf"(?:\bfrom\s+)?\b{_VERB}{_M}\s+{_D}{_TO}{_D2}(?P<y>)", _dated),
        (rf"\b{_D}(?:\s+of)?\s+{_M},?\s+\d{{3,}}\b", _unclear),  # a year that is none of ours
        (rf"\b{_M}\s+(?:the\s+)?{_D},?\s+\d{{3,}}\b", _unclear),
        (rf"\b{_D}(?:\s+of)?\s+{_VERB}{_M},?\s+'?\d{{1,2}}{_NO_TIME}", _unclear),  # a year, or another day
        (rf"(?:\bthe\s+)?{_D}(?:\s+of)?\s+{_VERB}{_M}(?={_DAY_GOES_ON})(?P<y>)", _dated),
        (rf"\b(?:in|since|during)\s+{_M}\s+'?\d{{1,2}}\b{_NO_TIME}", _unclear),  # a year, rather
        (rf"\b{_M}\s+(?:the\s+)?{_D},?\s+'\d\d\b", _unclear),
        (rf"\b{_VERB}{_M}\s+(?:the\s+)?{_D}{_NO_TIME}{_ALONE}(?P<y>)", _dated),
        (rf"\b(?:last|this|next)\s+{_VERB}{_M}", _unclear),
        (rf"\b(?:in|since|during)\s+{_VERB}{_M}(?!\s+'?\d)(?={_DAY_GOES_ON})", _month_alone),
        (rf"\b(?:in|since|during|year)\s+{_Y}(?={_GOES_ON})", _in_year),
        (rf"(?-i:\b(?:In|Since|During)\s+){_Y}(?=\s+(?-i:[A-Z]))", _in_year),
        (rf"{_N}\s+{_UNIT}\s+(?P<ago>ago\b|from\s+(?:now|today)\b)", _ago),
        (rf"{_N}\s+(?P<unit>hour|minute)s?\s+ago\b", _hours),
        (rf"{_N}\s+weekends?\s+ago\b", _weekends),
        (r"\b(?:years?|months?|weeks?|days?|weekends?)\s+ago\b", _unclear),
        (rf"\bin\s+{_N}\s+{_UNIT}\b(?!\s+(?:or|of)\b)(?!')", _in),
        (rf"\b(?:on\s+)?{_W},?\s+(?:of\s+)?(?P<which>last|this|next)\s+week\b", _weekday_of_week),
        (rf"\b(?:on\s+)?(?P<which>last|this|next)\s+{_W}", _weekday_which),
        (rf"\bon\s+{_W}(?={_DAY_GOES_ON})", _weekday),
        (r"\bthe\s+day\s+before\s+yesterday\b", _near(-2)),
        (r"\bthe\s+day\s+after\s+tomorrow\b", _near(2)),
        (r"\blast\s+night\b", _last_night),
        (r"\byesterday\b", _near(-1)),
        (r"\btomorrow\b", _near(1)),
        (r"\b(?:today|tonight|this\s+(?:morning|afternoon|evening))\b", _near(0)),
        (r"\bthe\s+(?P<unit>week|month|year)\s+before\s+last\b(?!\s+(?:week|month|year)\b)", _before_last),
        (r"\bthe\s+(?:last|next)\s+(?:week|month|year|weekend)\b", _unclear),  # it may end or begin today
        (r"\b(?P<which>last|this|next)\s+(?P<unit>week|month|year)\b", _calendar),
        (r"\b(?P<which>last|this)\s+weekend\b", _which_weekend),
        (r"\bnext\s+weekend\b", _unclear),
    )
)  # fmt: skip

_HINT = re.compile(
    rf"\d|ago\b|last\b|next\b|this\b|day|week|month|year|night|tomorrow|{'|'.join(NAMES)}", re.IGNORECASE
)
"""What every expression has something of."""
_ASKED = re.compile(
    r"^(\s*(?:what|which|who)\b.*?\b)about(?=\s+(?:on|in|last|this|yesterday|today)\b)", re.IGNORECASE
)
"""What did we talk about last week? The time is not what it was about."""
_QUOTED = re.compile('"[^"]*"|\u201c[^\u201d]*\u201d|\u00ab[^\u00bb]*\u00bb')
