"""A repair beside somebody who may write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import warpmem
from durability.damage import make_store
from warpmem.errors import StoreError


@pytest.mark.parametrize("function", ["open", "flock"])
def test_a_store_that_cannot_be_kept_from_writers_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Whatever kept the lock file from being opened was taken for a store without one."""
    store = tmp_path / "store"
    make_store(store, 1, items=10)
    real = os.open

    def refuse(what: object, *arguments: object, **options: object) -> int:
        if function == "flock" or str(what).endswith("store/warpmem.lock"):
            raise OSError(errno.ENOLCK, "refused")
        return real(what, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        if function == "open":
            patch.setattr(os, "open", refuse)
        else:
            patch.setattr("warpmem.storage.repair.fcntl.flock", refuse)
        with pytest.raises(StoreError, match="refused"):
            warpmem.repair(store, tmp_path / "new")
    (store / "warpmem.lock").unlink()
    assert warpmem.repair(store, tmp_path / "new").ok
