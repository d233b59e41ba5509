"""The form in which names of entities are told apart."""

from __future__ import annotations

import pytest

from warpmem.ingest.names import fold_name, tokens


@pytest.mark.parametrize(
    "names",
    [
        ("Ada", "ADA", " ada ", "\uff21da"),
        ("Ada  Lovelace", "ada\tlovelace"),
        ("T. S. Eliot", "T.S. Eliot", "t . s . eliot"),
        ("Jos\u00e9", "Jose\u0301"),
        ("Stra\u00dfe", "STRASSE"),
    ],
)
def test_one_name(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == 1


@pytest.mark.parametrize(
    "names", [("C", "C++", "C#"), ("Ada", "Ad a"), ("Jose", "Jos\u00e9"), ("AT&T", "ATT"), ("a_b", "a b")]
)
def test_names_that_are_not_one(names: tuple[str, ...]) -> None:
    assert len({fold_name(name) for name in names}) == len(names)


def test_a_name_of_spaces_has_no_form() -> None:
    assert fold_name(" \t\u00a0\u3000") == ""


def test_a_script_without_spaces_goes_by_characters() -> None:
    assert tokens("\u6771\u4eac\u30bf\u30ef\u30fc") == list("\u6771\u4eac\u30bf\u30ef\u30fc")


def test_marks_belong_to_their_letters() -> None:
    assert tokens("\u0939\u093f\u0928\u094d\u0926\u0940 x") == ["\u0939\u093f\u0928\u094d\u0926\u0940", "x"]
