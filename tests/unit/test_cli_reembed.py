"""`warpmem reembed`: the model changes, whatever it was."""

from __future__ import annotations

from pathlib import Path

import pytest

import warpmem
from commands import err
from reembedding import Hooked, check_vectors
from warpmem.cli import main
from warpmem.errors import EmbeddingError


def test_a_store_of_any_model_becomes_one_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    with warpmem.open(store, embedder=Hooked(16)) as memory:
        for n in range(20):
            memory.add(f"item {n}", user_id="ann", durability="os")

        def fail(texts: object) -> None:
            if len(halted.embedded) == 10:
                raise EmbeddingError("out of order")

        halted = Hooked(256, fail)
        with pytest.raises(EmbeddingError):
            memory.reembed(halted, batch=5)
    assert main(["reembed", "hashing", "--store", store, "--batch", "3", "--progress"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "reembed: [" in captured.err and "20 vectors," in captured.err
    assert "20 vectors: hashing-16-v1 (16 dimensions) -> hashing-256-v1 (256)" in captured.err
    with warpmem.open(store, embedder="hashing") as memory:
        assert check_vectors(memory) == 20
        assert memory.search("item 7", user_id="ann", k=1)[0].item.text == "item 7"
    assert "already" in err(capsys, "reembed", "hashing", "--store", store, code=1)
    assert "invalid choice" in err(capsys, "reembed", "other", "--store", store, code=2)
    assert "FormatError" in err(capsys, "reembed", "hashing", "--store", store + "-none", code=3)
