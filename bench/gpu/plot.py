"""Results as one picture, without a plotting package: each workload beside its floor and its peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LINE, LEFT, SCALE = 900, 18, 330, 90.0
COLOURS = {"ours": "#1f6f8b", "floor": "#9aa5b1"}
OTHERS = ("#c8553d", "#8a5a83", "#d9a441", "#5b8c5a", "#7f7f7f")


def svg(results: Sequence[dict[str, Any]]) -> str:
    """A bar for each time, as a multiple of ours; longer is slower."""
    names = sorted({name for result in results for name in result.get("peers", {})})
    colours = {**COLOURS, **{name: OTHERS[i % len(OTHERS)] for i, name in enumerate(names)}}
    lines: list[str] = []
    y = 24
    for result in results:
        if "ours_ms" not in result:
            lines.append(_text(8, y, f"{result['workload']}: {result.get('skipped', 'not measured')}"))
            y += LINE + 8
            continue
        times = {"ours": result["ours_ms"], "floor": result.get("floor_ms")}
        times |= {name: peer.get("ms") for name, peer in result.get("peers", {}).items()}
        lines.append(_text(8, y, f"{result['workload']} ({result['ours_ms']:.3f} ms)"))
        for name, value in times.items():
            if value is None:
                continue
            ratio = value / result["ours_ms"]
            width = min(WIDTH - LEFT - 90, ratio * SCALE)
            lines.append(
                f'<rect x="{LEFT}" y="{y - 11}" width="{width:.1f}" height="12" fill="{colours[name]}"/>'
            )
            lines.append(_text(LEFT + width + 6, y, f"{name} {ratio:.2f}x"))
            y += LINE
        y += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', *lines, "</svg>", ""])


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y}">{escape(text)}</text>'
