"""Numbers -> charts as SVG text, coloured by the page's own style, each with its meaning in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from iqa_core.records import ScoreRange

WIDTH, HEIGHT, BASE = 400, 140, 118
"""Units of a chart's view box; BASE is the line that bars stand on."""

ANCHORS = ("start", "middle", "middle", "middle", "end")
"""Of the labels below a histogram, evenly from one end to the other; those at the ends stay inside of the chart."""


def histogram(name: str, counts: NDArray[np.int64], mean: float, labels: Sequence[str], ends: ScoreRange) -> Markup:
    """Bars over a range of scores, of several series on top of each other. counts: (series, bins), lowest first."""
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
        f'<text x="{_x(score, ends):.0f}" y="134" text-anchor="{anchor}">{score:g}</text>'
        for score, anchor in zip(np.linspace(ends.low, ends.high, len(ANCHORS)), ANCHORS, strict=True)
    )
    x = _x(mean, ends)
    mark = "" if np.isnan(mean) else f'<line class="mean" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{BASE}"/>'
    parts = ", ".join(f"{int(counts[i].sum()):,} {label}" for i, label in enumerate(labels))
    scale = f"the scale of {ends.worst:g} to {ends.best:g}"
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


def _x(score: float, ends: ScoreRange) -> float:
    return (ends.inside(score) - ends.low) / ends.width * WIDTH


def _svg(told: str, content: str) -> Markup:
    """The chart with its text for screen readers. content: made of numbers and fixed words alone, so never escaped."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        WIDTH, HEIGHT, told, escape(told)
    )
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
    return head + Markup(axis + content + "</svg>")
