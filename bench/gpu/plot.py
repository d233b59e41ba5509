"""Results as one picture, without a plotting package: a panel for each family, latency by collection size.

In a panel each workload is a line of marks: its floor and its peers as multiples of our own time, on a
logarithmic axis, so what stands to the right of 1 is slower than ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

Result = dict[str, Any]
WIDTH, LINE, LEFT, RIGHT = 1280, 18, 640, 90
LEAST, MOST = 1 / 64, 64
COLOURS = {"ours": "#1f6f8b", "floor": "#9aa5b1"}
OTHERS = (
    "#c8553d", "#d9a441", "#8a5a83", "#5b8c5a", "#3f4e9a", "#b0752f", "#d37fb3", "#2bb3a3", "#6b6b1f",
    "#e0723c", "#7a4fd1", "#000000",
)  # fmt: skip
CHART_HEIGHT, CHART_WIDTH = 260, 520


def svg(results: Sequence[Result]) -> str:
    """The whole picture."""
    names = sorted({n for r in results for n, peer in r.get("peers", {}).items() if "ratio" in peer})
    colours = {**COLOURS, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(names)}}
    lines, y = _legend(colours)
    for family in dict.fromkeys(result["family"] for result in results):
        members = [r for r in results if r["family"] == family and "ours_ms" in r]
        if members:
            part, y = _panel(family, members, colours, y)
            lines += part
    part, y = _sizes(results, y)
    lines += part
    size = f'width="{WIDTH}" height="{y + 10:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    ground = '<rect x="0" y="0" width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, ground, *lines, "</svg>", ""])


def _legend(colours: dict[str, str]) -> tuple[list[str], float]:
    lines: list[str] = []
    x, y = 8.0, 20.0
    for name, colour in colours.items():
        width = 30 + 7.0 * len(name)
        if x + width > WIDTH:
            x, y = 8.0, y + LINE
        lines += [_mark(x + 5, y - 4, colour), _text(x + 14, y, name)]
        x += width
    return lines, y + 24


def _panel(family: str, members: list[Result], colours: dict[str, str], y: float) -> tuple[list[str], float]:
    lines = [_text(8, y, family.replace("_", " "), bold=True)]
    top = y + 6
    bottom = top + LINE * len(members) + 4
    for ratio in (1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64):
        x = _at(ratio)
        shade = "#444444" if ratio == 1 else "#dddddd"
        lines.append(_line(x, top, x, bottom, shade))
        label = f"{ratio:g}" if ratio >= 1 else f"1/{1 / ratio:g}"
        lines.append(_text(x - 8, bottom + 12, label, colour="#777777"))
    y = top
    for result in members:
        y += LINE
        lines.append(_text(16, y, f"{result['workload']}: {_time(result['ours_ms'])}"))
        times = {"floor": result.get("floor_ms")}
        times |= {name: peer.get("ms") for name, peer in result.get("peers", {}).items()}
        lines.append(_mark(_at(1.0), y - 4, colours["ours"]))
        for name, value in times.items():
            if value:
                lines.append(_mark(_at(value / result["ours_ms"]), y - 4, colours[name]))
        if result.get("met") is not None:
            word, shade = ("met", "#2e7d32") if result["met"] else ("not met", "#b3261e")
            lines.append(_text(WIDTH - RIGHT + 24, y, word, colour=shade))
    return lines, bottom + 40


def _sizes(results: Sequence[Result], y: float) -> tuple[list[str], float]:
    """Latency of host and device by rows of the collection, a chart for each batch."""
    there = [
        r for r in results if "rows" in r and "batch" in r and "ms" in r.get("peers", {}).get("host", {})
    ]
    lines: list[str] = []
    for number, batch in enumerate(sorted({r["batch"] for r in there})):
        points = sorted(
            (r["rows"], r["ours_ms"], r["peers"]["host"]["ms"]) for r in there if r["batch"] == batch
        )
        sizes, times = [p[0] for p in points], [t for p in points for t in p[1:]]
        x = 60 + number * (CHART_WIDTH + 110)
        lines.append(_text(x, y, f"milliseconds by rows, {batch} at a time", bold=True))
        frame = f'x="{x}" y="{y + 12:.1f}" width="{CHART_WIDTH}" height="{CHART_HEIGHT}"'
        lines.append(f'<rect {frame} fill="none" stroke="#999999"/>')

        def place(
            rows: float, ms: float, x: float = x, sizes: Any = sizes, times: Any = times
        ) -> tuple[float, float]:
            across = _share(rows, min(sizes), max(sizes)) * CHART_WIDTH
            return x + across, y + 12 + (1 - _share(ms, min(times), max(times))) * CHART_HEIGHT

        for column, name, colour in ((1, "device", COLOURS["ours"]), (2, "host", OTHERS[0])):
            placed = [place(p[0], p[column]) for p in points]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            lines += [_mark(a, b, colour) for a, b in placed]
            lines.append(_text(placed[-1][0] + 6, placed[-1][1] + 4, name, colour=colour))
        for rows in sizes:
            lines.append(_text(place(rows, times[0])[0] - 12, y + CHART_HEIGHT + 28, _short(rows)))
        for ms in (min(times), max(times)):
            lines.append(_text(x - 52, place(sizes[0], ms)[1] + 4, f"{ms:.3g}"))
    return lines, y + CHART_HEIGHT + 50 if there else y


def _share(value: float, least: float, most: float) -> float:
    return 0.5 if most <= least else math.log(value / least) / math.log(most / least)


def _at(ratio: float) -> float:
    return LEFT + _share(min(MOST, max(LEAST, ratio)), LEAST, MOST) * (WIDTH - LEFT - RIGHT)


def _time(ms: float) -> str:
    return f"{ms * 1e3:.3g} us" if ms < 1 else f"{ms:.3g} ms"


def _short(n: int) -> str:
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1000}k" if n >= 1000 else str(n)


def _mark(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.85"/>'


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, bold: bool = False, colour: str = "#222222") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}"{weight}>{escape(text)}</text>'
