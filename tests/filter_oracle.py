"""What filters mean: an evaluator written straight from the grammar's table, sharing no code with it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from warpmem import MemoryItem

GONE = object()
TIMES = ("created_at", "touched_at", "valid_from", "valid_to", "recorded_at", "expires_at")
SCALARS = ("id", "kind", "text", "key", "modality", "priority", "trust", "version")


def plain(item: MemoryItem) -> dict[str, Any]:
    """What a filter can ask of an item; what is None is missing."""
    found: dict[str, Any] = {name: getattr(item, name) for name in (*SCALARS, *TIMES)}
    found |= {name: getattr(item.scope, name) for name in ("user_id", "agent_id", "run_id", "corpus_id")}
    found = {name: value for name, value in found.items() if value is not None}
    return found | {"entities": [*item.entities], "sources": [*item.sources], "metadata": item.metadata}


def same(a: Any, b: Any) -> bool:
    if type(a) is bool or type(b) is bool or a is None or b is None:
        return a is b
    return bool(a == b)


def parts(field: str) -> list[str]:
    """The parts between periods, but for those in quotation marks, which JSON reads."""
    found, rest = [], field
    while rest:
        if rest[0] == '"':
            name, end = json.JSONDecoder().raw_decode(rest)
        else:
            end = len(rest.split(".", 1)[0])
            name = rest[:end]
        found.append(name)
        rest = rest[end + 1 :]
    return found


def look_up(item: dict[str, Any], field: str) -> Any:
    here: Any = item
    for part in parts(field):
        if not isinstance(here, dict) or part not in here:
            return GONE
        here = here[part]
    return here


def moment(operand: Any) -> datetime:
    return operand if isinstance(operand, datetime) else datetime.fromisoformat(operand)


def holds(op: str, operand: Any, value: Any) -> bool:
    if op == "exists":
        return (value is not GONE) == operand
    if value is GONE:
        return False
    if isinstance(value, datetime):
        if op in ("in", "nin"):
            return (value in [moment(one) for one in operand]) == (op == "in")
        then = moment(operand)
        if op in ("eq", "ne"):
            return (value == then) == (op == "eq")
        return {"gt": value > then, "gte": value >= then, "lt": value < then, "lte": value <= then}[op]
    if op == "eq":
        return same(value, operand)
    if op == "ne":
        return not same(value, operand)
    if op == "in":
        return any(same(value, one) for one in operand)
    if op == "nin":
        return not any(same(value, one) for one in operand)
    if op in ("contains", "icontains"):
        fold = str.casefold if op == "icontains" else (lambda s: s)
        if isinstance(value, str):
            return isinstance(operand, str) and fold(operand) in fold(value)
        if not isinstance(value, list):
            return False
        if op == "icontains":
            return any(isinstance(one, str) and fold(one) == fold(operand) for one in value)
        return any(same(one, operand) for one in value)
    strings_ = isinstance(value, str) and isinstance(operand, str)
    numbers_ = (
        not isinstance(value, bool) and isinstance(value, (int, float)) and not isinstance(operand, str)
    )
    if not (strings_ or numbers_):
        return False
    order = (value > operand) - (value < operand)
    return {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[op]


def within(bounds: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether the time in which an item is true is within bounds."""
    begins, ends = item["valid_from"], item.get("valid_to")
    for op, operand in bounds.items():
        if op == "before" and not begins < moment(operand):
            return False
        if op == "after" and not begins >= moment(operand):
            return False
        if op == "during":
            first, last = operand
            if last is not None and not begins < moment(last):
                return False
            if first is not None and ends is not None and not ends > moment(first):
                return False
    return True


def on_days(bounds: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether the days in the metadata are within bounds; only strings compare."""
    days = item["metadata"].get("event_time")
    first, last = (days.get(end) if isinstance(days, dict) else None for end in ("from", "to"))
    for op, operand in bounds.items():
        if op == "before" and not (isinstance(first, str) and first < operand):
            return False
        if op == "after" and not (isinstance(first, str) and first >= operand):
            return False
        if op == "during":
            since, until = operand
            if since is not None and not (isinstance(last, str) and last >= since):
                return False
            if until is not None and not (isinstance(first, str) and first <= until):
                return False
    return True


def evaluate(node: dict[str, Any], item: dict[str, Any]) -> bool:
    for name, value in node.items():
        if name == "and":
            ok = all(evaluate(part, item) for part in value)
        elif name == "or":
            ok = any(evaluate(part, item) for part in value)
        elif name == "not":
            ok = not evaluate(value, item)
        elif name == "valid":
            ok = within(value, item)
        elif name == "happened":
            ok = on_days(value, item)
        else:
            found = look_up(item, name)
            if isinstance(value, dict):
                ok = all(holds(op, operand, found) for op, operand in value.items())
            else:
                ok = holds("eq", value, found)
        if not ok:
            return False
    return True
