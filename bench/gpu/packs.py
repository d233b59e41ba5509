"""Packs of peers (faiss, cuvs) set up in a folder of their own: archives with a script that unpacks them.

WARPMEM_GPU_PEERS may name a folder with `*.tar.xz` in it or in folders of it, and `setup.sh` in it or beside
it. The script is called with a folder of archives, PEER_SITE saying where to, and the run's Python first on
PATH.
"""

from __future__ import annotations

from pathlib import Path

from steps import Skipped, Steps


def packs(folder: Path) -> list[Path]:
    """Folders with archives: this one, or those in it."""
    return [place for place in (folder, *sorted(folder.glob("*/"))) if any(place.glob("*.tar.xz"))]


def script(folder: Path) -> Path | None:
    """What unpacks them."""
    found = (place / "setup.sh" for place in (folder, folder.parent))
    return next((path for path in found if path.is_file()), None)


def set_up(run: Steps, folder: Path, site: Path) -> None:
    """Every pack into `site`, which the run's commands take peers from. Skipped when there are none."""
    there = packs(folder)
    if not there:
        raise Skipped(f"no packs in {folder}")
    how = script(folder)
    if how is None:
        raise Skipped(f"no setup.sh in {folder} or beside it")
    site.mkdir(parents=True, exist_ok=True)
    run.environment["WARPMEM_GPU_PEERS"] = str(site)  # one that fails leaves the other
    for pack in there:
        run.call("bash", how, pack, limit=60, PEER_SITE=str(site))
