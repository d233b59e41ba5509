"""Many queries of an approximate index in one call, over one owner: answered another way than with a plan."""

from __future__ import annotations

import numpy as np
import pytest

from index.test_ivf import DIM, build, clusters, same, source
from warpmem.records import SegmentTable


@pytest.mark.parametrize("n", [2, 300])
def test_many_queries_over_one_owner_find_what_they_find_with_a_plan(n: int) -> None:
    """They are answered another way, in which no query may miss what its few cells lack."""
    made = build(source({1: 3000, 2: 2500}), recall=0.5)
    queries = clusters(n, DIM, 9)
    for owner in (1, 2):
        table = SegmentTable(np.arange(n), np.full(n, owner, np.int64))
        for k, extra in ((10, {}), (60, {}), (400, {}), (60, {"min_similarity": 0.4})):
            found = made.scan(queries, table, k, n_probes=3, refine=2, **extra)
            planned = made.scan(queries, table, k, n_probes=3, refine=2, explain=True, **extra)
            same(found, planned)
            assert (planned[5]["cells"] > 3 * n) == (k == 400)
    turned = SegmentTable(np.arange(n)[::-1].copy(), np.full(n, 1, np.int64))
    same(made.scan(queries, turned, 10, n_probes=3), made.scan(queries, turned, 10, n_probes=3, explain=True))
