"""Scores and opinions -> one picture: a scatter plot per assessor and dimension, each with its fitted logistic."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from iqa_core.agreement import Floats
from iqa_core.agreement.logistic import fit_logistic
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinions
from iqa_core.records import FIVE_LEVELS, RATING, ScoreRange
from jobs.evaluation.figures import Evaluation, Figures
from jobs.evaluation.judged import Judged
from jobs.evaluation.report import label

ENDINGS = (".png", ".svg", ".pdf")
POINT, LINE, INK, PALE = "#3b6fb6", "#d1772e", "#333333", "#dddddd"
INCHES = 2.9
DOTS_PER_INCH = 110
MARGIN = 0.05
"""Room for a point at both ends of an axis, as a share of its range."""


def require_plottable(path: str) -> None:
    """Raises CallerError, before anything is scored, when there is no matplotlib or the file is of no such kind."""
    if PurePosixPath(path).suffix not in ENDINGS:
        raise CallerError(f"--plots {path}: the picture's name ends in {', '.join(ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise CallerError("--plots needs matplotlib: pip install 'iqa-ray[plots]'")


def draw(opinions: Opinions, judged: Sequence[Judged], evaluation: Evaluation, kind: str) -> bytes:
    """A file of this kind (png, svg or pdf): a row per assessor, a column per dimension."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = opinions.dimensions
    figure = Figure(figsize=(INCHES * len(names), INCHES * len(judged)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    ranges = [judged[0].scale_of(name).range for name in names]
    shared: Any = True if len(set(ranges)) == 1 else "col"
    axes = figure.subplots(len(judged), len(names), squeeze=False, sharex=shared, sharey=shared)
    name_N = np.array([row.dimension for row in opinions.rows])
    mos_N = np.array([row.mos for row in opinions.rows])
    for row, (each, figures) in enumerate(zip(judged, evaluation.assessors, strict=True)):
        for column, (name, ends) in enumerate(zip(names, ranges, strict=True)):
            here = (name_N == name) & np.isfinite(each.scores_N)
            scores, moses = (_on(ends, values_N[here]) for values_N in (each.scores_N, mos_N))
            _scatter(axes[row, column], scores, moses, ends, _title(figures, name))
            if each is judged[-1]:
                axes[row, column].set_xlabel("score", fontsize=8, color=INK)
        axes[row, 0].set_ylabel(f"{label(figures.about)}\nmean opinion", fontsize=8, color=INK)
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()


def _title(figures: Figures, name: str) -> str:
    srcc = figures.agreement[name].srcc.value
    return name if srcc is None else f"{name}, SRCC {srcc:.3f}"


def _on(ends: ScoreRange, rated_N: Floats) -> Floats:
    """Scores or opinions on 1 (worst) to 5 (best), in a dimension's own range."""
    if ends == RATING:
        return rated_N
    return ends.worst + (rated_N - RATING.worst) / RATING.width * (ends.best - ends.worst)


def _scatter(axes: Any, scores_N: Floats, mos_N: Floats, ends: ScoreRange, title: str) -> None:
    axis = (ends.low - MARGIN * ends.width, ends.high + MARGIN * ends.width)
    axes.plot(axis, axis, color=PALE, linewidth=1, zorder=0)
    # points are pale where there are thousands, so that dense places show
    axes.scatter(scores_N, mos_N, s=9, color=POINT, alpha=max(0.15, min(0.8, 60 / max(1, len(mos_N)))), linewidths=0)
    fit = fit_logistic(scores_N, mos_N)
    if fit is not None:
        x = np.linspace(scores_N.min(), scores_N.max(), 100)
        axes.plot(x, fit(x), color=LINE, linewidth=1.6)
    ticks = np.linspace(ends.low, ends.high, FIVE_LEVELS.num_levels)
    axes.set(xlim=axis, ylim=axis, xticks=ticks, yticks=ticks, aspect="equal")
    axes.tick_params(labelsize=7.5, colors=INK, length=2)
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
