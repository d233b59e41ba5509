"""Forgetting: what has expired, faded or is too much is deleted, each for a reason that its history keeps."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from ..config import Forgetting
from ..ops.ids import parse_id
from ..policy.repeats import is_superseded
from ..policy.retention import EXPIRED, Rules, cited_by, to_forget
from ..protocols import Transaction
from ..types import MemoryItem
from .citations import Citations
from .reflect import is_profile
from .tools import Job, Tools, Turn

_STEP: Final = 256
_MICROSECOND: Final = timedelta(microseconds=1)


class Forget(Job):
    """The job "forget"."""

    name = "forget"

    def __init__(self, options: Forgetting) -> None:
        self._rules = Rules(
            grace=timedelta(days=options.grace_days) // _MICROSECOND,
            min_retention=options.min_retention,
            half_life=timedelta(days=options.half_life_days) // _MICROSECOND,
            max_items=options.max_items,
            keep_kinds=frozenset(options.keep_kinds),
        )
        self._citations = Citations()

    def of_owner(self, tools: Tools, owner: int, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        log, now = tools.log, tools.log.now()
        items = [record.item for _, record in log.records(owner, order="recorded", reverse=False, after=None)]
        cited = cited_by(item for item in items if not is_profile(item))  # a profile follows its facts
        chosen = to_forget(items, cited, now, self._rules)
        if any(rule != EXPIRED or is_superseded(item, now) for item, rule in chosen):
            cited |= self._citations.among(tools, [item.id for item in items], turn)
            chosen = to_forget(items, cited, now, self._rules)
        for start in range(0, len(chosen), _STEP):
            counts.update(_delete(tools, chosen[start : start + _STEP]))
            turn.check()

    def of_store(self, tools: Tools, turn: Turn, counts: Counter[str]) -> None:
        """See tools.Job."""
        self._citations.begin_anew(tools)


def _delete(tools: Tools, chosen: list[tuple[MemoryItem, str]]) -> Counter[str]:
    """Delete those that are what they were when they were chosen."""
    editor = tools.current.now.editor

    def change(transaction: Transaction) -> Counter[str]:
        done: Counter[str] = Counter()
        for item, rule in chosen:
            key = parse_id(item.id)
            record = transaction.get(key)
            known = None if record is None else (record.item.version, record.item.touched_at)
            if known == (item.version, item.touched_at):
                editor.remove(transaction, key, None, rule)
                done[rule.split(":")[0]] += 1
        return done

    return tools.log.transact(change)
