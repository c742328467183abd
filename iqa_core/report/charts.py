"""Numbers -> charts as SVG text, coloured by the page's own style, each with its meaning in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from iqa_core.records import FIVE_LEVELS

WIDTH, HEIGHT, BASE = 400, 140, 118
"""Units of a chart's view box; BASE is the line that bars stand on."""

ENDS = {FIVE_LEVELS.worst: "start", FIVE_LEVELS.best: "end"}
"""Level -> which end of its label stands below it, so that the label stays inside of the chart."""


def histogram(name: str, counts: NDArray[np.int64], mean: float, labels: Sequence[str]) -> Markup:
    """Bars over the scale, of several series on top of each other. counts: (series, bins)."""
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
        f'<text x="{_x(level):.0f}" y="134" text-anchor="{ENDS.get(level, "middle")}">{level}</text>'
        for level in FIVE_LEVELS.levels
    )
    mark = "" if np.isnan(mean) else f'<line class="mean" x1="{_x(mean):.1f}" x2="{_x(mean):.1f}" y1="2" y2="{BASE}"/>'
    parts = ", ".join(f"{int(counts[i].sum()):,} {label}" for i, label in enumerate(labels))
    scale = f"the scale of {FIVE_LEVELS.worst} to {FIVE_LEVELS.best}"
    told = "no scores" if np.isnan(mean) else f"mean {mean:.2f} on {scale}; {parts}"
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


def _x(score: float) -> float:
    worst, best = FIVE_LEVELS.worst, FIVE_LEVELS.best
    return (min(max(score, worst), best) - worst) / (best - worst) * WIDTH


def _svg(told: str, content: str) -> Markup:
    """The chart with its text for screen readers. content: made of numbers and fixed words alone, so never escaped."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        WIDTH, HEIGHT, told, escape(told)
    )
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
    return head + Markup(axis + content + "</svg>")
