"""Compile every CUDA source and print what its kernels use: registers, shared memory, stack and spills.

    python tools/cuda_report.py [--nvcc PATH] [--arch 80 90 100 120] [--output FILE.md] [FILE.cu ...]
    python tools/cuda_report.py --optional --ptx --arch 90        # what .ci/run asks

The table, in Markdown, goes to standard output. The exit code is 1 when a kernel spills registers or keeps
anything in local memory, which a GPU reads from its main memory, and 2 when there is no nvcc (0 with
--optional). No GPU is needed. Shared memory in the table is what a kernel has of its own; what a launch asks
for besides is in its plan (core/*_plan.hpp), and tools/cuda_predict.py prints it.
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

HEADING = """\
# What the kernels use

By nvcc {version} with the flags of the wheel: `python tools/cuda_report.py --output bench/gpu/COMPILED.md`.
Registers are of a thread, memory is in bytes: static shared memory of a block, stack and spills of a thread.

"""

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


def unique(kernels: list[Kernel]) -> list[Kernel]:
    """Each kernel of an architecture once, with the most it uses: several sources may hold a copy of it."""
    found: dict[tuple[str, int], Kernel] = {}
    for kernel in kernels:
        known = found.setdefault((kernel.name, kernel.arch), kernel)
        known.registers = max(known.registers, kernel.registers)
        known.stack = max(known.stack, kernel.stack)
        known.spills = max(known.spills, kernel.spills)
    return list(found.values())


def compile_one(nvcc: str, source: Path, arch: str, folder: Path, ptx: bool) -> list[Kernel]:
    """Compile a source for one architecture, and to PTX as well; a compile error ends the program."""
    output = folder / f"{source.stem}.{arch}.fatbin"
    code = f"[sm_{arch},compute_{arch}]" if ptx else f"sm_{arch}"
    target = ["-gencode", f"arch=compute_{arch},code={code}", "-fatbin"]
    command = [nvcc, *FLAGS, *target, str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source.name} does not compile for sm_{arch}:\n{done.stderr or done.stdout}")
    return parse(done.stdout + done.stderr)


def version(nvcc: str) -> str:
    """The compiler's release, such as 13.0."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else "unknown"


def main() -> int:
    """Compile, print, judge."""
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of every CUDA kernel.")
    parser.add_argument("--nvcc", default=shutil.which("nvcc"), help="the compiler, by default that on PATH")
    parser.add_argument(
        "--arch", nargs="+", default=list(ARCHITECTURES), help="compute capabilities, such as 90"
    )
    parser.add_argument("--ptx", action="store_true", help="compile to PTX too, for devices to come")
    parser.add_argument("--optional", action="store_true", help="without a compiler say so and succeed")
    parser.add_argument("--output", type=Path, help="also write the table to this file, with a heading")
    parser.add_argument("--jobs", type=int, default=1, help="compilations at a time")
    parser.add_argument("sources", nargs="*", type=Path, help="files; all of csrc/cuda by default")
    arguments = parser.parse_args()
    if not arguments.nvcc:
        what = "CUDA kernels were not compiled: " if arguments.optional else ""
        print(f"{what}no nvcc was found; name one with --nvcc", file=sys.stderr)
        return 0 if arguments.optional else 2
    sources = arguments.sources or sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        pending = [
            pool.submit(compile_one, arguments.nvcc, source, arch, Path(folder), arguments.ptx)
            for source in sources
            for arch in arguments.arch
        ]
        kernels = unique([kernel for future in pending for kernel in future.result()])
    names = demangle(sorted({kernel.name for kernel in kernels}))
    print(table(kernels, names))
    if arguments.output is not None:
        arguments.output.write_text(
            HEADING.format(version=version(arguments.nvcc)) + table(kernels, names) + "\n"
        )
    bad = [kernel for kernel in kernels if not kernel.clean]
    for kernel in bad:
        print(f"{names[kernel.name]} uses local memory on sm_{kernel.arch}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
