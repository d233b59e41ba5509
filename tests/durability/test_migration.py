"""A store of an older format is brought up to date: after a copy, all or nothing; damage is not age."""

from __future__ import annotations

import bisect
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from durability.golden_stores import GOLDEN, content, describe, open_golden
from durability.migrations import STEPS, die_at, run_migration_kills, state
from warpmem.errors import FormatError, InputError, StoreCorrupt
from warpmem.storage.backup_notes import noted_backups
from warpmem.storage.codec import FAMILIES, FIRST_FAMILIES
from warpmem.storage.identity import identity_entry, read_identity
from warpmem.storage.rocks import RocksEngine

OLD = GOLDEN / "format-1"
KILLS = 6


@pytest.fixture(params=["closed", "unclean"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store of format 1."""
    path = tmp_path / "store"
    shutil.copytree(OLD / request.param, path)
    return path


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_leaves_it_old_or_new(tmp_path: Path, step: str) -> None:
    old = tmp_path / "store"
    shutil.copytree(OLD / "unclean", old)
    die_at(step, old)
    assert state(old) == STEPS[step][3]
    for read_only in (True, False):
        with open_golden(old, read_only=read_only) as memory:
            assert describe(memory) == content(OLD)["memory"]
    assert (state(old), state(old.with_name("store.format-1"))) == ("new", "old")
    assert sorted(os.listdir(old.parent)) == ["store", "store.format-1"]
    engine = RocksEngine(old, read_only=True)
    assert [note.path for note in noted_backups(engine)] == [str(old.with_name("store.format-1"))]
    engine.close()


@pytest.mark.slow
def test_kill_9_leaves_it_old_or_new(tmp_path: Path) -> None:
    assert sum(run_migration_kills(tmp_path, kills=KILLS, seed=7).values()) > KILLS // 2


def test_it_is_refused_when_asked(old: Path) -> None:
    before = files(old)
    with pytest.raises(FormatError, match="has format 1, this warpmem writes format 2"):
        open_golden(old, migrate=False)
    assert files(old).keys() == before.keys()
    assert state(old) == "old"
    assert os.listdir(old.parent) == ["store"]


def test_an_engine_alone_adds_no_family(old: Path) -> None:
    with pytest.raises(FormatError, match=r"warpmem\.open"):
        RocksEngine(old)
    assert state(old) == "old"


def test_the_copy_goes_where_it_is_told(old: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NUL"):
        open_golden(old, migration_backup="a\0b")
    place = tmp_path / "elsewhere" / "copy"
    open_golden(old, migration_backup=str(place)).close()
    assert state(old) == "new" and state(place) == "old"
    assert not old.with_name("store.format-1").exists()


def test_a_copy_of_the_same_moment_is_taken_and_anything_else_refused(old: Path) -> None:
    copy = old.with_name("store.format-1")
    shutil.copytree(old, copy)
    later = old.with_name("later")
    shutil.copytree(old, later)
    open_golden(old).close()
    assert state(old) == "new" and state(copy) == "old"

    shutil.rmtree(copy)
    copy.mkdir()
    (copy / "letter.txt").write_text("dear")
    with pytest.raises(FormatError, match="something else is there"):
        open_golden(later, migration_backup=str(copy))
    assert state(later) == "old" and files(copy) == {"letter.txt": b"dear"}


@pytest.mark.parametrize("added", [1, 2])
def test_it_goes_on_after_a_stop_between_families_and_identity(old: Path, added: int) -> None:
    """A process that died in between left new families, empty, and a copy."""
    shutil.copytree(old, old.with_name("store.format-1"))
    engine = RocksEngine(old, upgrade=lambda found: None)
    engine.close()
    if added == 1:
        _drop_family(old, "jobs")
    assert state(old) == "old with new families"
    with pytest.raises(FormatError, match="has format 1"):
        open_golden(old, migrate=False)
    with open_golden(old) as memory:
        assert describe(memory) == content(OLD)["memory"]
    assert state(old) == "new"


def _drop_family(path: Path, name: str) -> None:
    from rocksdict import Options, Rdict

    names = Rdict.list_cf(str(path))
    options = {name: Options(raw_mode=True) for name in names if name != "default"}
    database = Rdict(str(path), Options(raw_mode=True), column_families=options)
    database.drop_column_family(name)
    database.close()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("clean", [True, False])
def test_a_manifest_cut_short_is_damage_and_not_an_old_format(
    tmp_path: Path, read_only: bool, clean: bool
) -> None:
    """However many of its families a store of today still shows."""
    path = tmp_path / "store"
    memory = open_golden(path)
    memory.add("something", user_id="ann")
    if clean:
        memory.close()
        open_golden(path).close()
    crashed = tmp_path / "crashed"
    shutil.copytree(path, crashed, ignore=shutil.ignore_patterns("LOG*"))
    memory.close()
    _refused_at_every_cut(crashed, read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_manifest_cut_short_after_a_migration_is_damage_too(old: Path, read_only: bool) -> None:
    open_golden(old).close()
    _refused_at_every_cut(old, read_only)


def _refused_at_every_cut(path: Path, read_only: bool) -> None:
    """Cut the MANIFEST where it shows one family less than format 1 has, as many, and one more."""
    (manifest,) = path.glob("MANIFEST-*")
    whole = manifest.read_bytes()
    for number in range(len(FIRST_FAMILIES) - 1, len(FAMILIES)):
        # The most bytes that show no more families than this.
        length = bisect.bisect_right(range(len(whole)), number, key=lambda n: _shown(manifest, whole[:n])) - 1
        assert _shown(manifest, whole[:length]) == number
        copy = path.with_name(f"cut-{number}")
        shutil.copytree(path, copy)
        (copy / manifest.name).write_bytes(whole[:length])
        before = files(copy)
        with pytest.raises(StoreCorrupt):
            open_golden(copy, read_only=read_only)
        after = files(copy)
        assert {name: after[name] for name in before if name != "warpmem.lock"} == {
            name: data for name, data in before.items() if name != "warpmem.lock"
        }


def _shown(manifest: Path, content: bytes) -> int:
    """How many families RocksDB lists with this MANIFEST."""
    from rocksdict import Rdict

    manifest.write_bytes(content)
    try:
        return len(set(Rdict.list_cf(str(manifest.parent))) - {"default"})
    except Exception:  # noqa: BLE001  the binding has no narrower type
        return 0


def test_a_newer_format_is_refused_by_name(old: Path) -> None:
    open_golden(old).close()
    engine = RocksEngine(old)
    identity = read_identity(engine)
    assert identity is not None
    engine.write([identity_entry(msgspec.structs.replace(identity, format=3))])
    engine.close()
    for read_only in (True, False):
        with pytest.raises(FormatError, match="format 3, this warpmem reads up to 2"):
            open_golden(old, read_only=read_only)
