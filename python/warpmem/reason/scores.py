"""What every reranker checks: the texts on their way in, the scores on their way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..ops.texts import check_sequence, check_text


def check_pairs(query: str, texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises InputError when `texts` is one string, InvalidText when something is no
    string or not valid Unicode."""
    checked = check_sequence(texts)
    check_text(query, "the query")
    for i, text in enumerate(checked):
        check_text(text, f"text {i + 1} of {len(checked)}")
    return checked


def as_scores(values: Any, count: int, model_id: str) -> NDArray[np.float32]:
    """(count,) float32, finite. Raises ModelError in the name of `model_id`."""
    try:
        with np.errstate(over="ignore"):  # what is too large is found below
            scores = np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{model_id!r} gave scores that are not numbers") from error
    if scores.shape != (count,):
        raise ModelError(
            f"{model_id!r}: expected {count} scores, one per text, not an array of shape {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise ModelError(f"{model_id!r}: score {int(np.argmin(np.isfinite(scores)))} is NaN or infinite")
    return scores


def by_index(given: Iterable[tuple[int, float]], count: int, model_id: str) -> NDArray[np.float32]:
    """(count,) float32 from (index, score), in any order. Raises ModelError unless each index from 0 to
    count - 1 is there once."""
    pairs = list(given)
    if sorted(index for index, _ in pairs) != list(range(count)):
        raise ModelError(
            f"{model_id!r}: expected one score for each of {count} texts, "
            f"not {len(pairs)} with other indices than 0 to {count - 1}"
        )
    return as_scores([score for _, score in sorted(pairs)], count, model_id)
