"""How much of the host's memory this process may still take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""A control group's limit, what it uses, and what of that are files' pages that the kernel would drop first
(by its name in memory.stat), in the second version of control groups and in the first."""


def available(root: Path = Path("/")) -> int:
    """Bytes that the kernel would give without swapping, and that every control group above this process
    leaves it. 0 where the system does not say. root: of the file system."""
    free = _number(root / "proc/meminfo", "MemAvailable:") << 10
    for folder in _groups(root):
        for limit, used, dropped in _GROUP_FILES:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                most = int((folder / limit).read_text()) - int((folder / used).read_text())
                free = min(free, most + _number(folder / "memory.stat", dropped))
    return max(0, free)


def _number(file: Path, name: str) -> int:
    """That in the file's line which begins with the name; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in file.read_text().splitlines():
            words = line.split()
            if words and words[0] == name:
                return int(words[1])
    return 0


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the process's groups and of those above. In a container the first that the kernel names
    may not be there; what limits the container is then at the top."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            within = Path(path.lstrip("/"))
            yield from (top / group for group in (within, *within.parents))
