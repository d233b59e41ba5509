"""Print what the CUDA module of a wheel holds: architectures, PTX, the libraries that it needs.

    python tools/cuda_module.py FILE.whl

The exit code is 1, with a sentence on standard error for each fault, when a kernel lacks an architecture of a
release (sm_80, 90, 100 and 120, and PTX of 120 for devices to come), when the module needs a library of CUDA
(the runtime is linked statically, the driver is found when it is used, nothing comes from cuBLAS), or when
the wheel is larger than 15 MB. It reads ELF and the container of nvcc's code itself; no CUDA tool is needed.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 15_000_000
CUBINS = frozenset({80, 90, 100, 120})
PTX = frozenset({120})
MODULE = re.compile(r"warpmem/_cuda\.[^/]*so")
OF_CUDA = re.compile(r"lib(cuda|cublas|cufft|curand|cusolver|cusparse|nv)")

CONTAINER = 0xBA55ED50  # then version: uint16, bytes of this header: uint16, bytes behind it: uint64
KIND_PTX = 1
KIND_CUBIN = 2
DYNAMIC = 6  # section type
NEEDED = 1  # tag in it


@dataclass(frozen=True)
class Section:
    """A section of an ELF file: its name, type, the section that it refers to, and its bytes."""

    name: str
    kind: int
    link: int
    data: bytes


def sections(elf: bytes) -> list[Section]:
    """The sections of a 64-bit little-endian ELF file; ValueError for anything else."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("this is no 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQI", elf, table + i * size) for i in range(count)]
    data = [elf[offset : offset + length] for _, _, _, _, offset, length, _ in headers]
    return [
        Section(text(data[names_at], name), kind, link, data[i])
        for i, (name, kind, _, _, _, _, link) in enumerate(headers)
    ]


def text(strings: bytes, at: int) -> str:
    """The string at an offset of a table of strings."""
    return strings[at : strings.index(b"\0", at)].decode()


def needed(parts: list[Section]) -> list[str]:
    """The libraries that the dynamic linker loads for it."""
    found: list[str] = []
    for part in parts:
        if part.kind == DYNAMIC:
            entries = struct.iter_unpack("<qQ", part.data)
            found += [text(parts[part.link].data, value) for tag, value in entries if tag == NEEDED]
    return found


def containers(parts: list[Section]) -> Iterator[list[tuple[int, int]]]:
    """Of each compiled source, its pieces of code: (kind, architecture)."""
    for part in parts:
        if part.name != ".nv_fatbin":
            continue
        at = 0
        while at + 16 <= len(part.data):
            magic, _, header, size = struct.unpack_from("<IHHQ", part.data, at)
            if magic != CONTAINER:
                at += 8  # containers are aligned
                continue
            end = at + header + size
            at += header
            pieces: list[tuple[int, int]] = []
            while at < end:
                kind, _, own, payload = struct.unpack_from("<HHIQ", part.data, at)
                (architecture,) = struct.unpack_from("<I", part.data, at + 28)
                if own + payload == 0:
                    raise ValueError("a piece of code has no end")
                pieces.append((kind, architecture))
                at += own + payload
            yield pieces


def faults(elf: bytes, cubins: frozenset[int] = CUBINS, ptx: frozenset[int] = PTX) -> list[str]:
    """What is wrong with a CUDA module, in sentences."""
    try:
        return _faults(elf, cubins, ptx)
    except (ValueError, IndexError, struct.error) as error:
        return [f"its CUDA module cannot be read: {error}"]


def _faults(elf: bytes, cubins: frozenset[int], ptx: frozenset[int]) -> list[str]:
    parts = sections(elf)
    wrong = [f"it needs {library}" for library in needed(parts) if OF_CUDA.match(library)]
    code = list(containers(parts))
    if not code:
        wrong.append("it holds no code for a device")
    for pieces in code:
        binary = {architecture for kind, architecture in pieces if kind == KIND_CUBIN}
        source = {architecture for kind, architecture in pieces if kind == KIND_PTX}
        if binary != cubins or source != ptx:
            wrong.append(
                f"a source is compiled for sm {sorted(binary)} and PTX {sorted(source)}, "
                f"not for sm {sorted(cubins)} and PTX {sorted(ptx)}"
            )
    return wrong


def main() -> int:
    """Read, print, judge."""
    parser = argparse.ArgumentParser(description="What the CUDA module of a wheel holds.")
    parser.add_argument("wheel", type=Path)
    wheel: Path = parser.parse_args().wheel
    with zipfile.ZipFile(wheel) as archive:
        modules = [archive.read(name) for name in archive.namelist() if MODULE.fullmatch(name)]
    wrong = [fault for module in modules for fault in faults(module)]
    if not modules:
        wrong.append("it has no CUDA module")
    size = wheel.stat().st_size
    if size > MAX_BYTES:
        wrong.append(f"it has {size} bytes, more than {MAX_BYTES}")
    print(f"{wheel.name}: {size / 1e6:.2f} MB")
    for module in [] if wrong else modules:
        parts = sections(module)
        kinds = {kind for pieces in containers(parts) for kind in pieces}
        print(f"architectures: {', '.join(str(a) for kind, a in sorted(kinds) if kind == KIND_CUBIN)}")
        print(f"PTX: {', '.join(str(a) for kind, a in sorted(kinds) if kind == KIND_PTX)}")
        print(f"needs: {', '.join(needed(parts))}")
    for fault in wrong:
        print(f"{wheel.name}: {fault}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
