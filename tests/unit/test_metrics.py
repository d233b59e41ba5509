"""Histograms, and the text in which Prometheus reads numbers."""

from __future__ import annotations

import pytest

from warpmem.ops.metrics import BOUNDS, Family, Histogram, Sample, exposition


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 7.0, 100.0):
        histogram.observe(seconds)
    samples = histogram.samples({"stage": "scan"})
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.suffix == "_bucket"}
    assert list(buckets) == [*map(repr, BOUNDS), "+Inf"]
    assert (buckets["0.0001"], buckets["0.001"], buckets["0.0025"]) == (1, 2, 3)
    assert (buckets["5.0"], buckets["10.0"], buckets["+Inf"]) == (3, 4, 5)
    assert [(s.suffix, s.value) for s in samples[-2:]] == [("_sum", pytest.approx(107.0021)), ("_count", 5)]
    assert all(sample.labels["stage"] == "scan" for sample in samples)


def test_the_text_is_what_prometheus_reads() -> None:
    families = [
        Family("a_total", "counter", "What a is.", [Sample({"x": 'q"b\\s\nn', "y": "z"}, 3)]),
        Family("nothing", "gauge", "No sample.", []),
        Family("b", "gauge", "What b is.", [Sample({}, 0.5), Sample({"x": "1"}, float("inf"))]),
    ]
    assert exposition(families) == (
        "# HELP a_total What a is.\n"
        "# TYPE a_total counter\n"
        'a_total{x="q\\"b\\\\s\\nn",y="z"} 3\n'
        "# HELP b What b is.\n"
        "# TYPE b gauge\n"
        "b 0.5\n"
        'b{x="1"} Inf\n'
    )
