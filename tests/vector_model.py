"""What a VectorIndex must answer: rows in a dict, plain Python, exact sums. Shares no code with warpmem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from oracle import exact_dot, round_float32

GONE = object()


@dataclass(frozen=True)
class ModelRow:
    owner: int
    order: int
    vector: tuple[float, ...]
    attributes: Mapping[str, Any]


@dataclass
class VectorModel:
    """Attributes of a row hold only values that are there. Times are datetimes."""

    metric: str
    rows: dict[int, ModelRow] = field(default_factory=dict)
    next_id: int = 0
    next_order: int = 0

    def add(
        self,
        vectors: Sequence[Sequence[float]],
        ids: Iterable[int] | None,
        owners: Sequence[int],
        attributes: Any,
    ) -> list[int]:
        given = list(ids) if ids is not None else list(range(self.next_id, self.next_id + len(vectors)))
        for i, row_id in enumerate(given):
            values = _of_row(attributes, i)
            self.rows[row_id] = ModelRow(owners[i], self.next_order, self.kept(vectors[i]), values)
            self.next_order += 1
            self.next_id = max(self.next_id, row_id + 1)
        return given

    def remove(self, ids: Iterable[int]) -> int:
        return len([self.rows.pop(row_id) for row_id in set(ids) if row_id in self.rows])

    def update(self, ids: Sequence[int], vectors: Any, attributes: Any) -> None:
        for i, row_id in enumerate(ids):
            row = self.rows[row_id]
            if vectors is not None:
                row = replace(row, vector=self.kept(vectors[i]))
            named = _of_row(attributes, i)
            kept = {name: value for name, value in row.attributes.items() if name not in (attributes or {})}
            self.rows[row_id] = replace(row, attributes={**kept, **named})

    def kept(self, vector: Sequence[float]) -> tuple[float, ...]:
        numbers = [round_float32(float(x)) for x in vector]
        if self.metric != "cosine":
            return tuple(numbers)
        inverse = 1.0 / math.sqrt(exact_dot(numbers, numbers))
        return tuple(round_float32(x * inverse) for x in numbers)

    def search(
        self,
        query: Sequence[float],
        k: int,
        owners: Iterable[int] | None = None,
        filters: Mapping[str, Any] | None = None,
        weights: Mapping[str, Any] | None = None,
    ) -> tuple[list[int], list[float]]:
        """Ids and float32 scores, best first."""
        point = self.kept(query)
        whose = None if owners is None else set(owners)
        found = [
            (-self.score(point, row, weights or {}), row.order, row_id)
            for row_id, row in self.rows.items()
            if (whose is None or row.owner in whose) and matches(filters or {}, row.attributes)
        ]
        found.sort()
        return [row_id for _, _, row_id in found[:k]], [-score for score, _, _ in found[:k]]

    def score(self, point: Sequence[float], row: ModelRow, weights: Mapping[str, Any]) -> float:
        if self.metric == "l2":
            distance = math.fsum((a - b) ** 2 for a, b in zip(point, row.vector, strict=True))
            similarity = 0.0 - round_float32(distance)
        else:
            similarity = round_float32(exact_dot(point, row.vector))
        score = weights.get("similarity", 1.0) * similarity
        if weights.get("recency"):
            at = row.attributes.get(weights["recency_column"])
            if at is not None:
                age = max(timedelta(0), weights["now"] - at) / weights["half_life"]
                score += weights["recency"] * 2.0**-age
        if weights.get("priority"):
            score += weights["priority"] * row.attributes.get(weights["priority_column"], 0.0)
        return round_float32(score) + 0.0


def _of_row(attributes: Any, i: int) -> dict[str, Any]:
    return {name: values[i] for name, values in (attributes or {}).items() if values[i] is not None}


def matches(node: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """The grammar's table, evaluated on one row."""
    return all(_entry(name, value, values) for name, value in node.items())


def _entry(name: str, value: Any, values: Mapping[str, Any]) -> bool:
    if name == "and":
        return all(matches(part, values) for part in value)
    if name == "or":
        return any(matches(part, values) for part in value)
    if name == "not":
        return not matches(value, values)
    conditions = value if isinstance(value, Mapping) else {"eq": value}
    found = values.get(name, GONE)
    return all(_holds(operator, operand, found) for operator, operand in conditions.items())


def _holds(operator: str, operand: Any, value: Any) -> bool:
    if operator == "exists":
        return (value is not GONE) is operand
    if value is GONE:
        return False
    if operator in ("in", "nin"):
        return any(value == _like(value, one) for one in operand) is (operator == "in")
    operand = _like(value, operand)
    return bool(
        {
            "eq": lambda: value == operand,
            "ne": lambda: value != operand,
            "gt": lambda: value > operand,
            "gte": lambda: value >= operand,
            "lt": lambda: value < operand,
            "lte": lambda: value <= operand,
            "contains": lambda: operand in value,
            "icontains": lambda: operand.casefold() in value.casefold(),
        }[operator]()
    )


def _like(value: Any, operand: Any) -> Any:
    return (
        datetime.fromisoformat(operand)
        if isinstance(value, datetime) and isinstance(operand, str)
        else operand
    )
