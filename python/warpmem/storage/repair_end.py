"""Whether the end of a damaged log is known: gaps tell what is lost inside it, and nothing what is behind."""

from __future__ import annotations

from ..errors import StoreCorrupt
from . import codec
from .files import FileReader
from .reports import Lost
from .rocks import RocksEngine

_END = b"\xff" * 9


def lost_end(path: str, reader: FileReader, last: int) -> Lost | None:
    """What is to be said of changes behind `last`, the newest that salvage found; None when there were none.

    reader  has read all tables and logs of the store at `path`

    A store that opens tells itself. Of one that does not, the end is believed when its tables and logs are
    whole, its logs not damaged behind their last change, and MANIFEST or CURRENT are what is at fault: where
    they are not, a table that they name is missing. Raises StoreError.
    """
    try:
        engine = RocksEngine(path, read_only=True)
    except StoreCorrupt:
        logs = {name for name in reader.faulty if name.endswith(".log")}
        if reader.open_end:
            return _behind(last, "damage stands behind the last whole change in " + ", ".join(sorted(logs)))
        if reader.faulty - logs:
            return _behind(last, "they may have stood in " + ", ".join(sorted(reader.faulty - logs)))
        reader.manifest()
        if logs or reader.faulty:
            return None
        return _behind(last, "a table is missing, or the end of a log is empty")
    try:
        for key, _ in engine.scan("log", b"", _END, reverse=True):
            if codec.read_log_key(key) == last:
                return None
            break
    except StoreCorrupt:
        pass
    finally:
        engine.close()
    return _behind(last, "the log of the store ends otherwise") if last else None


def _behind(last: int, why: str) -> Lost:
    return Lost(f"changes behind number {last} of the log, if there were any: {why}")
