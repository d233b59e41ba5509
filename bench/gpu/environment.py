"""The virtual environment of a run: it sees the packages of the Python that makes it, whatever that is.

A virtual environment made inside another one with `system_site_packages` sees those of the base interpreter,
not those of its parent: torch and CuPy would be gone. So it is told the parent's folders by a .pth file. Its
packages are installed by the parent's pip, since a distribution's Python may lack `ensurepip`.
"""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from pathlib import Path


def create(folder: Path) -> str:
    """The path of the Python of an environment there; one that is there already is taken up again."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=False, symlinks=True)
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    lines = [f"import site; site.addsitedir({place!r})" for place in parents()]
    (own / "parent.pth").write_text("".join(f"{line}\n" for line in lines))
    return str(python)


def parents() -> list[str]:
    """Folders with the packages that this Python sees."""
    found = list(site.getsitepackages())
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return [place for place in found if Path(place).is_dir()]


def pip(python: str) -> list[str]:
    """The command that installs into the environment of `python`."""
    return [sys.executable, "-m", "pip", "--python", python]
