"""The report of what CUDA kernels use, from a compiler's output; no compiler is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cuda_report

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5cleanPf' for 'sm_90a'
ptxas info    : Function properties for _Z5cleanPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 46 registers, used 1 barriers, 2304 bytes smem, 392 bytes cmem[0]
ptxas info    : Compiling entry function '_Z5spillPf' for 'sm_120'
ptxas info    : Function properties for helper
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for _Z5spillPf
    16 bytes stack frame, 12 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers
"""


def test_kernels_are_read_from_the_compilers_output():
    clean, spill = cuda_report.parse(LOG)
    assert (clean.name, clean.arch, clean.registers, clean.static_shared) == ("_Z5cleanPf", 90, 46, 2304)
    assert clean.clean
    assert (spill.arch, spill.registers, spill.stack, spill.spills) == (120, 255, 16, 36)
    assert not spill.clean


def test_the_table_has_a_line_for_each_kernel_and_architecture():
    kernels = cuda_report.parse(LOG)
    lines = cuda_report.table(kernels, {k.name: k.name for k in kernels}).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| _Z5cleanPf | 90 | 46 | 2304 | 0 | 0 |"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void warpmem::cuda::select<(bool)1, (int)8>(warpmem::cuda::Params)", "select<1, 8>"),
        ("warpmem::cuda::(anonymous namespace)::plain(float*)", "plain"),
    ],
)
def test_names_are_shortened(name: str, short: str):
    assert cuda_report.shorten(name) == short


@pytest.mark.parametrize(("options", "status"), [([], 2), (["--optional"], 0)])
def test_without_a_compiler_it_says_so(
    options: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["cuda_report.py", "--nvcc", "", *options])
    assert cuda_report.main() == status
    assert "--nvcc" in capsys.readouterr().err


def test_a_kernel_of_several_sources_is_told_once_with_the_most_it_uses():
    kernels = [
        cuda_report.Kernel("a", 90, 40),
        cuda_report.Kernel("a", 90, 44, spills=4),
        cuda_report.Kernel("a", 80, 50),
    ]
    first, second = cuda_report.unique(kernels)
    assert (first.arch, first.registers, first.spills) == (90, 44, 4)
    assert (second.arch, second.registers) == (80, 50)


FAKE_NVCC = """\
#!/bin/sh
case "$*" in *--version*) echo "Cuda compilation tools, release 13.0, V13.0.88"; exit;; esac
echo "$*" >> "$(dirname "$0")/calls"
cat >&2 <<LOG
{log}LOG
"""


@pytest.mark.parametrize(
    ("log", "status"), [(LOG, 1), (LOG.split("ptxas info    : Compiling entry function '_Z5spill")[0], 0)]
)
def test_local_memory_fails_and_the_table_is_written(
    log: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(FAKE_NVCC.format(log=log))
    nvcc.chmod(0o755)
    report = tmp_path / "REPORT.md"
    arguments = ["--nvcc", str(nvcc), "--ptx", "--arch", "90", "--output", str(report), "some.cu"]
    monkeypatch.setattr("sys.argv", ["cuda_report.py", *arguments])
    assert cuda_report.main() == status
    assert ("local memory on sm_120" in capsys.readouterr().err) == bool(status)
    assert "code=[sm_90,compute_90] -fatbin some.cu" in (tmp_path / "calls").read_text()
    assert "nvcc 13.0" in report.read_text() and "| 90 | 46 | 2304 | 0 | 0 |" in report.read_text()


def test_the_saved_table_has_every_kernel_on_every_architecture_without_local_memory():
    """After a change of the kernels: python tools/cuda_report.py --output bench/gpu/COMPILED.md"""
    sources = "\n".join(path.read_text() for path in (cuda_report.ROOT / "csrc/cuda/kernels").glob("*.cuh"))
    sources = re.sub(r"^\s*//.*$|^#.*$", "", sources, flags=re.MULTILINE)
    kernels = set(re.findall(r"WARPMEM_KERNEL(?:_OF)?\([^)]*\)\s*(\w+)\(", sources))
    assert len(kernels) == len(re.findall("WARPMEM_KERNEL", sources)) > 35
    rows = re.findall(
        r"^\| (\w+)\S*(?: \S+)* \| (\d+) \| (\d+) \| \d+ \| (\d+) \| (\d+) \|$",
        (cuda_report.ROOT / "bench/gpu/COMPILED.md").read_text(),
        re.MULTILINE,
    )
    for arch in cuda_report.ARCHITECTURES:
        assert {name for name, where, *_ in rows if where == arch} == kernels, arch
    assert all(0 < int(registers) <= 255 for _, _, registers, *_ in rows)
    assert all((stack, spills) == ("0", "0") for *_, stack, spills in rows)
