"""Opinions, and the scores of one or more assessors on them -> every figure that is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement.figures import (
    Agreement,
    Comparison,
    Figure,
    HumanCeiling,
    Uncertainty,
    agreement_by_dimension,
    compare,
    human_ceiling,
    separation,
    uncertainty,
)
from iqa_core.opinions.opinion import CUT_TEXT, Opinions
from iqa_core.records import RATING
from iqa_core.tables.scores.columns import REWARD
from jobs.evaluation.judged import Judged

OVERALL = "overall"


@dataclass(frozen=True, slots=True)
class Spread:
    """How far a figure moves from group to group; all None where no group has it."""

    groups: int
    """Number of groups in which the figure is defined."""
    low: float | None
    high: float | None
    std: float | None
    """Sample standard deviation over groups; None of fewer than two."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one assessor."""

    about: Mapping[str, str]
    agreement: Mapping[str, Agreement]
    """Dimension -> figures, with errors in units of its range; and `overall`, on 1..5, where there are several."""
    auc: Mapping[str, Figure]
    """Of the dimensions and statements with two answers."""
    uncertainty: Mapping[str, Uncertainty]
    failures: Mapping[str, int]
    groups: Mapping[str, Mapping[str, Agreement]]
    """Group -> the same as `agreement` on its opinions alone; empty where groups are not looked at."""
    spread: Mapping[str, Mapping[str, Spread]]
    """Dimension -> plcc and srcc -> over all groups."""
    parsed: Mapping[str, float | None]
    """Dimension -> share of the images with written answers of which one could be parsed; empty for closed sets."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that is reported."""

    datasets: Sequence[str]
    images: int
    assessors: Sequence[Figures]
    """The first is the one that the others are compared with."""
    differences: Sequence[Mapping[str, Comparison]]
    """Per assessor but the first, by dimension and overall: the first's figures less this one's."""
    ceiling: Mapping[str, HumanCeiling]
    """Dimension -> how well one rater agrees with the others, where single ratings are known."""
    dropped: Mapping[str, int]
    """Reason -> rows of the annotations without an opinion; with them, those whose text is cut."""
    held_out_by: str | None
    ungrouped: int
    """Opinions that belong to no group."""


def measured(
    opinions: Opinions, judged: Sequence[Judged], resamples: int, seed: int, held_out_by: str | None = None
) -> Evaluation:
    """All figures of one set of opinions and the scores that stand against them.

    held_out_by: what the opinions' groups are called; None looks at no groups.
    """
    mos_N = np.array([row.mos for row in opinions.rows])
    masks = _masks(opinions)
    ceilings = {
        name: human_ceiling([opinions.rows[n].raters for n in np.flatnonzero(mask)], resamples, seed)
        for name, mask in masks.items()
    }
    differences = [
        {
            name: compare(judged[0].scores_N[mask], other.scores_N[mask], mos_N[mask], resamples, seed)
            for name, mask in masks.items()
        }
        for other in judged[1:]
    ]
    cut = sum(row.is_cut for row in opinions.rows)
    return Evaluation(
        datasets=opinions.datasets,
        images=len(opinions.images),
        assessors=[_figures(opinions, each, resamples, seed, by_group=held_out_by is not None) for each in judged],
        differences=differences,
        ceiling={name: ceiling for name, ceiling in ceilings.items() if ceiling is not None},
        dropped={**opinions.dropped, **({CUT_TEXT: cut} if cut else {})},
        held_out_by=held_out_by,
        ungrouped=sum(row.group is None for row in opinions.rows) if held_out_by is not None else 0,
    )


def _figures(opinions: Opinions, judged: Judged, resamples: int, seed: int, *, by_group: bool) -> Figures:
    mos_N = np.array([row.mos for row in opinions.rows])
    group_N = np.array([row.group or "" for row in opinions.rows])
    masks = _masks(opinions)
    units = {name: judged.scale_of(name).range.width / RATING.width for name in opinions.dimensions}

    def agreed(chosen: NDArray[np.bool_]) -> dict[str, Agreement]:
        inside = {name: mask & chosen for name, mask in masks.items() if name != OVERALL and (mask & chosen).any()}
        pairs = {name: (judged.scores_N[mask], mos_N[mask]) for name, mask in inside.items()}
        found = agreement_by_dimension(pairs, resamples, seed)
        return {name: _in_units(one, units.get(name, 1.0)) for name, one in found.items()}

    groups = {name: agreed(group_N == name) for name in sorted(set(group_N.tolist()) - {""})} if by_group else {}
    return Figures(
        about=judged.about,
        agreement=agreed(np.ones(len(mos_N), bool)),
        auc={
            name: separation(judged.scores_N[masks[name]], mos_N[masks[name]], RATING.middle, resamples, seed)
            for name in opinions.dimensions
            if judged.scale_of(name).has_two_answers
        },
        uncertainty={
            name: uncertainty(judged.scores_N[mask], judged.spreads_N[mask], mos_N[mask], resamples, seed)
            for name, mask in masks.items()
            if name != REWARD  # which has no spread
        },
        failures=judged.failures,
        groups=groups,
        spread={name: _spreads([g[name] for g in groups.values() if name in g]) for name in masks} if groups else {},
        parsed={} if judged.unparsed_N is None else {name: _parsed(judged, mask) for name, mask in masks.items()},
    )


def _parsed(judged: Judged, mask: NDArray[np.bool_]) -> float | None:
    """Share of opinions with a score among those whose images were answered; None where none was."""
    assert judged.unparsed_N is not None
    scored, unparsed = np.isfinite(judged.scores_N[mask]).sum(), judged.unparsed_N[mask].sum()
    return float(scored / (scored + unparsed)) if scored + unparsed else None


def _in_units(found: Agreement, factor: float) -> Agreement:
    """The same with errors in units of which one of before has so many."""

    def scaled(figure: Figure) -> Figure:
        return Figure(*(None if one is None else one * factor for one in (figure.value, figure.low, figure.high)))

    return replace(found, rmse=scaled(found.rmse), mae=scaled(found.mae))


def _masks(opinions: Opinions) -> dict[str, NDArray[np.bool_]]:
    """Dimension -> its opinions, and `overall` where there are several."""
    name_N = np.array([row.dimension for row in opinions.rows])
    masks = {name: name_N == name for name in opinions.dimensions}
    return masks | ({OVERALL: np.ones(len(name_N), bool)} if len(masks) > 1 else {})


def _spreads(groups: Sequence[Agreement]) -> dict[str, Spread]:
    return {"plcc": _spread([found.plcc.value for found in groups]), "srcc": _spread([g.srcc.value for g in groups])}


def _spread(found: Sequence[float | None]) -> Spread:
    values = [value for value in found if value is not None]
    if not values:
        return Spread(0, None, None, None)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), min(values), max(values), std)
