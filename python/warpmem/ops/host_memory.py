"""How much of the host's memory this process may still take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_GROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""A control group's limit and what it uses, in the second version of control groups and in the first."""


def available(root: Path = Path("/")) -> int:
    """Bytes that the kernel would give without swapping, and that every control group above this process
    leaves it. 0 where the system does not say. root: of the file system."""
    free = _meminfo(root / "proc/meminfo")
    for folder in _groups(root):
        for limit, used in _GROUP_FILES:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                most = int((folder / limit).read_text())
                free = min(free, most - int((folder / used).read_text()))
    return max(0, free)


def _meminfo(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in file.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
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
