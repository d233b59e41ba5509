"""What the files of a store hold, read one by one: for repair, and for stores that do not open."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ..errors import StoreError
from . import codec
from .directory import file_names
from .reports import Faults
from .salvage_logs import LogReader, ends_in_damage, has_witness, read_batches
from .salvage_tables import Entry, TableReader

_TABLE: Final = re.compile(r"\d+\.sst")
_WAL: Final = re.compile(r"\d+\.log")
_MANIFEST: Final = re.compile(r"MANIFEST-\d+")
_FOOTER: Final = (0x88E241B785F4CFF7).to_bytes(8, "little")  # the magic number that ends every table
_STEP: Final = 1000


class FileReader:
    """Reads every table and write-ahead log of a directory, whatever MANIFEST says of them.

    entries  the whole ones that were found, by family, older versions included
    files    one sentence a file, of what was found in it
    faulty   those in which, or at the end of which, something is damaged for sure
    open_end whether damage stands behind the last change that is whole in a log
    """

    def __init__(self, path: str, faults: Faults, progress: Callable[[str, int], None]) -> None:
        self._path = path
        self._faults = faults
        self._progress = progress
        self._names: dict[int, str] = {}
        self._last = ""
        self._witnessed: set[str] = set()  # logs with a witness in a later one
        self.entries: dict[str, int] = dict.fromkeys(codec.FAMILIES, 0)
        self.files: dict[str, str] = {}
        self.faulty: set[str] = set()
        self.open_end = False

    def __iter__(self) -> Iterator[Entry]:
        names = sorted(file_names(self._path))
        total = 0
        logs = sorted(filter(_WAL.fullmatch, names), key=lambda name: int(name.split(".")[0]))
        self._last = next(filter(self._holds, reversed(logs)), "")
        self._look_for_witnesses(logs)
        # Tables first: of a deletion in a log, its family is known by the values seen before.
        for read, pattern in ((self._table, _TABLE), (self._log, _WAL)):
            for name in names:
                if pattern.fullmatch(name):
                    for entry in read(name):
                        if entry.value is not None:
                            self.entries[entry.family] += 1
                        yield entry
                        total += 1
                        if total % _STEP == 0:
                            self._progress(name, total)

    def _holds(self, name: str) -> bool:
        """Whether anything but unused space stands in a log."""
        return any(read_file(os.path.join(self._path, name)))

    def _look_for_witnesses(self, logs: Sequence[str]) -> None:
        found = False
        for name in reversed(logs):
            if found:
                self._witnessed.add(name)
            else:
                found = has_witness(read_file(os.path.join(self._path, name)), {})

    def _table(self, name: str) -> Iterator[Entry]:
        data = read_file(os.path.join(self._path, name))
        reader = TableReader(data)
        yield from reader
        self.files[name] = f"table: {reader.entries} whole entries in {len(data)} bytes"
        if not data.endswith(_FOOTER):
            self.faulty.add(name)
            self._faults.note("file", f"{name} does not end as a table does: it is cut off or overwritten")

    def _log(self, name: str) -> Iterator[Entry]:
        data = read_file(os.path.join(self._path, name))
        reader = LogReader(data)
        count = 0
        for entry in read_batches(iter(reader), self._names, witnessed=name in self._witnessed):
            count += 1
            yield entry
        self.files[name] = f"write-ahead log: {count} whole entries in {len(data)} bytes"
        if reader.damaged:
            self.faulty.add(name)
            self.open_end |= ends_in_damage(data, self._names, last=name == self._last)
            self._faults.note("file", f"{name}: {reader.damaged} bytes belong to no whole record")
        elif reader.torn:
            self.files[name] += ", torn at its end as after a crash"

    def manifest(self) -> None:
        """Look at MANIFEST and CURRENT, which say which tables and logs are the store."""
        names = set(file_names(self._path))
        manifests = sorted(name for name in names if _MANIFEST.fullmatch(name))
        for name in manifests:
            reader = LogReader(read_file(os.path.join(self._path, name)))
            whole = sum(record.whole for record in reader)
            self.files[name] = f"MANIFEST: {whole} whole records"
            if reader.damaged or reader.torn:
                self.faulty.add(name)
            if reader.damaged:
                self._faults.note("file", f"{name}: {reader.damaged} bytes belong to no whole record")
        if not manifests:
            self.faulty.add("MANIFEST")
            self._faults.note("file", "there is no MANIFEST")
        if "CURRENT" not in names:
            self.faulty.add("CURRENT")
            self._faults.note("file", "CURRENT is missing")
            return
        named = read_file(os.path.join(self._path, "CURRENT"))
        if named.rstrip(b"\n") not in {name.encode() for name in manifests}:
            self.faulty.add("CURRENT")
            self._faults.note("file", f"CURRENT names no MANIFEST that is there, but {named[:40]!r}")


def examine_files(
    path: str, faults: Faults, progress: Callable[[str, int], None]
) -> tuple[dict[str, str], dict[str, int]]:
    """(a sentence for each file, whole entries by family) of a store that does not open."""
    reader = FileReader(path, faults, progress)
    for _ in reader:
        pass
    reader.manifest()
    return dict(sorted(reader.files.items())), reader.entries


def read_file(path: str) -> bytes:
    """All of a file. Raises StoreError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise StoreError(f"cannot read {path!r}: {error.strerror}") from error
