"""Numbers -> charts as SVG text, coloured by the page's own style, each with its meaning in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT, BASE = 400, 140, 118
"""Units of a chart's view box; BASE is the line that bars stand on."""


def histogram(name: str, counts: NDArray[np.int64], mean: float, labels: Sequence[str]) -> Markup:
    """Bars over 1..5, of several series on top of each other. counts: (series, bins)."""
    highest = max(int(counts.sum(axis=0).max()), 1)
    step = WIDTH / counts.shape[1]
    bars = []
    for i in range(counts.shape[1]):
        foot = float(BASE)
        for series in range(counts.shape[0]):
            height = counts[series, i] / highest * (BASE - 8)
            if height:
                foot -= height
                bars.append(
                    f'<rect class="series{series}" x="{i * step + 0.5:.1f}" y="{foot:.1f}" width="{step - 1:.1f}" '
                    f'height="{height:.1f}"/>'
                )
    ticks = "".join(
        f'<text x="{(level - 1) / 4 * WIDTH:.0f}" y="134" text-anchor="{anchor}">{level}</text>'
        for level, anchor in ((1, "start"), (2, "middle"), (3, "middle"), (4, "middle"), (5, "end"))
    )
    mark = "" if np.isnan(mean) else f'<line class="mean" x1="{_x(mean)}" x2="{_x(mean)}" y1="2" y2="{BASE}"/>'
    parts = ", ".join(f"{int(counts[i].sum()):,} {label}" for i, label in enumerate(labels))
    told = "no scores" if np.isnan(mean) else f"mean {mean:.2f} on the scale of 1 to 5; {parts}"
    return _svg(f"Histogram of {name}: {told}", "".join(bars) + mark + ticks)


def progress_line(points: Sequence[Sequence[float]]) -> Markup:
    """Images over seconds. points: (seconds, images), ascending."""
    seconds, images = max(points[-1][0], 1e-9), max(points[-1][1], 1)
    path = " ".join(f"{s / seconds * WIDTH:.1f},{BASE - n / images * (BASE - 8):.1f}" for s, n in [(0, 0), *points])
    ticks = (
        f'<text x="0" y="134">0 s</text><text x="{WIDTH}" y="134" text-anchor="end">{seconds:,.0f} s</text>'
        f'<text x="0" y="12">{images:,.0f} images</text>'
    )
    told = f"Images that came back over time: {images:,.0f} in {seconds:,.0f} seconds"
    return _svg(told, f'<polyline class="line" points="{path}"/>{ticks}')


def _x(score: float) -> str:
    return f"{(min(max(score, 1.0), 5.0) - 1) / 4 * WIDTH:.1f}"


def _svg(told: str, content: str) -> Markup:
    """content: made of numbers and fixed words alone."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        WIDTH, HEIGHT, told, escape(told)
    )
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
    return head + Markup(axis + content + "</svg>")
