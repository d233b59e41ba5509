"""One call of warpmem.index.kernels on every backend and instruction set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpmem.index import kernels


def run(kernel: Callable[..., Any], *args: Any, threaded: bool = True, **options: Any) -> Any:
    """With the reference and each instruction set, one and two threads; returns the equal results once."""
    reference = kernel(*args, backend="numpy", **options)
    wanted = reference if isinstance(reference, tuple) else (reference,)
    for isa in kernels.isas():
        for threads in (1, 2) if threaded else (None,):
            extra = {} if threads is None else {"threads": threads}
            result = kernel(*args, backend="cpu", isa=isa, **extra, **options)
            parts = result if isinstance(result, tuple) else (result,)
            for part, expected in zip(parts, wanted, strict=True):
                if isinstance(expected, float):
                    assert part == expected, f"{isa}, {threads} threads"
                    continue
                assert part.dtype == expected.dtype and part.shape == expected.shape
                assert part.tobytes() == expected.tobytes(), f"{isa}, {threads} threads: differs from numpy"
    return reference
