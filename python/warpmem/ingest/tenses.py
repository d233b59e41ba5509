"""Whether an English sentence tells what was or what is to come, by its verbs."""

from __future__ import annotations

import re
from typing import Final, Literal

Tense = Literal["past", "future"]

_NO_EVENT = re.compile(
    r"\b(?:if|unless|whether|suppose|imagine|pretend|wish|in\s+case|would(?:'ve|\s+have)|had\s+i|were\s+i|"
    r"every|each|usually|always|often|sometimes|rarely|normally|generally|annually|"
    r"yearly)\b",
    re.IGNORECASE,
)
_OF_ANY_TIME = re.compile(r"\b(?:birthdays?|anniversary|birthdate|born|never|don't|doesn't)\b", re.IGNORECASE)
_WAS: Final = (
    "was|were|wasn't|weren't|did|didn't|had|hadn't|went|met|saw|bought|came|got|made|gave|took|told|said|"
    "found|lost|left|felt|ate|drank|ran|wrote|spoke|began|broke|brought|caught|chose|fell|flew|forgot|heard|"
    "held|kept|knew|learnt|meant|paid|rode|sang|sat|sent|sold|slept|spent|stood|swam|taught|thought|"
    "understood|woke|won|wore|built|drove|fought|grew|hid|led|lay|threw|became|shot|hung|stole|froze|rose|"
    "shook|blew|drew"
)
_WILL_BE: Final = (
    "will|won't|shall|is|isn't|are|aren't|am|going|leaves?|starts?|begins?|fly|flies|arrives?|moves?|"
    "marry|marries|travels?|returns?|ends|opens|closes|expires|takes|meets?|visits?|due|upcoming|goes|"
    "plans?|planned|scheduled"
)
_PAST = re.compile(
    rf"(?i:\b(?:{_WAS})\b)|\b(?!planned\b|scheduled\b)[a-z]+[^\W\d_e]ed\b"  # not Fred, and not need
)
_NO_VERB: Final = frozenset(("shed", "sled", "hundred", "sacred", "naked", "wicked", "kindred", "embed"))
_FUTURE = re.compile(
    rf"\b(?:{_WILL_BE})\b|'(?:ll|re|m)\b"
    r"|(?:\b(?:have|has)|'ve)\s+(?:got\s+)?(?:an?|my|his|her|our|their|to)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:can|cannot|could|might|must|should|would|(?<!to )gets?|be|hopes?|wants?|expects?|"
    r"wish(?:es)?|needs?)(?:n't)?\b|\blet's\b|\b(?-i:may)\b|"
    r"\b(?:appointments?|reservations?|tickets?|booked|reserved|invited?|invitations?|registered|enroll?ed|"
    r"signed\s+up|(?:studied|prepared|practi[cs]ed|packed|trained|applied)\s+for|looked\s+forward|arranged|"
    r"agreed|promised|wanted|hoped|expected|decided|planned|scheduled|supposed|forgot|remembered|thought|"
    r"worried|about|(?:told|asked)\b[^.;]*\sto|"
    r"(?:was|were)\s+(?:leaving|coming|moving|flying|starting|visiting))\b",
    re.IGNORECASE,
)
"""With these the time may be of something that is still to come: she gets married on Friday, I forgot the
appointment on Friday."""
_DID = re.compile(r"\bdid(?:n't)?(?:\s+\w+){0,3}?\s+(?:get|be|hope|want|expect|wish|need)\b", re.IGNORECASE)
_ADJECTIVE = re.compile(r"\b(?:the|an?|my|your|his|her|its|our|their|very)\s+[a-z]+ed\b", re.IGNORECASE)


def is_no_event(sentence: str) -> bool:
    """Whether it tells a condition or a habit."""
    return _NO_EVENT.search(sentence) is not None


def tense_of(sentence: str) -> Tense | None:
    """None where it has verbs of both, or none that is known, and of what comes again, or never."""
    if _OF_ANY_TIME.search(sentence) is not None:
        return None
    verbs = _ADJECTIVE.sub("", sentence)
    past = any(match[0] not in _NO_VERB for match in _PAST.finditer(verbs))
    if past and _OPEN.search(_DID.sub("did", verbs)) is not None:
        return None
    future = _FUTURE.search(verbs) is not None
    return None if past == future else "past" if past else "future"
