"""Whether the end of a damaged log is known: gaps tell what is lost inside it, and nothing what is behind."""

from __future__ import annotations

from ..errors import StoreCorrupt, StoreError
from . import codec
from .files import FileReader
from .reports import Lost
from .rocks import RocksEngine

_END = b"\xff" * 9
_BESIDE = "some of what stands beside the items: notes of backups, revoked origins, costs"


def lost_unseen(path: str, reader: FileReader, last: int) -> list[Lost]:
    """What is to be said of what may be lost without a trace: changes behind `last`, the newest that salvage
    found, and what no item tells of.

    reader  has read all tables and logs of the store at `path`

    A store that opens tells itself. Of one that does not, the end is believed when its tables and logs are
    whole, its logs not damaged behind their last change, and MANIFEST or CURRENT are what is at fault: where
    they are not, a table that they name is missing. Raises StoreError when MANIFEST cannot be read.
    """
    try:
        engine = RocksEngine(path, read_only=True)
    except StoreError:
        logs = {name for name in reader.faulty if name.endswith(".log")}
        if reader.open_end:
            return [_behind(last, "damage stands behind the last whole change in " + ", ".join(sorted(logs)))]
        if reader.faulty - logs:
            return [_behind(last, "they may have stood in " + ", ".join(sorted(reader.faulty - logs)))]
        reader.manifest()
        if logs or reader.faulty:
            return []
        return [_behind(last, "a table is missing, or the end of a log is empty")]
    lost = []
    try:
        newest = (codec.read_log_key(key) for key, _ in engine.scan("log", b"", _END, reverse=True))
        try:
            if next(newest, 0) != last:
                lost.append(_behind(last, "the log of the store ends otherwise"))
        except StoreCorrupt:
            lost.append(_behind(last, "a block of the log is damaged"))
        try:
            for key, stored in engine.scan("meta", b"", b"\xff" * 64):
                codec.unseal("meta", key, stored)
        except StoreCorrupt:
            lost.append(
                Lost("some of what stands beside the items: notes of backups, revoked origins, costs")
            )
    finally:
        engine.close()
    return lost


def _behind(last: int, why: str) -> Lost:
    return Lost(f"changes behind number {last} of the log, if there were any: {why}")
