"""Graphiti in its own process, without a language model: texts as facts of a graph, its own hybrid search.

    python peer_graphiti.py FOLDER TEXTS.json VECTORS.npy rrf|mmr|distance|episodes

Each text is a fact, an edge between two entities of the user, or with "episodes" an episode; Graphiti's own
bulk call saves it in Kuzu, with the vector that was made before. A stub in the language model's place fails
when it is asked. So there is nothing of what its language model does: no entities and facts drawn from
messages, no facts that end each other. "rrf" is EDGE_HYBRID_SEARCH_RRF, BM25 and cosine joined by their
ranks, "mmr" and "distance" are its recipes by those names, and episodes are searched by BM25 alone. The least
similarity is 0 here: at its default of 0.6 most facts are never seen.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import os
import sys
import time
import uuid
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
os.environ |= {"GRAPHITI_TELEMETRY_ENABLED": "false", "HOME": str(FOLDER)}
warnings.simplefilter("ignore")

import numpy as np
from graphiti_core import Graphiti
from graphiti_core.cross_encoder.client import CrossEncoderClient
from graphiti_core.edges import EntityEdge
from graphiti_core.embedder.client import EmbedderClient
from graphiti_core.llm_client.client import LLMClient
from graphiti_core.llm_client.config import LLMConfig
from graphiti_core.nodes import EntityNode, EpisodeType, EpisodicNode
from graphiti_core.search import search_config_recipes as recipes
from graphiti_core.search.search_config import EpisodeSearchConfig, EpisodeSearchMethod, SearchConfig
from graphiti_core.utils.bulk_utils import add_nodes_and_edges_bulk
from served import offline, serve

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NAMES = ("speaker", "listener")


class Known(EmbedderClient):
    """Vectors by text."""

    def __init__(self, texts: list[str], vectors: Any) -> None:
        self._by_text = dict(zip(texts, vectors.tolist(), strict=True))

    def __getitem__(self, text: str) -> list[float]:
        return self._by_text[text]

    async def create(self, input_data: Any) -> list[float]:
        return self._by_text[input_data if isinstance(input_data, str) else input_data[0]]


class NoModel(LLMClient):
    def __init__(self) -> None:
        super().__init__(LLMConfig(api_key="none", model="none"))

    async def _generate_response(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a language model was asked")


class NoReranker(CrossEncoderClient):
    async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
        raise RuntimeError("a reranker was asked")


def recipe(name: str) -> SearchConfig:
    if name == "episodes":
        return SearchConfig(episode_config=EpisodeSearchConfig(search_methods=[EpisodeSearchMethod.bm25]))
    found = {
        "rrf": recipes.EDGE_HYBRID_SEARCH_RRF,
        "mmr": recipes.EDGE_HYBRID_SEARCH_MMR,
        "distance": recipes.EDGE_HYBRID_SEARCH_NODE_DISTANCE,
    }[name].model_copy(deep=True)
    assert found.edge_config is not None
    found.edge_config.sim_min_score = 0.0
    return found


class Peer:
    def __init__(self, name: str) -> None:
        texts = json.loads(Path(sys.argv[2]).read_text())
        self.known = Known(texts, np.load(sys.argv[3]))
        self.search_config = recipe(name)
        self.episodes = name == "episodes"
        self.numbers: dict[str, int] = {}
        self.entities: dict[str, list[EntityNode]] = {}
        self.loop = asyncio.new_event_loop()
        self.graphiti = self.loop.run_until_complete(self._open())

    async def _open(self) -> Graphiti:
        import kuzu
        from graphiti_core.driver.kuzu_driver import KuzuDriver

        kuzu.Database = functools.partial(kuzu.Database, max_num_threads=1)

        driver = KuzuDriver(str(FOLDER / "graph"))
        await driver.graph_ops.build_indices_and_constraints(driver)
        return Graphiti(
            graph_driver=driver, llm_client=NoModel(), embedder=self.known, cross_encoder=NoReranker()
        )

    def _between(self, user: str) -> list[EntityNode]:
        if user not in self.entities:
            vector = next(iter(self.known._by_text.values()))
            nodes = [
                EntityNode(
                    uuid=f"{user}-{name}", name=name, group_id=user, created_at=NOW, name_embedding=vector
                )
                for name in NAMES
            ]
            self.loop.run_until_complete(
                add_nodes_and_edges_bulk(self.graphiti.driver, [], [], nodes, [], self.known)
            )
            self.entities[user] = nodes
        return self.entities[user]

    def _made(self, user: str, texts: list[str]) -> list[Any]:
        """The facts or the episodes, each with an id of its own."""
        if self.episodes:
            return [
                EpisodicNode(
                    uuid=str(uuid.uuid4()), name="turn", group_id=user, source=EpisodeType.message,
                    source_description="chat", content=text, valid_at=NOW, created_at=NOW,
                )
                for text in texts
            ]  # fmt: skip
        source, target = self._between(user)
        return [
            EntityEdge(
                uuid=str(uuid.uuid4()), group_id=user, source_node_uuid=source.uuid,
                target_node_uuid=target.uuid, name="SAYS", fact=text, fact_embedding=self.known[text],
                created_at=NOW, valid_at=NOW,
            )
            for text in texts
        ]  # fmt: skip

    def _save(self, made: list[Any]) -> None:
        facts, episodes = ([], made) if self.episodes else (made, [])
        self.loop.run_until_complete(
            add_nodes_and_edges_bulk(self.graphiti.driver, episodes, [], [], facts, self.known)
        )

    def fill(self, user: str, texts: list[str], days: list[str]) -> None:
        """Store what is numbered from 0."""
        made = self._made(user, texts)
        self.numbers.update({one.uuid: number for number, one in enumerate(made)})
        self._save(made)

    def add(self, user: str, texts: list[str], numbers: list[int]) -> float:
        """Seconds for all, one call each."""
        made = [self._made(user, [text]) for text in texts]
        started = time.perf_counter()
        for one in made:
            self._save(one)
        return time.perf_counter() - started

    def add_batch(self, user: str, texts: list[str]) -> float:
        """Seconds for all in one call."""
        made = self._made(user, texts)
        started = time.perf_counter()
        self._save(made)
        return time.perf_counter() - started

    def search(self, user: str, query: str, k: int, by: str = "") -> tuple[list[int], float, float]:
        """(numbers of what was found, best first, seconds, seconds of processor)."""
        chosen = recipe(by) if by else self.search_config
        config = chosen.model_copy(update={"limit": k})
        started, worked = time.perf_counter(), time.process_time()
        found = self.loop.run_until_complete(
            self.graphiti.search_(query, config, group_ids=[user], center_node_uuid=f"{user}-{NAMES[0]}")
        )
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        return [self.numbers[one.uuid] for one in found.edges or found.episodes], seconds, processor

    def about(self) -> dict[str, Any]:
        names = ("graphiti-core", "kuzu")
        return {name: importlib.metadata.version(name) for name in names}


def main() -> None:
    offline()
    peer = Peer(sys.argv[4])
    serve(
        {
            "fill": peer.fill,
            "add": peer.add,
            "add_batch": peer.add_batch,
            "search": peer.search,
            "about": peer.about,
        }
    )


main()
