"""Numbers -> charts as SVG text, coloured by the page's own style, each with its meaning in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from iqa_core.records import ScoreRange

WIDTH, HEIGHT, BASE = 400, 140, 118
"""Units of a chart's view box; BASE is the line that bars stand on."""

LEFT, RIGHT, TOP = 64, 396, 8
"""Where curves begin, end and are highest; left of them stand the ends of their axis."""
MAX_POINTS = 200
"""Of a curve: one per two units of its width, so that a page does not grow with a run."""
MAX_DOTS = 40
"""Points of a curve that are drawn as dots as well: a validation or two make no line."""

ANCHORS = ("start", "middle", "middle", "middle", "end")
"""Of the labels below a histogram, evenly from one end to the other; those at the ends stay inside of the chart."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of a run."""

    label: str
    points: Sequence[tuple[float, float]]
    """(step, value), in the order of steps; finite."""


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


def curves(name: str, lines: Sequence[Curve], bounds: Sequence[float]) -> Markup:
    """Figures over steps on one axis, each line of a colour and a dash of its own: two at most.

    lines: with a point each, at least; bounds: values that the axis holds in any case, such as 0 and 1 of a share.
    """
    pooled = [_pooled(np.array(line.points, np.float64)) for line in lines]
    first, last = min(line.points[0][0] for line in lines), max(line.points[-1][0] for line in lines)
    values = [*np.concatenate(pooled)[:, 1], *bounds]
    low, high = min(values), max(values)
    if low == high:  # the axis needs two ends; without a bound, a constant lies in its middle
        room = abs(high) or 1
        low, high = low - (0 if bounds else room), high + room
    drawn = []
    for series, points_P2 in enumerate(pooled):
        x_P = LEFT + (points_P2[:, 0] - first) / max(last - first, 1) * (RIGHT - LEFT)
        y_P = BASE - (points_P2[:, 1] - low) / (high - low) * (BASE - TOP)
        places = [(f"{x:.1f}", f"{y:.1f}") for x, y in zip(x_P, y_P, strict=True)]
        path = " ".join(map(",".join, places))
        drawn.append(f'<polyline class="line line{series}" points="{path}"/>')
        if len(places) <= MAX_DOTS:
            drawn += [f'<circle class="series{series}" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
    ticks = (
        f'<text x="{LEFT}" y="134">step {first:,.0f}</text>'
        f'<text x="{RIGHT}" y="134" text-anchor="end">step {last:,.0f}</text>'
        f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{BASE}" text-anchor="end">{low:.3g}</text>'
    )
    told = "; ".join(
        f"{line.label} {line.points[0][1]:.3g} at step {line.points[0][0]:,.0f}, {line.points[-1][1]:.3g} at step "
        f"{line.points[-1][0]:,.0f}"
        for line in lines
    )
    return _svg(f"{name} over steps: {told}", "".join(drawn) + ticks)


def _pooled(points_P2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points as they are, or means of neighbours where they are more than MAX_POINTS."""
    parts = np.array_split(points_P2, min(len(points_P2), MAX_POINTS))
    return np.array([part.mean(axis=0) for part in parts])


def _x(score: float, ends: ScoreRange) -> float:
    return (ends.inside(score) - ends.low) / ends.width * WIDTH


def _svg(told: str, content: str) -> Markup:
    """The chart with its text for screen readers. content: made of numbers and fixed words alone, so never escaped."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        WIDTH, HEIGHT, told, escape(told)
    )
    axis = f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>'
    return head + Markup(axis + content + "</svg>")
