"""reason/fakes.py."""

from __future__ import annotations

import numpy as np
import pytest

from warpmem.errors import ModelError
from warpmem.reason.fakes import OverlapReranker, ScriptedLanguageModel
from warpmem.types import Message


def test_script_is_followed_and_recorded() -> None:
    model = ScriptedLanguageModel(["one", ModelError("down"), "two"])
    ask = [Message(role="user", content="hello")]
    assert model.complete(ask) == "one"
    with pytest.raises(ModelError, match="down"):
        model.complete(ask, max_tokens=5)
    assert model.complete(ask, schema={"type": "object"}) == "two"
    with pytest.raises(ModelError, match="the script has 3 answers, and this is call 4"):
        model.complete(ask)
    assert [call.max_tokens for call in model.calls] == [1024, 5, 1024, 1024]
    assert model.calls[2].schema == {"type": "object"}
    assert model.calls[0].messages == tuple(ask)
    assert model.model_id == "scripted"


def test_overlap() -> None:
    scores = OverlapReranker().rerank("The black Cat", ["a CAT, black!", "the black cat", "dog", ""])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.array([2 / 3, 1, 0, 0], np.float32))
    assert OverlapReranker().rerank("?!", ["a"]).tolist() == [0.0]
    assert OverlapReranker().rerank("a", []).shape == (0,)
