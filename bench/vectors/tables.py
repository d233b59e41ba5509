"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_HEAD = """# Vector search beside faiss, hnswlib, usearch and scann

Made by `python bench/vectors/run.py`. {rows:,} rows of 384 dimensions, {real} real queries (all-MiniLM-L6-v2)
and {made} made as the rows are, none of them among the rows; recall@10 against float64 products. The real
queries judge: every second one chooses the settings, the others are measured. One thread searches. Each line
of a peer was measured in turns with warpmem in one process, so the ratio is what counts: above 1 warpmem is
so many times as fast, below 1 the peer is ahead. {policy}

{versions}
"""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if abs(value) >= 100:
            return f"{value:,.0f}"
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return " / ".join(_cell(part) for part in value)
    return str(value)


def _table(head: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    names = list(head)
    rows = [names, ["---"] * len(names), *([_cell(x) for x in line] for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _exact(lines: list[dict[str, Any]]) -> str:
    batches = sorted({line["batch"] for line in lines})
    by = {(line["system"], line["batch"]): line for line in lines}
    names = list(dict.fromkeys(line["system"] for line in lines))
    head = ["system", "recall"]
    for batch in batches:
        head += [f"ms a query, {batch:,} a call", "warpmem over it"]
    body = []
    for name in names:
        row: list[Any] = [name, by[name, batches[0]]["recall"]]
        for batch in batches:
            row += [by[name, batch]["ms_a_query"], by[name, batch]["warpmem_over_it"]]
        body.append(row)
    return "## Exact scan of all rows\n\n" + _table(head, body)


def _approximate(lines: list[dict[str, Any]], built: dict[str, Any], left_out: list[str]) -> str:
    out = ["## Approximate search at equal recall"]
    if left_out:
        out.append(f"Not built for this run: {'; '.join(left_out)}.")
    for target in sorted({line["target"] for line in lines}):
        for batch in sorted({line["batch"] for line in lines}):
            some = [line for line in lines if line["target"] == target and line["batch"] == batch]
            out.append(f"### recall@10 {target:g}, {batch:,} {'query' if batch == 1 else 'queries'} a call")
            reached = [line for line in some if line["setting"] is not None]
            reached.sort(key=lambda line: -line["warpmem_over_it"], reverse=True)
            body = [
                [
                    line["system"],
                    line["recall"],
                    line["recall_made"],
                    line["queries_a_second"],
                    line["warpmem_over_it"],
                    line["setting"],
                ]
                for line in reached
            ]
            body += [[line["system"], "not reached"] + [""] * 4 for line in some if line["setting"] is None]
            head = ["system", "recall", "of made ones", "queries a second", "warpmem over it", "setting"]
            out.append(_table(head, body))
    names = {line["key"]: line["system"] for line in lines}
    out.append("### Building")
    out.append(
        "Processor time, which other work on the machine hardly changes; bytes a row of what is written to "
        "disk. Codes of faiss are without the rows, which refining needs: 1,536 bytes more."
    )
    body = [
        [names.get(key, key), made["processor_s"], made["threads"], made["bytes_a_row"]]
        for key, made in built.items()
        if key != "warpmem"
    ]
    out.append(_table(["system", "processor seconds", "threads", "bytes a row"], body))
    return "\n\n".join(out)


def _filters(lines: list[dict[str, Any]]) -> str:
    body = [
        [
            f"{line['share']} %",
            line["system"],
            line.get("recall", "not reached"),
            line.get("ms_a_query"),
            line.get("warpmem_over_it"),
            line["setting"],
        ]
        for line in lines
    ]
    head = ["rows let through", "system", "recall", "ms a query", "warpmem over it", "setting"]
    return (
        "## With a filter, one query a call\n\nTuned to recall 0.95 of the rows that the filter lets through."
        " usearch's Python package and scann have no filter.\n\n" + _table(head, body)
    )


def _owners(lines: list[dict[str, Any]]) -> str:
    body = [[line["system"], line["recall"], line["us_a_query"], line["warpmem_over_it"]] for line in lines]
    return (
        "## One owner a query, 2,000 owners by Zipf's law, one query a call\n\n"
        "Peers have no owners; these are what one builds from them.\n\n"
        + _table(["system", "recall", "us a query", "warpmem over it"], body)
    )


def _changes(lines: list[dict[str, Any]]) -> str:
    names = {
        "adds_a_second": "adds a second, one by one",
        "adds_a_second_by_hundred": "by the hundred",
        "removes_a_second": "removes a second",
        "searches_a_second": "searches a second",
        "recall_after": "recall after",
        "new_rows_found": "new rows that find themselves",
    }
    body = [[line["system"], *(line.get(name) for name in names)] for line in lines]
    text = (
        "## Rows that come and go\n\nOne row comes, one goes and one query is answered, by turns on one "
        "thread, at the setting of recall 0.95.\n\n" + _table(["system", *names.values()], body)
    )
    for line in lines:
        if "search_us_p50_p99_alone" in line:
            text += (
                f"\n\n{line['system']} beside a thread that adds and removes a row by turns "
                f"({line['beside_pairs_a_second']:,.0f} pairs a second): a search takes "
                f"{_cell(line['search_us_p50_p99_beside'])} us (p50 / p99), alone "
                f"{_cell(line['search_us_p50_p99_alone'])} us. hnswlib's `add_items` may not run beside "
                "`knn_query`."
            )
    return text


def markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    parts = [_HEAD.format(**about).strip()]
    if "exact" in results:
        parts.append(_exact(results["exact"]))
    if "approximate" in results:
        parts.append(_approximate(results["approximate"], results["built"], results["left_out"]))
    if "filters" in results:
        parts.append(_filters(results["filters"]))
    if "owners" in results:
        parts.append(_owners(results["owners"]))
    if "changes" in results:
        parts.append(_changes(results["changes"]))
    return "\n\n".join(parts) + "\n"
