"""Sentences made of random days give these days back."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from warpmem.ingest.happened import happened

days = st.dates(date(1905, 1, 1), date(2095, 12, 31))
leap_days = st.sampled_from([date(year, 2, 29) for year in range(1904, 2096, 4)])
either = days | leap_days
texts = st.text(st.sampled_from("0123456789 -./,'aeiMmtorshdnlw\u2019\""), max_size=60)
WEEKDAYS = tuple(calendar.day_name)
MONTHS = tuple(calendar.month_name)


def said_on(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def ordinal(number: int) -> str:
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


@given(either, either)
def test_dates_in_full_whenever_they_are_said(day: date, today: date) -> None:
    month, number = MONTHS[day.month], day.day
    for written in (
        day.isoformat(),
        f"{number} {month} {day.year}",
        f"the {ordinal(number)} of {month} {day.year}",
        f"{month} {number}, {day.year}",
        f"{month[:3]}. {ordinal(number)} {day.year}",
        f"{number}.{day.month}.{day.year}",
    ):
        assert happened(f"On {written} we met.", said_on(today)) == (day, day), written
        assert happened(f"We met on {written}", said_on(today)) == (day, day), written


@given(either, st.integers(1, 1500))
def test_days_away(today: date, count: int) -> None:
    past, ahead = date.fromordinal(today.toordinal() - count), date.fromordinal(today.toordinal() + count)
    assert happened(f"We met {count} days ago.", said_on(today)) == (past, past)
    assert happened(f"We meet {count} days from now.", said_on(today)) == (ahead, ahead)
    assert happened(f"We will meet in {count} days.", said_on(today)) == (ahead, ahead)


@given(either, st.integers(1, 200))
def test_weeks_begin_on_monday_and_hold_the_day_that_is_so_far_away(today: date, count: int) -> None:
    for sentence, weeks in (("last week", 1), (f"{count} weeks ago", count)):
        found = happened(f"We met {sentence}.", said_on(today))
        assert found is not None
        first, last = found
        then = today - timedelta(7 * weeks)
        assert first.isocalendar().week == then.isocalendar().week == last.isocalendar().week
        assert (first.isoweekday(), last.isoweekday()) == (1, 7) and first <= then <= last
        assert (last - first).days == 6


@given(either, st.integers(1, 400))
def test_months_and_years_are_whole_ones(today: date, count: int) -> None:
    found = happened(f"We met {count} months ago.", said_on(today))
    assert found is not None
    first, last = found
    assert (today.year * 12 + today.month) - (first.year * 12 + first.month) == count
    assert first.day == 1 and (last + timedelta(1)).day == 1 and last.month == first.month
    years = happened(f"We met {count % 90 + 1} years ago.", said_on(today))
    year = today.year - count % 90 - 1
    assert years == (date(year, 1, 1), date(year, 12, 31))
    before = happened("We met last month.", said_on(today))
    assert before is not None and before[1] + timedelta(1) == today.replace(day=1)


@given(either, st.integers(0, 6))
def test_weekdays_have_their_name_and_lie_where_they_are_said_to(today: date, number: int) -> None:
    name = WEEKDAYS[number]
    monday = today - timedelta(today.weekday())
    for sentence, least, most in (
        (f"We met on {name}.", today - timedelta(6), today - timedelta(1)),
        (f"We will meet on {name}.", today + timedelta(1), today + timedelta(6)),
        (f"We met last {name}.", monday - timedelta(7), monday - timedelta(1)),
        (f"We will meet next {name}.", monday + timedelta(7), monday + timedelta(13)),
        (f"We met {name} last week.", monday - timedelta(7), monday - timedelta(1)),
    ):
        found = happened(sentence, said_on(today))
        if found is None:  # it may be either of two
            assert "last week" not in sentence
            assert number == today.weekday() or " on " not in sentence
            continue
        assert found[0] == found[1] and WEEKDAYS[found[0].weekday()] == name
        assert least <= found[0] <= most


@given(either, either)
def test_a_day_without_its_year_is_the_nearest_by_the_tense(today: date, day: date) -> None:
    written = f"{day.day} {MONTHS[day.month]}"
    past = happened(f"We met on {written}.", said_on(today))
    ahead = happened(f"We will meet on {written}.", said_on(today))
    for found, sign in ((past, -1), (ahead, 1)):
        if found is not None:
            assert (found[0].month, found[0].day) == (day.month, day.day) and found[0] == found[1]
            assert 0 <= sign * (found[0] - today).days <= 300
    here = today.replace(day=min(today.day, 28))
    assert happened(f"We met on {here.day} {MONTHS[here.month]}.", said_on(here)) == (here, here)


@given(texts, either)
def test_whatever_is_said_gives_days_in_order_or_none(text: str, today: date) -> None:
    found = happened(text, said_on(today))
    assert found is None or found[0] <= found[1]
