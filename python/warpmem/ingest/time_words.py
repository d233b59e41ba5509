"""The words of English times, and what around them changes what they mean."""

from __future__ import annotations

import re
from typing import Final

NAMES: Final = {
    name: number
    for number, names in enumerate(
        (
            ("january", "jan"), ("february", "feb"), ("march", "mar"), ("april", "apr"), ("may",),
            ("june", "jun"), ("july", "jul"), ("august", "aug"), ("september", "sept", "sep"),
            ("october", "oct"), ("november", "nov"), ("december", "dec"),
        ),
        1,
    )
    for name in names
}  # fmt: skip
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
COUNTS: Final = {
    **{name: number for number, name in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 1
    )},
    "a": 1, "an": 1, "fifteen": 15, "twenty": 20, "thirty": 30,
}  # fmt: skip

_WORDS_BEFORE: Final = 32
"""Characters before an expression that may change what it means."""
_BEFORE = re.compile(
    r"(?:\b(?:until|till|by|before|after|from|to|between|through|about|around|over|under|nearly|almost|than|"
    r"or|roughly|approximately|approx|circa|ca|some|within|half|and\s+a|every|not|at\s+(?:least|most)|like|"
    r"maybe|perhaps|probably|possibly|no|like\s+(?:only|it\s+was)|(?:week|weekend|eve|anniversary)\s+of)"
    r"\.?|n't|[-\u2013~/])\s*$"
    rf"|\b(?:\d+|{'|'.join(COUNTS)})\s+(?:year|month|fortnight|week)s?\s+$",  # a week on Monday
    re.IGNORECASE,
)
"""What something is before, after or near to is not when it happened."""
_DATE = re.compile(r"\d+[./-]\d")
_OF_ONE = re.compile(r"\b(?:version|release|build|number|order|invoice)\s+$", re.IGNORECASE)
"""Version 2.4.2024 has no day."""
_NUMBER = re.compile(rf"\d|(?:{'|'.join(COUNTS)})\b", re.IGNORECASE)
_MORE = re.compile(
    r"(?:\d|\b(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million)|"
    rf"\b(?:\d+|{'|'.join(COUNTS)})\s+(?:year|month|week|day|hour)s?,?(?:\s+and)?)\s*$",
    re.IGNORECASE,
)
"""Of a number that has not all been read: twenty two, 2 000, three years and two months."""
_OWN = re.compile(
    r"(?:\b(?i:my|your|his|its|our|their|an?|one)|\b(?i:in|on|for|during|of|is|was)\s+her|\bHer|'s)\s+$"
)
"""Our last night: the last one of some. Not: I met her last week."""
_IN = re.compile(r"in\s+\w+\s", re.IGNORECASE)
_MEASURED = re.compile(
    rf"\b(?:\d+|{'|'.join(COUNTS)})\s+\w+\s+$|\b(?:times?|once|twice|only|most|\w+est)\b[^.,;]*$",
    re.IGNORECASE,
)
"""Three books in a week, the best in two years."""
_PAST = re.compile(r"last|yesterday", re.IGNORECASE)
_FOR = re.compile(r"\bfor\s+$", re.IGNORECASE)
"""Rent for last month was not paid then."""
_RELATIVE = re.compile(r"last|next|this", re.IGNORECASE)
_TITLE = re.compile(r"(?:Yesterday|Tomorrow|Today|Tonight|Last|Next|This|The Day)\b")
_WITHIN = re.compile(r"\w\s+$")
"""Capitals within a sentence are of a song or a film."""
_BEHIND = re.compile(
    r"'s\b|'(?!\w)|\s+(?:of|week|fortnight|and\s+a\s+half)\b|"
    rf"\s+and\s+(?:\d+|{'|'.join(COUNTS)})\s+(?:month|week|day)s?\b|"
    r"[-\u2013/]\w|\s*[-\u2013]\s*\d|"
    rf"\s+(?:or|to|until|till)\s+(?:\d|last\b|next\b|now\b|to(?:day|morrow)\b|{'|'.join((*DAYS, *NAMES))})|"
    rf"(?:,\s*|\s*,?\s+(?:and|&)\s+)(?:{'|'.join((*DAYS, *NAMES))}|(?:1[5-9]|20)\d\d)\b",
    re.IGNORECASE,
)
"""Yesterday's, last week of, Monday to Friday, Monday and Tuesday, Monday week."""

_WRONG: Final = (
    (_DATE, _OF_ONE), (_NUMBER, _MORE), (_RELATIVE, _OWN), (_TITLE, _WITHIN), (_IN, _MEASURED), (_PAST, _FOR)
)  # fmt: skip
"""How an expression begins, and what before that changes it."""


def is_changed(expression: str, before: str, behind: str) -> bool:
    """Whether an expression does not say when something happened, for what stands before it or behind it."""
    before = before[-_WORDS_BEFORE:]
    if _BEFORE.search(before) or _BEHIND.match(behind):
        return True
    return any(begins.match(expression) and wrong.search(before) for begins, wrong in _WRONG)
