"""A ladder and one of its images -> a picture: what was done to the image, and what became of the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_core.images.distortions import KINDS, STRENGTHS, Pixels, distort
from iqa_core.inspection.ladder import DIMENSIONS_SHOWN, Ladder
from iqa_core.records import RATING

COLOURS = ("#3b6fb6", "#d1772e", "#3f9b63", "#8a5bb0", "#b8484f", "#6d6d6d", "#b59b1f", "#2f9aa8")
INK, PALE = "#333333", "#dddddd"
INCHES_WIDE, INCHES_PER_ROW = 12.0, 1.75
DOTS_PER_INCH = 110


def draw(ladder: Ladder, example: Pixels, title: str, path: Path) -> None:
    """A PNG, a row per distortion: the example at each strength, then the mean change of score, quartiles shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = INCHES_PER_ROW * len(KINDS) + 1.0
    figure = Figure(figsize=(INCHES_WIDE, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(KINDS), STRENGTHS + 2, width_ratios=[1] * (STRENGTHS + 1) + [2.6], wspace=0.06, hspace=0.28,
        left=0.02, right=0.965, top=1 - 0.75 / height, bottom=0.35 / height,
    )  # fmt: skip
    shown = ladder.dimensions[:DIMENSIONS_SHOWN]
    ratings_NDSK = ladder.ratings_NDSK[..., : len(shown)]
    changes_NDSK = ratings_NDSK - ratings_NDSK[:, :, :1]
    quartiles = np.quantile(changes_NDSK, (0.25, 0.75), axis=0)
    span = (float(quartiles.min()) - 0.1, float(quartiles.max()) + 0.1)
    for d, kind in enumerate(KINDS):
        for strength in range(STRENGTHS + 1):
            _thumbnail(figure.add_subplot(grid[d, strength]), distort(example, kind, strength), kind, strength)
        _curves(figure.add_subplot(grid[d, STRENGTHS + 1]), changes_NDSK[:, d], span, is_last=d == len(KINDS) - 1)
    is_plain = all(ends == RATING for ends in ladder.ranges)
    changed = "change of score" if is_plain else "change of score, brought to 1 (worst) to 5 (best)"
    figure.text(0.02, 1 - 0.28 / height, title, fontsize=13, color=INK, weight="bold", va="center")
    figure.text(0.985, 1 - 0.28 / height, changed, fontsize=9.5, color=INK, ha="right", va="center")
    for k, name in enumerate(shown):
        x = 0.7 + 0.29 * k / len(shown)
        figure.text(x, 1 - 0.55 / height, name, fontsize=9.5, color=COLOURS[k % len(COLOURS)], weight="bold")
    figure.savefig(path)


def _thumbnail(axes: Any, pixels_HWC: Pixels, kind: str, strength: int) -> None:
    axes.imshow(pixels_HWC)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(PALE)
    if strength == 0:
        axes.set_title(kind, fontsize=10, color=INK, loc="left", pad=3, weight="bold")
    else:
        axes.set_title(str(strength), fontsize=8, color=INK, loc="center", pad=3)


def _curves(axes: Any, changes_NSK: NDArray[np.floating], span: tuple[float, float], is_last: bool) -> None:
    steps = np.arange(STRENGTHS + 1)
    for k in range(changes_NSK.shape[2]):
        colour = COLOURS[k % len(COLOURS)]
        low, high = np.quantile(changes_NSK[:, :, k], (0.25, 0.75), axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(steps, changes_NSK[:, :, k].mean(axis=0), color=colour, linewidth=1.8, marker="o", markersize=3)
    axes.set_xlim(-0.15, STRENGTHS + 0.15)
    axes.set_ylim(*span)
    axes.set_xticks(steps)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=7.5, colors=INK, length=2)
    axes.set_xlabel("strength" if is_last else "", fontsize=8, color=INK, labelpad=1)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
