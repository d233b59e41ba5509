"""Vectors that callers bring: one is checked in another way than many, and passes or fails alike."""

from __future__ import annotations

import numpy as np
import pytest

from warpmem.embed.vectors import as_vectors
from warpmem.errors import InvalidVector

DIMENSION = 300


@pytest.mark.parametrize("value", [1.0, 1e-30, 1e-45, 1e30, 3e38, -2.5])
@pytest.mark.parametrize("at", [0, 7, DIMENSION - 1])
def test_one_number_is_enough(value: float, at: int) -> None:
    """Its square may be too small or too large for a float32."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[at] = value
    for given in (vector, vector[np.newaxis], np.stack([vector, vector]), vector[::-1], vector.tolist()):
        rows = as_vectors(given, DIMENSION, "vector")
        assert rows.dtype == np.float32 and rows.flags.c_contiguous
        assert np.array_equal(rows, np.atleast_2d(np.asarray(given, np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rest", [0.0, 1.0, 1e30, -1e30])
def test_what_is_no_number_is_refused(value: float, rest: float) -> None:
    vector = np.full(DIMENSION, rest, np.float32)
    vector[11] = value
    for given in (vector, vector[np.newaxis]):
        with pytest.raises(InvalidVector, match="1 of the 300 values in row 0 are NaN"):
            as_vectors(given, DIMENSION, "vector")


def test_zeros_are_refused() -> None:
    for given in (np.zeros(DIMENSION, np.float32), np.zeros((1, DIMENSION), np.float32)):
        with pytest.raises(InvalidVector, match="row 0 of 1 is all zero"):
            as_vectors(given, DIMENSION, "vector")


def test_another_length_is_refused() -> None:
    with pytest.raises(InvalidVector, match="expected 300 dimensions, not 299"):
        as_vectors(np.ones(DIMENSION - 1, np.float32), DIMENSION, "vector")
