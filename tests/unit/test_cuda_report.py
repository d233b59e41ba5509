"""The report of what CUDA kernels use, from a compiler's output; no compiler is needed."""

from __future__ import annotations

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


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["cuda_report.py", "--nvcc", ""])
    assert cuda_report.main() == 2
    assert "--nvcc" in capsys.readouterr().err
