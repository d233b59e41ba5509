"""Damage of every kind to every kind of file: refused, found or harmless, then repaired with nothing lost in
silence; and a wrong answer is none of these. damage.py and index_files.py have the cases as functions of a
count and a seed, memory/test_portable.py tries those of an export."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

import warpmem
from durability import damage, index_files
from durability.damage import CASES, make_live_store, make_store, read_expected

EACH = 30


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, damage.Expected]]:
    folder = tmp_path_factory.mktemp("templates")
    make_store(folder / "closed", 1, items=40)
    make_live_store(folder / "live", 2, items=40)
    return {name: (folder / name, read_expected(folder / name)) for name in ("closed", "live")}


@pytest.mark.slow
@pytest.mark.parametrize(("file_kind", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_damage(
    templates: dict[str, tuple[Path, damage.Expected]], tmp_path: Path, file_kind: str, kind: str
) -> None:
    """Repair takes three quarters of a case, and here it is tried after a part of them: after every third
    damage to data, after every tenth to a file without which all data is still there."""
    template, expected = templates["live" if file_kind == "wal" else "closed"]
    between = 3 if file_kind in ("wal", "sst") else 10
    # Of most kinds of file there is one.
    for seed in range(10 if kind == "missing" else EACH):
        repairs = seed % between == 0
        case = damage.run_case(template, tmp_path, file_kind, kind, seed, expected, repairs=repairs)
        assert case is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", index_files.KINDS)
def test_damage_to_the_file_of_an_index(kind: str) -> None:
    assert index_files.run_many(kind, EACH).total() == EACH


@pytest.mark.parametrize("wrong", ["nothing", "another score", "another order"])
@pytest.mark.parametrize("kind", ["bit", "missing"])
def test_a_wrong_answer_is_not_harmless(
    templates: dict[str, tuple[Path, damage.Expected]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    wrong: str,
) -> None:
    """Damage to the checkpoint of the index makes searches wrong, and nothing else."""
    real = warpmem.Memory.search

    def search(self: warpmem.Memory, *arguments: object, **options: object) -> object:
        hits = tuple(real(self, *arguments, **options))  # type: ignore[arg-type]
        if wrong == "another score":
            return tuple(msgspec.structs.replace(hit, score=hit.score + 1e-6) for hit in hits)
        return hits[::-1] if wrong == "another order" else ()

    monkeypatch.setattr(warpmem.Memory, "search", search)
    template, expected = templates["closed"]
    with pytest.raises(AssertionError, match="answer otherwise than before, in silence"):
        damage.run_case(template, tmp_path, "index", kind, 0, expected)


def test_a_wrong_answer_of_an_index_file_is_not_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    index_files.template(0)
    real = warpmem.VectorIndex.load.__func__  # type: ignore[attr-defined]
    whole = index_files.template(0)[0]

    def load(cls: type[warpmem.VectorIndex], path: Path, **options: object) -> warpmem.VectorIndex:
        """Checksums that let everything pass, and a vector that is another one."""
        path.write_bytes(whole)
        index: warpmem.VectorIndex = real(cls, path, **options)
        index.update([1], np.ones((1, 8), np.float32))
        return index

    monkeypatch.setattr(warpmem.VectorIndex, "load", classmethod(load))
    with pytest.raises(AssertionError, match="bit 0: it answers otherwise"):
        index_files.run_many("bit", 1)


@pytest.mark.parametrize("kind", [kind for kind in damage.KINDS if kind != "missing"])
def test_damage_changes_something(kind: str) -> None:
    data = bytes(8 * damage.BLOCK) + bytes(range(255)) * 3
    for seed in range(100):
        assert damage.damaged(data, kind, random.Random(seed)) != data
    with pytest.raises(AssertionError, match="of the kind swap changes them"):
        damage.damaged(b"MANIFEST-000005\n", "swap", random.Random(0))
