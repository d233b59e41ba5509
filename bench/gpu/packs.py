"""Packs of peers (faiss, cuvs) set up in a folder of their own: archives with a script that unpacks them.

WARPMEM_GPU_PEERS may name a folder with `*.tar.xz` in it or in folders of it, and `setup.sh` in it or beside
it. The script is called with a folder of archives, PEER_SITE saying where to, and the run's Python first on
PATH.
"""

from __future__ import annotations

from pathlib import Path

from steps import Failed, Skipped, Steps


def packs(folder: Path) -> list[Path]:
    """Folders with archives: this one, or those in it."""
    return [place for place in (folder, *sorted(folder.glob("*/"))) if any(place.glob("*.tar.xz"))]


def script(folder: Path) -> Path | None:
    """What unpacks them."""
    found = (place / "setup.sh" for place in (folder, folder.parent))
    return next((path for path in found if path.is_file()), None)


def set_up(run: Steps, folder: Path, site: Path) -> None:
    """Every pack into `site`, which the run's commands take peers from. Skipped when there are none; Failed,
    behind all others, with those that cannot be set up."""
    there = packs(folder.resolve())
    if not there:
        raise Skipped(f"no packs in {folder}")
    folder, how = folder.resolve(), script(folder.resolve())
    if how is None:
        raise Skipped(f"no setup.sh in {folder} or beside it")
    site.mkdir(parents=True, exist_ok=True)
    run.environment["WARPMEM_GPU_PEERS"] = str(site)  # one that fails leaves the other
    failures = []
    for pack in there:
        stamp, contents = site / f"{pack.name}.set-up", _contents(pack)
        if not stamp.exists() or stamp.read_text() != contents:
            try:
                run.call("bash", how, pack, limit=120, PEER_SITE=str(site))
            except Failed as error:
                failures.append(f"{pack.name}: {error}")
            else:
                stamp.write_text(contents)
    if failures:
        raise Failed("\n".join(failures))


def _contents(pack: Path) -> str:
    """Names and sizes: what an earlier call set up is not unpacked again."""
    return "".join(f"{path.name} {path.stat().st_size}\n" for path in sorted(pack.iterdir()))
