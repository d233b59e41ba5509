"""A VectorIndex in a file: the native pool's file with one more section.

The section `vector_index` is a JSON object with the fields of `Description`. The rows, their checksums and
the file's frame are the native pool's; rows of another backend pass through a native pool on their way out
and in."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Annotated, Any, cast

import msgspec

from ..errors import BackendUnavailable, FormatError, IndexCorrupt, InputError
from ..protocols import RowPool
from ..types import ColumnType, Metric, Storage
from . import cpu
from .approximate import approximate
from .columns import Columns
from .pool_copies import copy_rows

SECTION = "vector_index"
VERSION = 1
CELLS = "ivf"  # the section that only pools of index/ivf_pool.py write


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a VectorIndex is beside its rows. strings: by "str" column, its dictionary in the order of its
    codes. approximate: searches read a part of the rows, as tuned. rows: how many there are. Fields are only
    ever added."""

    version: int = VERSION
    dim: Annotated[int, msgspec.Meta(ge=1)]
    metric: Metric
    storage: Storage
    recall: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
    columns: list[tuple[str, ColumnType]]
    strings: dict[str, list[str]]
    next_id: Annotated[int, msgspec.Meta(ge=0)]
    next_ordinal: Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]
    approximate: bool
    trained: bool
    rows: int | None = None


def save(path: str | os.PathLike[str], pool: RowPool, description: Description) -> None:
    """Write a pool and its description; one of a backend without files passes through a native pool. Raises
    InputError, BackendUnavailable, StoreError."""
    name = _name(path)
    if os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name):
        raise InputError(f"{name!r} is a device or a pipe, which no index file may replace: name a file")
    description = msgspec.structs.replace(description, rows=pool.stats()["rows"])
    if getattr(pool, "save", None) is None:
        native = _native().Pool(
            description.dim,
            len(description.columns),
            storage="f32"
            if description.storage == "pq"
            else description.storage,  # "pq" here: not trained yet
            metric=pool_metric(description.metric),
        )
        copy_rows(pool, native, description.dim, description.storage)
        pool = native
    cast(Any, pool).save(name, {SECTION: msgspec.json.encode(description)})


def load(path: str | os.PathLike[str], threads: int) -> tuple[RowPool, Description]:
    """The pool and the description in a file. Raises InputError, FormatError, IndexCorrupt,
    BackendUnavailable."""
    name = _name(path)
    pool, sections = _native().open_pool(name, threads=threads)
    if SECTION not in sections:
        raise FormatError(f"{name} holds rows but no vector index; it was written by something else")
    description = _read(bytes(sections[SECTION]), name)
    metric = pool_metric(description.metric)
    if CELLS in sections:
        pool = approximate().open_ivf(pool, sections, metric=metric, threads=threads)
        if len(description.columns) != pool.n_columns or description.dim != pool.dim:
            raise IndexCorrupt(f"{name}: section {SECTION} is not of these rows; restore a copy")
        return pool, _counted(description, pool, name)
    described = (description.dim, len(description.columns), metric, description.storage)
    found = (pool.dim, pool.n_columns, pool.metric, pool.storage)
    if description.trained and described != found:
        raise IndexCorrupt(
            f"{name}: section {SECTION} describes rows of {described[0]} dimensions, {described[1]} columns, "
            f"{metric} and {description.storage}, but they have {found[0]}, {found[1]}, {found[2]} and "
            f"{found[3]}; restore a copy"
        )
    return pool, _counted(description, pool, name)


def _counted(description: Description, pool: RowPool, name: str) -> Description:
    rows = pool.stats()["rows"]
    if description.rows not in (None, rows):
        raise IndexCorrupt(f"{name}: expected {description.rows} rows, found {rows}; restore a copy")
    return description


def pool_metric(metric: str) -> str:
    """What a pool calls the metric of an index whose rows are normalised where that is called for."""
    return "l2" if metric == "l2" else "dot"


def _read(text: bytes, name: str) -> Description:
    try:
        version = msgspec.json.decode(text).get("version")
        if isinstance(version, int) and version > VERSION:
            raise FormatError(
                f"{name} was written by a newer warpmem (vector index format {version}, this one reads up to "
                f"{VERSION}); upgrade warpmem"
            )
        description = msgspec.json.decode(text, type=Description)
        Columns(dict(description.columns), description.strings)
        return description
    except (AttributeError, ValueError) as error:  # those of msgspec and InputError are ValueErrors
        raise IndexCorrupt(f"{name}: section {SECTION} is not what was written; restore a copy") from error


def _name(path: Any) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path must be a path, not {type(path).__name__}")
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError("path must be text that is not empty, without a NUL character")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InputError(f"no file has the name {name!r}") from None
    return name


def _native() -> ModuleType:
    module, reason = cpu._load()
    if module is None:
        raise BackendUnavailable(
            f"saving and loading needs the native module: {reason}; reinstall warpmem for this platform"
        )
    return module
