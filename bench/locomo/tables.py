"""The report as Markdown, with a line for each bound and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HEAD = """Made by `python bench/locomo/run.py`. LoCoMo: Maharana et al., ACL 2024, CC BY-NC 4.0, not part of
warpmem. Recall is the share of a question's evidence, over {} questions that have some. The weights of
words and of hybrid were chosen on these conversations; figures of hybrid's without each conversation stand
below. Contexts: warpmem hybrid by `context(cite="number")`, all others as plain lines of number, kind, date
and text in the order of the hits, at most fifty, counted by the same tokenizer. "Late interaction" orders
the fifty best of hybrid by how well the token vectors of all-MiniLM-L6-v2 meet the query's, which it was
not trained for; a cross-encoder was not to be had from a package index. mem0 runs with infer=False,
threshold 0 and the same vectors, "by words too" with its extras (fastembed's BM25 and spaCy's lemmas).

Graphiti, LangMem and Hindsight have the same vectors, too, and no language model: none can be had here. What
each of them does best needs one, and **that is not measured**: Graphiti draws entities, facts and their times
from messages, LangMem writes and merges memories and makes queries from a question, Hindsight draws facts and
entities and forms observations. What is measured is how they keep texts and find them again, at the best of
their settings that needs no model.

- Graphiti: texts as facts between two entities by its bulk call, searched by EDGE_HYBRID_SEARCH_RRF (BM25
  and cosine) with a least similarity of 0 in place of 0.6, in Kuzu, where it finds more, and in FalkorDB,
  which takes adds faster and is measured with one embedder; or as episodes, which it searches by BM25
  alone. Its recipe by MMR found less, and node distance has nothing to go by here.
- LangMem: its memory tools over LangGraph's store in SQLite, with a write-ahead log and the text alone
  embedded; it searches by meaning only.
- Hindsight: its chunk mode with each text's day in its own PostgreSQL, at the budget "high", joined by
  ranks, for its cross-encoder comes from a model hub; without its graph, which has no entities here and
  costs recall."""
_RATES = """One call of each in turn. warpmem embeds texts and queries itself and searches in hybrid mode;
all others are given their vectors, "warpmem dense, vectors given" too, which searches by meaning alone as
LangMem does. Processor time is that of all threads, of FalkorDB and PostgreSQL too. All sync each add but
two: Hindsight starts its PostgreSQL without fsync, and "LangMem, nothing kept", LangGraph's store in
memory, loses all with its process. LangMem has no call for many memories; its store has one. Rates of adds
are those of the median call: a mean follows the disk's slowest syncs."""
_NAMES = {"wordllama": "wordllama (default)", "minilm": "all-MiniLM-L6-v2", "none": "-"}
_RECALL = {"wordllama": 0.66, "minilm": 0.72}
_QUESTIONS = 2
_MEM0 = "mem0"
_AHEAD = (10, 3, 20)
"""Times faster than mem0: searches, adds one by one, adds in batches."""
_ANY = (1, 1, 1)
"""Than the others."""
_OF_LOG, _PROBES = 0.9, 0.95


def markdown(report: dict[str, Any]) -> str:
    parts = [
        "# LoCoMo, five conversations",
        _HEAD.format(report["counts"]["overall"]),
    ]
    for granularity in ("turn", "observation"):
        rows = [row for row in report["rows"] if row["granularity"] == granularity]
        parts += [f"## {granularity.capitalize()}s", _table(report, rows)]
    parts += ["## Rates beside the peers, wordllama, turns", _RATES, _rates(report["rates"])]
    parts += ["## Weights chosen without the conversation", _held_out(report["leave_one_out"])]
    parts += ["## Bounds", _table_of(("bound", "figure", "met"), bounds(report))]
    return "\n\n".join(parts) + "\n"


def _table(report: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    categories = sorted(set(report["counts"]) - {"overall"})
    head = ["system", "embedder", "@1", "@5", "@10", "@20", *(f"@10 cat. {name}" for name in categories)]
    head += [f"within {report['budget']:,} tokens", "items"]
    lines = []
    for row in sorted(rows, key=lambda row: (row["embedder"] != "none", row["embedder"] == "minilm")):
        line = [row["system"], _NAMES[row["embedder"]]]
        if "recall" in row:
            line += [f"{row['recall']['overall'][k]:.3f}" for k in ("1", "5", "10", "20")]
            line += [f"{row['recall']['by_category'][name]['10']:.3f}" for name in categories]
        else:
            line += [""] * (4 + len(categories))
        packed = row.get("context")
        line += (
            ["", ""] if packed is None else [f"{packed['recall']['overall']:.3f}", f"{packed['items']:.1f}"]
        )
        lines.append(line)
    return _table_of(head, lines)


def _rates(found: dict[str, Any]) -> str:
    names = list(dict.fromkeys([*found["search_p50_ms"], *found["adds_per_s"]]))
    columns = ("search_p50_ms", "search_processor_p50_ms", "adds_per_s", "batched_adds_per_s")
    lines = [
        [name, *(f"{found[column][name]:,.2f}" if name in found[column] else "" for column in columns)]
        for name in names
    ]
    return _table_of(
        ("", "search p50, ms", "of processor", "adds/s, one by one", f"adds/s, {found['batch']} a call"),
        lines,
    )


def _held_out(found: dict[str, Any]) -> str:
    lines = [
        [name, f"{both['held out']:.3f}", f"{both['preset']:.3f}"]
        for name, both in found["recall_at_10"].items()
    ]
    chosen = "; ".join(
        f"without {name}: lexical {both['lexical']:g}, adjacent {both['adjacent']:g}"
        for name, both in found["weights"].items()
    )
    return f"{_table_of(('recall@10', 'held out', 'preset'), lines)}\n\n{chosen}."


def bounds(report: dict[str, Any]) -> list[list[str]]:
    """(bound, figure, "yes" or "no")."""
    lines: list[list[str]] = []

    def note(bound: str, figure: str, met: bool) -> None:
        lines.append([bound, figure, "yes" if met else "no"])

    rows = {(row["system"], row["embedder"], row["granularity"]): row for row in report["rows"]}
    for embedder, least in _RECALL.items():
        for granularity in ("turn", "observation"):
            ours = rows["warpmem hybrid", embedder, granularity]["recall"]
            if granularity == "turn":
                figure = ours["overall"]["10"]
                note(f"hybrid recall@10, {embedder}, turns >= {least}", f"{figure:.3f}", figure >= least)
            for (system, theirs_by, where), row in rows.items():
                if "recall" not in row or where != granularity or system.startswith("warpmem"):
                    continue
                if theirs_by not in (embedder, "none"):
                    continue
                ahead = ours["overall"]["10"] - row["recall"]["overall"]["10"]
                worst = min(
                    (values["10"] - row["recall"]["by_category"][name]["10"]) * report["counts"][name]
                    for name, values in ours["by_category"].items()
                )
                figure_text = f"{ahead:+.3f}; worst category {worst:+.1f} questions"
                note(
                    f"hybrid, {embedder}, {granularity}s, ahead of {system}; no category {_QUESTIONS} behind",
                    figure_text,
                    ahead > 0 and worst >= -_QUESTIONS - 1e-9,
                )
    for (system, embedder, granularity), row in rows.items():
        ours = rows.get(("warpmem hybrid", embedder, granularity), {}).get("context")
        if ours is not None and row.get("context") is not None and not system.endswith("late interaction"):
            ahead = ours["recall"]["overall"] - row["context"]["recall"]["overall"]
            if system != "warpmem hybrid":
                note(f"context, {embedder}, {granularity}s, ahead of {system}", f"{ahead:+.3f}", ahead > 0)
    found = report["rates"]
    for name in found["search_p50_ms"]:
        if name.startswith("warpmem"):
            continue
        faster, ones, many = _AHEAD if name.startswith(_MEM0) else _ANY
        times, processor = (
            found[of][name] / found[of]["warpmem"] for of in ("search_p50_ms", "search_processor_p50_ms")
        )
        note(
            f"search p50 >= {faster} times faster than {name}, by the clock and by processor time",
            f"{times:.1f}, {processor:.1f}",
            min(times, processor) >= faster,
        )
        times = found["adds_per_s"]["warpmem"] / found["adds_per_s"][name]
        share = found["adds_per_s"]["warpmem"] / found["adds_per_s"]["the log alone"]
        note(
            f"adds >= {ones} times {name}, or >= {_OF_LOG:.0%} of the log alone",
            f"{times:.1f} times, {share:.0%}",
            times >= ones or share >= _OF_LOG,
        )
        times = found["batched_adds_per_s"]["warpmem"] / found["batched_adds_per_s"][name]
        note(f"adds in batches >= {many} times {name}", f"{times:.1f}", times >= many)
    for line in report["keyword_probes"]:
        figure = float(line.rpartition("hybrid ")[2].split()[0])
        note(f"rare words, recall@1 in hybrid >= {_PROBES}", line.partition(": ")[2], figure >= _PROBES)
    return lines


def _table_of(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
