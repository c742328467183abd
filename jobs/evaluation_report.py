"""Opinions and scores -> figures per dimension and overall, as Markdown for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from iqa_core.agreement import (
    Agreement,
    Figure,
    HumanCeiling,
    Uncertainty,
    agreement_by_dimension,
    human_ceiling,
    uncertainty,
)
from iqa_core.opinions.opinion import Opinions
from iqa_core.opinions.sa_bench import DATASET as SA_BENCH
from jobs.judged import Judged

OVERALL = "overall"
NOTHING = "–"

PUBLISHED = {
    "SA-IQA, prompt 4": {
        OVERALL: (0.864, 0.860),
        "layout": (0.843, 0.848),
        "harmony": (0.896, 0.894),
        "lighting": (0.817, 0.818),
        "distortion": (0.657, 0.596),
    },
    "SA-IQA, prompt 1": {OVERALL: (0.857, 0.855), "distortion": (0.575, 0.552)},
}
"""PLCC and SRCC on SA-BENCH's test files, as published (arXiv 2512.05098); the raw scores' PLCC."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that is reported."""

    about: Mapping[str, str]
    datasets: Sequence[str]
    images: int
    agreement: Mapping[str, Agreement]
    """Dimension -> figures, and `overall` where there are several."""
    uncertainty: Mapping[str, Uncertainty]
    ceiling: Mapping[str, HumanCeiling]
    """Only where single ratings are known."""
    failures: Mapping[str, int]
    dropped: Mapping[str, int]


def measured(opinions: Opinions, judged: Judged, resamples: int, seed: int) -> Evaluation:
    """All figures of one set of opinions and the scores that stand against them."""
    mos_N = np.array([row.mos for row in opinions.rows])
    names = np.array([row.dimension for row in opinions.rows])
    masks = {name: names == name for name in opinions.dimensions}
    agreed = agreement_by_dimension(
        {name: (judged.scores_N[mask], mos_N[mask]) for name, mask in masks.items()}, resamples, seed
    )
    everything = masks | ({OVERALL: np.ones(len(names), bool)} if OVERALL in agreed else {})
    ceilings = {
        name: human_ceiling([opinions.rows[n].raters for n in np.flatnonzero(mask)], resamples, seed)
        for name, mask in everything.items()
    }
    return Evaluation(
        about=judged.about,
        datasets=opinions.datasets,
        images=len(opinions.images),
        agreement=agreed,
        uncertainty={
            name: uncertainty(judged.scores_N[mask], judged.spreads_N[mask], mos_N[mask], resamples, seed)
            for name, mask in everything.items()
        },
        ceiling={name: ceiling for name, ceiling in ceilings.items() if ceiling is not None},
        failures=judged.failures,
        dropped=opinions.dropped,
    )


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Figures unrounded; what is not defined is null."""
    content = asdict(evaluation)
    if _is_sa_bench(evaluation):
        content["published"] = {
            name: {dimension: {"plcc": plcc, "srcc": srcc} for dimension, (plcc, srcc) in row.items()}
            for name, row in PUBLISHED.items()
        }
    return content


def to_markdown(evaluation: Evaluation) -> str:
    """Tables for people: agreement, the published figures for SA-BENCH, uncertainty, and what to be wary of."""
    lines = [
        "# Agreement with people",
        "",
        *(f"- {name}: {value}" for name, value in evaluation.about.items()),
        f"- annotations: {', '.join(evaluation.datasets)}, {evaluation.images:,} images",
        "",
        *_table(_agreement_rows(evaluation)),
        "",
        "PLCC is that of the raw scores; fitted, RMSE and MAE are those after a logistic with four parameters. In",
        "brackets: 95 % bootstrap intervals. Scored and failed count opinions.",
    ]
    if _is_sa_bench(evaluation):
        lines += ["", "## Beside the published figures", "", *_table(_published_rows(evaluation))]
        lines += ["", "PLCC / SRCC. Published: on SA-BENCH's own test files (arXiv 2512.05098)."]
    lines += ["", "## Does the spread tell the error?", "", *_table(_uncertainty_rows(evaluation))]
    lines += ["", "For normal errors of exactly the reported spread: within .68, slope 1; above 1 is too sure."]
    notes = list(_notes(evaluation))
    return "\n".join([*lines, *(["", "## Beware", "", *(f"- {note}" for note in notes)] if notes else [])])


def _is_sa_bench(evaluation: Evaluation) -> bool:
    return tuple(evaluation.datasets) == (SA_BENCH,)


def _agreement_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    yield ["dimension", "scored", "failed", "PLCC", "fitted", "SRCC", "KRCC", "RMSE", "MAE", "one rater"]
    for name, found in evaluation.agreement.items():
        yield [
            name,
            f"{found.scored:,}",
            f"{found.failed:,}",
            *map(_shown, (found.plcc, found.plcc_fitted, found.srcc, found.krcc, found.rmse, found.mae)),
            _ceiling(evaluation.ceiling.get(name)),
        ]


def _ceiling(found: HumanCeiling | None) -> str:
    return NOTHING if found is None else f"{_value(found.plcc.value)} / {_value(found.srcc.value)}"


def _published_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    names = list(evaluation.agreement)
    yield ["", *names]
    yield [
        "this assessor",
        *(f"{_value(found.plcc.value)} / {_value(found.srcc.value)}" for found in evaluation.agreement.values()),
    ]
    for title, row in PUBLISHED.items():
        yield [title, *("{:.3f} / {:.3f}".format(*row[name]) if name in row else NOTHING for name in names)]
    yield ["one rater against the others", *(_ceiling(evaluation.ceiling.get(name)) for name in names)]


def _uncertainty_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    yield ["dimension", "SRCC of spread and error", "within one spread", "slope"]
    for name, found in evaluation.uncertainty.items():
        yield [name, _shown(found.srcc), _value(found.within_one_spread), _value(found.slope)]


def _notes(evaluation: Evaluation) -> Iterator[str]:
    for name, found in evaluation.agreement.items():
        yield from (f"{name}: {flag}" for flag in found.flags)
    for reason, count in evaluation.failures.items():
        yield f"{count:,} opinions without a score: {reason}"
    for reason, count in evaluation.dropped.items():
        yield f"{count:,} rows of the annotations left out: {reason}"


def _table(rows: Iterator[list[str]]) -> Iterator[str]:
    head = next(rows)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _shown(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return _value(figure.value)
    return f"{_value(figure.value)} [{figure.low:.3f}, {figure.high:.3f}]"


def _value(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.3f}"
