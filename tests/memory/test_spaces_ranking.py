"""Weights, quotas, rankings by kind and diversity, of searches that several spaces answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpmem
from image_models import ColourTextEmbedder, picture
from warpmem import Ranking, Scope, ScopeWeight
from warpmem.embed.hashing import HashingEmbedder
from warpmem.errors import InputError


def test_weights_quotas_and_kinds_over_several_spaces() -> None:
    """Against every hit of every scope in every space."""
    rng = np.random.default_rng(6)
    models: dict[str, Any] = {"image": ColourTextEmbedder(), "code": HashingEmbedder(48)}
    with warpmem.open(embedder=HashingEmbedder(32), embedders=models) as memory:
        scopes = [Scope(user_id="ann"), Scope(user_id="bob"), Scope(user_id="ann", run_id="r")]
        for n in range(90):
            whose: dict[str, Any] = {"user_id": ("ann", "bob")[n % 2], "run_id": (None, "r")[n // 2 % 2]}
            match n % 3:
                case 0:
                    memory.add(f"red text {n}", kind=("event", "message")[n % 4 // 2], **whose)
                case 1:
                    memory.add(image=picture(tuple(rng.integers(0, 2, 3) * 200)), blob=f"b{n}", **whose)
                case 2:
                    memory.add(code=f"red = {n % 5}", kind="event", **whose)
        ranking = Ranking(priority=0.1, by_kind={"message": Ranking(similarity=0.5)}, spaces={"code": 2.0})
        for shares in (
            [ScopeWeight(scopes[1], 2.0, 3)],
            [ScopeWeight(scopes[0], 2.0, 3), ScopeWeight(scopes[1])],
            [ScopeWeight(scopes[0], 0.5), ScopeWeight(scopes[1], 1.0, 2)],
            [ScopeWeight(scopes[0], 0.5), ScopeWeight(scopes[2], 2.0), ScopeWeight(scopes[1])],
        ):
            every = []
            for place, share in enumerate(shares):
                hits = memory.search("red", scope=share.scope, ranking=ranking, k=200)
                every += [(-share.weight * hit.score, place, hit.item.id) for hit in hits]
            for k in (1, 6, 20, 90):
                left = [share.quota or k for share in shares]
                wanted: dict[str, float] = {}
                for score, place, item in sorted(every):
                    if item not in wanted and left[place] and len(wanted) < k:
                        wanted[item] = -score
                        left[place] -= 1
                got = memory.search("red", scopes=shares, ranking=ranking, k=k)
                assert {hit.space for hit in got} <= {"text", "code", "image"}
                assert [(hit.item.id, hit.score) for hit in got] == list(wanted.items())
        (text,) = memory.search("red text 6", scopes=scopes, kinds=["message"], ranking=ranking, k=1)
        assert text.item.kind == "message" and text.score == pytest.approx(0.5 * text.parts["similarity"])
        halved = {"code": 0.5, "image": 0.0, "text": 0.0}
        by_kind = {"event": Ranking(similarity=2.0)}
        for hit in memory.search("red", scopes=scopes, ranking=Ranking(by_kind=by_kind, spaces=halved)):
            assert hit.space == "code" and hit.score == pytest.approx(hit.parts["similarity"])
        with pytest.raises(InputError, match="diversity is for one space"):
            memory.search("red", scopes=scopes, ranking=Ranking(diversity=0.5))
        alone = {"image": 0.0, "code": 0.0}
        assert len(memory.search("red", scopes=scopes, ranking=Ranking(diversity=0.5, spaces=alone))) == 10
