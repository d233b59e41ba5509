"""What tools/cuda_module.py reads of a wheel, in modules made by hand; no compiler is needed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

import cuda_module

WHOLE = [(cuda_module.KIND_CUBIN, a) for a in (80, 90, 100, 120)] + [(cuda_module.KIND_PTX, 120)]


def container(pieces: list[tuple[int, int]]) -> bytes:
    body = b""
    for kind, architecture in pieces:
        head = struct.pack("<HHIQIIHHI", kind, 257, 64, 24, 0, 0, 8, 1, architecture)
        body += head.ljust(64, b"\0") + b"x" * 24
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(code: bytes, libraries: list[str]) -> bytes:
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    offsets = [strings.index(name.encode() + b"\0") for name in libraries]
    dynamic = b"".join(struct.pack("<qQ", 1, at) for at in offsets) + struct.pack("<qQ", 0, 0)
    names = b"\0.dynamic\0.dynstr\0.nv_fatbin\0.names\0"
    parts = [
        (b".dynamic", 6, dynamic, 2),
        (b".dynstr", 3, strings, 0),
        (b".nv_fatbin", 1, code, 0),
        (b".names", 3, names, 0),
    ]
    data, table = b"", bytes(64)
    for name, kind, content, link in parts:
        at = 64 + len(data)
        table += struct.pack("<IIQQQQI", names.index(name), kind, 0, 0, at, len(content), link).ljust(
            64, b"\0"
        )
        data += content.ljust(-(-len(content) // 8) * 8, b"\0")
    head = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", 64 + len(data))
    head = head.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, 5, 4)
    return head + data + table


def wheel(folder: Path, module: bytes | None, more: bytes = b"") -> Path:
    path = folder / "warpmem-0.1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("warpmem/_cpu.cpython-311-x86_64-linux-gnu.so", more)
        if module is not None:
            archive.writestr("warpmem/_cuda.cpython-311-x86_64-linux-gnu.so", module)
    return path


@pytest.mark.parametrize("sources", [1, 3])
def test_a_release_has_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sources: int
):
    module = elf(b"".join((container(WHOLE), bytes(8))) * sources, ["libcurl.so.4", "libc.so.6"])
    monkeypatch.setattr("sys.argv", ["cuda_module.py", str(wheel(tmp_path, module))])
    assert cuda_module.main() == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "architectures: 80, 90, 100, 120\nPTX: 120\nneeds: libcurl.so.4, libc.so.6\n" in shown.out


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (elf(container(WHOLE), ["libc.so.6", "libcublas.so.13"]), "it needs libcublas.so.13"),
        (elf(container(WHOLE), ["libcudart.so.13"]), "it needs libcudart.so.13"),
        (elf(container(WHOLE), ["libcuda.so.1"]), "it needs libcuda.so.1"),
        (elf(container(WHOLE) + container(WHOLE[1:]), []), "for sm [90, 100, 120] and PTX [120], not"),
        (elf(container(WHOLE[:-1]), []), "for sm [80, 90, 100, 120] and PTX [], not"),
        (elf(b"", []), "it holds no code for a device"),
        (None, "it has no CUDA module"),
        (
            elf(container([])[:-8] + struct.pack("<Q", 64) + bytes(64), []),
            "cannot be read: a piece of code has no end",
        ),
        (elf(container(WHOLE), [])[:-70], "its CUDA module cannot be read: "),
    ],
)
def test_faults_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: bytes | None,
    fault: str,
):
    monkeypatch.setattr("sys.argv", ["cuda_module.py", str(wheel(tmp_path, module))])
    assert cuda_module.main() == 1
    assert fault in capsys.readouterr().err


def test_a_wheel_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = elf(container(WHOLE), [])
    monkeypatch.setattr("sys.argv", ["cuda_module.py", str(wheel(tmp_path, module, bytes(15_000_000)))])
    assert cuda_module.main() == 1
    assert "more than 15000000" in capsys.readouterr().err


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="no 64-bit little-endian ELF file"):
        cuda_module.sections(b"MZ")
