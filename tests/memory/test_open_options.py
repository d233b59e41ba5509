"""What `open` takes beside plain values."""

from __future__ import annotations

from pathlib import Path

import warpmem
from warpmem.embed.wordllama import WordLlamaEmbedder


def test_options_that_name_files_take_paths(tmp_path: Path) -> None:
    """They had to be strings, though `path` itself and every file of an embedder may be a Path."""
    tokenizer = Path(WordLlamaEmbedder.tokenizer_path())
    options = {"tokenizer": tokenizer, "migration_backup": tmp_path / "before"}
    with warpmem.open(embedder="hashing", **options) as memory:
        memory.add("Nadia lives in Porto.", user_id="u")
        assert memory.context("where?", user_id="u").counter == tokenizer.name
