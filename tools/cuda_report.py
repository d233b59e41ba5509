"""Compile every CUDA source and print what its kernels use: registers, shared memory, stack and spills.

    python tools/cuda_report.py [--nvcc PATH] [--arch 80 90 100 120] [FILE.cu ...]

The table, in Markdown, goes to standard output. The exit code is 1 when a kernel spills registers or keeps
anything in local memory, which a GPU reads from its main memory, and 2 when there is no nvcc. No GPU is
needed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "90", "100", "120")
FLAGS = ("-std=c++17", "-O3", "--fmad=false", "-Xcompiler=-ffp-contract=off", "-Xptxas=-v")

ENTRY = re.compile(r"Compiling entry function '(?P<name>\S+)' for 'sm_(?P<arch>\d+)\w?'")
FRAME = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
)
USED = re.compile(r"Used (?P<registers>\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass
class Kernel:
    """What ptxas says of one kernel on one architecture; bytes a thread, shared memory in bytes a block."""

    name: str
    arch: int
    registers: int = 0
    static_shared: int = 0
    stack: int = 0
    spills: int = 0

    @property
    def clean(self) -> bool:
        return self.stack == 0 and self.spills == 0


def parse(log: str) -> list[Kernel]:
    """The kernels of an output of ``nvcc -Xptxas -v``, names still mangled."""
    kernels: list[Kernel] = []
    current: Kernel | None = None
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            current = Kernel(entry["name"], int(entry["arch"]))
            kernels.append(current)
        elif current is None:
            continue
        elif frame := FRAME.search(line):
            current.stack = int(frame["stack"])
            current.spills = int(frame["stores"]) + int(frame["loads"])
        elif used := USED.search(line):
            current.registers = int(used["registers"])
            shared = SHARED.search(line)
            current.static_shared = int(shared[1]) if shared else 0
            current = None
    return kernels


def demangle(names: list[str]) -> dict[str, str]:
    """Readable names by the name given; without c++filt the names themselves."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None or not names:
        return {name: name for name in names}
    output = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(shorten, output.splitlines()), strict=True))


def shorten(name: str) -> str:
    """Take namespace, parameters and casts of template arguments off a name."""
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    name = re.sub(r"\((?:int|bool|unsigned int|long)\)", "", name).split("(", 1)[0]
    return re.sub(r"(?:\w+::)+", "", name)


def table(kernels: list[Kernel], names: dict[str, str]) -> str:
    """Set the kernels out in Markdown, by name and architecture."""
    lines = [
        "| kernel | sm | registers | static shared | stack | spills |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines.extend(
        f"| {names[k.name]} | {k.arch} | {k.registers} | {k.static_shared} | {k.stack} | {k.spills} |"
        for k in sorted(kernels, key=lambda k: (names[k.name], k.arch))
    )
    return "\n".join(lines)


def compile_one(nvcc: str, source: Path, arch: str, folder: Path) -> list[Kernel]:
    """Compile a source for one architecture; a compile error ends the program."""
    output = folder / f"{source.stem}.{arch}.cubin"
    command = [nvcc, *FLAGS, f"-arch=sm_{arch}", "-cubin", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source.name} does not compile for sm_{arch}:\n{done.stderr or done.stdout}")
    return parse(done.stdout + done.stderr)


def main() -> int:
    """Compile, print, judge."""
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of every CUDA kernel.")
    parser.add_argument("--nvcc", default=shutil.which("nvcc"), help="the compiler, by default that on PATH")
    parser.add_argument(
        "--arch", nargs="+", default=list(ARCHITECTURES), help="compute capabilities, such as 90"
    )
    parser.add_argument("--jobs", type=int, default=1, help="compilations at a time")
    parser.add_argument("sources", nargs="*", type=Path, help="files; all of csrc/cuda by default")
    arguments = parser.parse_args()
    if not arguments.nvcc:
        print("no nvcc was found; name one with --nvcc", file=sys.stderr)
        return 2
    sources = arguments.sources or sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        pending = [
            pool.submit(compile_one, arguments.nvcc, source, arch, Path(folder))
            for source in sources
            for arch in arguments.arch
        ]
        kernels = [kernel for future in pending for kernel in future.result()]
    names = demangle(sorted({kernel.name for kernel in kernels}))
    print(table(kernels, names))
    bad = [kernel for kernel in kernels if not kernel.clean]
    for kernel in bad:
        print(f"{names[kernel.name]} uses local memory on sm_{kernel.arch}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
