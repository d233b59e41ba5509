"""The suites of conversations and of attacks, whole."""

from __future__ import annotations

import poisoning
from conversation_figures import COUNT, run, small_talk


def test_a_model_that_reads_well_leaves_nothing_old_and_nothing_twice() -> None:
    figures = run("llm")
    assert figures.conversations == COUNT >= 100 and figures.messages > 2000
    assert figures.current_first == figures.old_absent == figures.agreeing == 1.0
    assert figures.as_of >= 0.99 and figures.duplicates <= 0.01


def test_a_model_that_is_wrong_one_time_in_ten_is_held_in_bounds() -> None:
    figures = run("llm", errors=0.1)
    assert figures.current_first >= 0.95 and figures.agreeing >= 0.93 and figures.duplicates <= 0.01


def test_rules_keep_what_is_said_and_cannot_know_what_changed() -> None:
    figures = run("rules")
    assert figures.current_first >= 0.7 and figures.as_of >= 0.75 and figures.agreeing < 0.9


def test_rules_drop_small_talk_and_keep_facts() -> None:
    dropped, kept = small_talk()
    assert dropped >= 0.85 and kept >= 0.97


def test_poison_does_not_work_and_nothing_else_is_hidden() -> None:
    report = poisoning.run(200, seed=11)
    assert report.successes == 0 and report.successes_after == 0
    assert report.benign == 400 and report.falsely_hidden == 0


def test_the_same_attacks_work_where_their_source_is_believed_until_it_is_revoked() -> None:
    report = poisoning.run(50, seed=11, believed=True)
    assert report.successes >= 30 and report.successes_after <= 5
