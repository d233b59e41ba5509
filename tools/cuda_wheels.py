"""Print the folder in which the CUDA toolchain of the nvidia-* wheels lies: bin/nvcc, include, lib, nvvm.

    python tools/cuda_wheels.py

Run by the interpreter whose packages are meant. Exit code 1, and what is missing with the install line on
standard error, when the toolchain is not there or not whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

WHEELS = ("nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-nvvm")
VERSION = "13.0.*"
PARTS = {
    "bin/nvcc": "nvidia-cuda-nvcc",
    "nvvm/bin/cicc": "nvidia-nvvm",
    "include/crt/host_config.h": "nvidia-cuda-crt",
    "include/cuda_runtime.h": "nvidia-cuda-runtime",
    "lib/libcudart_static.a": "nvidia-cuda-runtime",
    "include/cccl": "nvidia-cuda-cccl",
}


def find(paths: Iterable[str]) -> tuple[Path | None, str]:
    """(root, "") or (None, reason): the first nvidia/cu13 on the paths that holds all parts."""
    reason = "none of the wheels is installed"
    for path in paths:
        root = Path(path or ".") / "nvidia" / "cu13"
        if not root.is_dir():
            continue
        missing = sorted({wheel for part, wheel in PARTS.items() if not (root / part).exists()})
        if not missing:
            return root.resolve(), ""
        reason = f"{root} lacks what {', '.join(missing)} brings"
    install = " ".join(f'"{wheel}=={VERSION}"' for wheel in WHEELS)
    return None, f"{reason}; python -m pip install {install}"


def main() -> int:
    """Print the folder or the reason."""
    root, reason = find(sys.path)
    print(reason if root is None else root, file=sys.stderr if root is None else sys.stdout)
    return 1 if root is None else 0


if __name__ == "__main__":
    sys.exit(main())
