"""When an English sentence says that something happened, and where it does not say so clearly."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import warpmem
from warpmem.errors import InputError
from warpmem.ingest.happened import happened

SAID = datetime(2026, 3, 4, 10, tzinfo=UTC)
"""A Wednesday."""

CLEAR = [
    ("I went to Porto yesterday.", "2026-03-03", "2026-03-03"),
    ("I slept badly last night.", "2026-03-03", "2026-03-04"),
    ("The day before yesterday I fell.", "2026-03-02", "2026-03-02"),
    ("The day after tomorrow we fly.", "2026-03-06", "2026-03-06"),
    ("I saw Ann this morning.", "2026-03-04", "2026-03-04"),
    ("10 hours ago I ate.", "2026-03-04", "2026-03-04"),
    ("11 hours ago I ate.", "2026-03-03", "2026-03-03"),
    ("31 days ago I quit.", "2026-02-01", "2026-02-01"),
    ("Three weeks ago I quit.", "2026-02-09", "2026-02-15"),
    ("I quit a month ago.", "2026-02-01", "2026-02-28"),
    ("Two years ago I quit.", "2024-01-01", "2024-12-31"),
    ("A year from now I retire.", "2027-01-01", "2027-12-31"),
    ("We leave in two weeks.", "2026-03-16", "2026-03-22"),
    ("I went to Porto last week.", "2026-02-23", "2026-03-01"),
    ("This month I work in Faro.", "2026-03-01", "2026-03-31"),
    ("Next year I retire.", "2027-01-01", "2027-12-31"),
    ("I was ill the week before last.", "2026-02-16", "2026-02-22"),
    ("Last weekend I hiked.", "2026-02-28", "2026-03-01"),
    ("I met Bob on Monday.", "2026-03-02", "2026-03-02"),
    ("I have an exam on Monday.", "2026-03-09", "2026-03-09"),
    ("I met Bob last Friday.", "2026-02-27", "2026-02-27"),
    ("We fly next Tuesday.", "2026-03-10", "2026-03-10"),
    ("I was there on Thursday last week.", "2026-02-26", "2026-02-26"),
    ("My exam is on 13 March.", "2026-03-13", "2026-03-13"),
    ("My exam was on 3 March.", "2026-03-03", "2026-03-03"),
    ("I moved on December 24th.", "2025-12-24", "2025-12-24"),
    ("On the 3rd of March 2024 we met.", "2024-03-03", "2024-03-03"),
    ("On Sept. 3, 2024 we met.", "2024-09-03", "2024-09-03"),
    ("We were in Rome from 3 to 5 May 2024.", "2024-05-03", "2024-05-05"),
    ("We were in Rome May 3\u20135, 2024.", "2024-05-03", "2024-05-05"),
    ("In May 2023 I married.", "2023-05-01", "2023-05-31"),
    ("In May I married.", "2025-05-01", "2025-05-31"),
    ("I was born in 1990.", "1990-01-01", "1990-12-31"),
    ("I have lived here since 2019, alone.", "2019-01-01", "2019-12-31"),
    ("On 2024-02-29 I fell.", "2024-02-29", "2024-02-29"),
    ("13/04/2024 was nice.", "2024-04-13", "2024-04-13"),
    ("04/13/2024 was nice.", "2024-04-13", "2024-04-13"),
    ("1.4.2024 was nice.", "2024-04-01", "2024-04-01"),
    ("Yesterday, on 3 March, I fell.", "2026-03-03", "2026-03-03"),
    ('He said "I leave tomorrow" yesterday.', "2026-03-03", "2026-03-03"),
    ("A friend made it for my 18th birthday ten years ago.", "2016-01-01", "2016-12-31"),
    ("I won it last week - so exciting!", "2026-02-23", "2026-03-01"),
    ("I took a trip last week to Rome to rest.", "2026-02-23", "2026-03-01"),
    ("My car broke down last Fri on the way.", "2026-02-27", "2026-02-27"),
    ("We went camping two weekends ago.", "2026-02-21", "2026-02-22"),
    ("what did I do last week?", "2026-02-23", "2026-03-01"),
    ("One day last week I fell.", "2026-02-23", "2026-03-01"),
    ("What did I get on Monday?", "2026-03-02", "2026-03-02"),
    ("I didn't get it on Monday.", "2026-03-02", "2026-03-02"),
    ("I went out to get bread on Monday.", "2026-03-02", "2026-03-02"),
    ("What did we talk about last week?", "2026-02-23", "2026-03-01"),
    ("What did we talk about on Monday?", "2026-03-02", "2026-03-02"),
    ("I placed an order yesterday.", "2026-03-03", "2026-03-03"),
    ("I left only 3 days ago.", "2026-03-01", "2026-03-01"),
    ("I was 39 last year.", "2025-01-01", "2025-12-31"),
    ("I met her last week.", "2026-02-23", "2026-03-01"),
    ("In 2019 Bob married.", "2019-01-01", "2019-12-31"),
    ("I am a vegetarian since June.", "2025-06-01", "2025-06-30"),
    ("I met Bob on Monday evening.", "2026-03-02", "2026-03-02"),
    ("I met Bob on Monday, after lunch.", "2026-03-02", "2026-03-02"),
    ("I paid April 30 dollars yesterday.", "2026-03-03", "2026-03-03"),
    ("I met April 3 weeks ago.", "2026-02-09", "2026-02-15"),
]

UNCLEAR = [
    "I like tea.",
    "I met Bob on Wednesday.",  # said on one
    "I met Bob last Monday.",  # of this week or the one before
    "We fly next Friday.",
    "Bob comes on Monday",  # no verb that is known
    "I met Bob, who will come on Monday.",
    "I moved in March.",  # said in one
    "My exam is on 3 March.",  # yesterday, or nearly a year away
    "3/4/2024 was nice.",
    "3/4/24 was nice.",
    "On 2024-02-30 I fell.",
    "On 30 February 2024 I fell.",
    "I fell on 29 February 2023.",
    "2.5 years ago I quit.",
    "2-3 years ago I quit.",
    "two or three years ago I quit.",
    "a year and a half ago I quit.",
    "one and a half years ago I quit.",
    "about 2 years ago I quit.",
    "more than 2 years ago I quit.",
    "a few days ago I was ill.",
    "a couple of weeks ago I was ill.",
    "Between 2019 and 2021 I lived in Rome.",
    "I won 2000 euros in 2000 games.",
    "I read it in two weeks.",
    "I'll be back before Monday.",
    "I stay until tomorrow.",
    "So much has happened in the last month.",
    "I was there last Friday to last Sunday.",
    "We were in Rome 3 March 2024 - 5 April 2024.",
    "I saw him last week/month.",
    "a few weekends ago I was ill.",
    "It was in the last week of June.",
    "I ate yesterday's leftovers.",
    "Yesterday and tomorrow are free.",
    "I was there last week and last month.",  # neither lies within the other
    "If it rains tomorrow I stay.",
    "Every Monday I swim.",
    "My birthday is on 3 May.",
    "I may 3 times say it, and they march 3 miles.",
    "Fred comes on Monday.",
    "My phone number is 555 0100, version 1.2.2024.1.",
    "20000 days ago I was not there yet.",
    "9999 years ago it was cold.",
    "Seit letztem Montag bin ich hier.",
    "I paid Jan 20 euros.",  # a name, or a number of something
    "I met Jan 3 times.",
    "We had March 3 people.",
    "It was on Sunday school.",
    "I was there in January 23.",  # rather the year
    "I was there in January '23.",
    "I was there on 3 January 23.",
    "I was there on January 3, '23.",
    "I met him at 9 January 3.",
    "I worked on Monday and Tuesday.",
    "I worked on Monday, Tuesday and Friday.",
    "I was ill in 2019 and 2020.",
    "I lived in 1900 Broadway.",
    "I leave on Monday week.",
    "I leave tomorrow week.",
    "I leave a week on Monday.",
    "I leave a week tomorrow.",
    "I moved here 3 years and 2 months ago.",
    "I left twenty two years ago.",
    "I left thirty five days ago.",
    "I left 2 000 years ago.",
    "I left at least 2 years ago.",
    "I left maybe 2 weeks ago.",
    "The year before last week was hard.",
    "In my last year at school I fell.",
    "It was our last night in Rome.",
    "It was her last night in Rome.",
    "I sang Yesterday.",
    "I saw The Day After Tomorrow.",
    "I installed version 2.4.2024.",
    "I was there in January, February and March.",
    "I was there in May and June.",
    "I was born in August.",
    "My son, born on 3 January, is 5.",
    "It happened in the week of 3 January.",
    "It is the best coffee in 2 years.",
    "My record is 3 books in a week.",
    "I paid rent for last month.",
    "The deadline isn't tomorrow but Friday.",
    "I never fly on Friday.",
    "I made an appointment on Friday.",  # when either was made or is
    "I got tickets for the show on Friday.",
    "I was invited to a party on Friday.",
    "I studied for the exam on Friday.",
    "I wanted to go to Rome in May.",
    "I forgot the party on Friday.",
    "I was told to come on Friday.",
    "I talked to Bob about the trip in May.",
    "Bob told me he was leaving on Friday.",
    "In a year and a half I will retire.",
    "In a year and two months I will retire.",
    "Suppose I left yesterday.",
    "I wish I had left yesterday.",
    "I would have left yesterday.",
    "I remember it like it was yesterday.",
    "We released v2026-03-01.",
    "I lost order 2024-05-06.",
    "I left on 1 January 2100.",  # no year that is looked for
    "He died on January 3, 1499.",
    "We talked about last week.",
    "Bob gets married on Friday.",  # none of these has been done
    "I get paid on Friday.",
    "I hope to get married in June.",
    "Tickets to be collected on Friday.",
    "It must be finished on Friday.",
    "The interested party comes on Friday.",
    "yesterday " * 101,
]


@pytest.mark.parametrize(("sentence", "first", "last"), CLEAR)
def test_a_time_that_is_clear(sentence: str, first: str, last: str) -> None:
    assert happened(sentence, SAID) == (date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize("sentence", UNCLEAR)
def test_a_time_that_is_not(sentence: str) -> None:
    assert happened(sentence, SAID) is None


def test_days_are_those_of_the_time_zone_in_which_it_was_said() -> None:
    late = datetime(2026, 3, 4, 23, tzinfo=timezone(timedelta(hours=-5)))
    assert happened("I fell yesterday.", late) == (date(2026, 3, 3),) * 2
    assert happened("I fell yesterday.", late.astimezone(UTC)) == (date(2026, 3, 4),) * 2


def test_hours_are_counted_through_a_change_of_clocks() -> None:
    said = datetime(2026, 3, 29, 10, 30, tzinfo=ZoneInfo("Europe/Berlin"))  # there was no hour from 2 to 3
    assert happened("10 hours ago I ate.", said) == (date(2026, 3, 28),) * 2


def test_a_year_that_is_not_said_may_be_the_next_or_the_last_one() -> None:
    november, january = datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)
    assert happened("The trip is on January 2nd.", november) == (date(2027, 1, 2),) * 2
    assert happened("The trip was on 24 December.", january) == (date(2025, 12, 24),) * 2
    assert happened("The trip is in February.", november) == (date(2027, 2, 1), date(2027, 2, 28))
    assert (
        happened("The race is on 29 February.", datetime(2023, 12, 1, tzinfo=UTC)) == (date(2024, 2, 29),) * 2
    )


def test_at_the_ends_of_time_there_is_no_day_before_or_after() -> None:
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)
    for said, outside in (
        (first, ("the day before yesterday", "last week", "last month", "a year ago")),
        (last, ("the day after tomorrow", "next week", "next month", "next year")),
    ):
        assert [happened(one, said) for one in outside] == [None] * 4


@pytest.mark.parametrize(
    "wrong", [(1, SAID), ("\ud800 yesterday", SAID), ("yesterday", SAID.replace(tzinfo=None))]
)
def test_bad_arguments_are_typed_errors(wrong: Any) -> None:
    with pytest.raises(InputError):
        warpmem.happened(*wrong)
