"""Figures -> Markdown for people and JSON for programs, with the published ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from iqa_core.agreement.figures import Agreement, Figure, HumanCeiling
from iqa_core.opinions.opinion import CUT_TEXT
from iqa_core.opinions.sa_bench import DATASET as SA_BENCH
from jobs.evaluation.figures import OVERALL, Evaluation, Figures, Spread

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


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Figures unrounded, the first assessor's at the top; what is not defined is null."""
    content = asdict(evaluation)
    first, *others = content.pop("assessors")
    for each in (first, *others):
        if not each["parsed"]:
            del each["parsed"]
    differences = content.pop("differences")
    content = first | content
    content["against"] = [other | {"difference": each} for other, each in zip(others, differences, strict=True)]
    if _is_sa_bench(evaluation):
        content["published"] = {
            name: {dimension: {"plcc": plcc, "srcc": srcc} for dimension, (plcc, srcc) in row.items()}
            for name, row in PUBLISHED.items()
        }
    return content


def to_markdown(evaluation: Evaluation) -> str:
    """Tables for people: agreement, assessors side by side, groups, uncertainty, and what to be wary of."""
    first, *others = evaluation.assessors
    lines = [
        "# Agreement with people",
        "",
        *(f"- {name}: {value}" for name, value in first.about.items()),
        f"- annotations: {', '.join(evaluation.datasets)}, {evaluation.images:,} images",
        "",
        *table(_agreement_rows(first, evaluation.ceiling)),
        "",
        "PLCC is that of the raw scores; fitted, RMSE and MAE are those after a logistic with four parameters. In",
        "brackets: 95 % bootstrap intervals. Scored and failed count opinions.",
    ]
    if "ranges" in first.about:
        lines += ["RMSE and MAE are in units of a dimension's own range, and overall of 1 to 5."]
    if first.auc:
        lines += ["AUC: share of pairs of an opinion for yes and one for no that the scores put in this order."]
    for other in others:
        lines += ["", f"## {label(other.about)}", "", *(f"- {name}: {value}" for name, value in other.about.items())]
        lines += ["", *table(_agreement_rows(other, evaluation.ceiling))]
    if others or _is_sa_bench(evaluation):
        lines += ["", "## Side by side", "", *table(_side_by_side_rows(evaluation)), "", "PLCC / SRCC."]
    if _is_sa_bench(evaluation):
        lines += ["Published: on SA-BENCH's own test files (arXiv 2512.05098), raw scores."]
    if others:
        lines += ["", f"{label(first.about)} less another, on the same resampled opinions:", ""]
        lines += table(_difference_rows(evaluation))
        lines += ["", "Ahead: share of resamples in which the first has the higher SRCC."]
    if evaluation.held_out_by is not None:
        for each in evaluation.assessors:
            lines += ["", f"## By {evaluation.held_out_by}: {label(each.about)}", "", *table(_group_rows(each))]
        lines += ["", "PLCC / SRCC on the opinions of one group alone; scored counts them."]
    lines += ["", "## Does the spread tell the error?", "", *table(_uncertainty_rows(evaluation))]
    lines += ["", "For normal errors of exactly the reported spread: within .68, slope 1; above 1 is too sure."]
    notes = list(_notes(evaluation))
    return "\n".join([*lines, *(["", "## Beware", "", *(f"- {note}" for note in notes)] if notes else [])])


def label(about: Mapping[str, str]) -> str:
    """What an assessor is called in tables: its checkpoint or score table, and its rubric."""
    return f"{about.get('assessor') or about['scores']}, {about['rubric']}"


def _is_sa_bench(evaluation: Evaluation) -> bool:
    return tuple(evaluation.datasets) == (SA_BENCH,)


def _agreement_rows(figures: Figures, ceiling: Mapping[str, HumanCeiling]) -> Iterator[list[str]]:
    told = ["parsed"] if figures.parsed else []
    auc = ["AUC"] if figures.auc else []
    yield ["dimension", "scored", "failed", *told, "PLCC", "fitted", "SRCC", "KRCC", *auc, "RMSE", "MAE", "one rater"]
    for name, found in figures.agreement.items():
        yield [
            name,
            f"{found.scored:,}",
            f"{found.failed:,}",
            *([value(figures.parsed[name])] if figures.parsed else []),
            *map(shown, (found.plcc, found.plcc_fitted, found.srcc, found.krcc)),
            *([shown(figures.auc[name]) if name in figures.auc else NOTHING] if auc else []),
            *map(shown, (found.rmse, found.mae)),
            _pair(ceiling.get(name)),
        ]


def _side_by_side_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    names = list(evaluation.assessors[0].agreement)
    yield ["", *names]
    for figures in evaluation.assessors:
        yield [label(figures.about), *(_pair(figures.agreement[name]) for name in names)]
    for title, row in PUBLISHED.items() if _is_sa_bench(evaluation) else ():
        yield [title, *("{:.3f} / {:.3f}".format(*row[name]) if name in row else NOTHING for name in names)]
    if evaluation.ceiling:
        yield ["one rater against the others", *(_pair(evaluation.ceiling.get(name)) for name in names)]


def _difference_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    yield ["less", "dimension", "opinions", "PLCC", "SRCC", "ahead"]
    for figures, differences in zip(evaluation.assessors[1:], evaluation.differences, strict=True):
        for name, found in differences.items():
            row = [f"{found.pairs:,}", shown(found.plcc), shown(found.srcc), value(found.first_ahead)]
            yield [label(figures.about), name, *row]


def _group_rows(figures: Figures) -> Iterator[list[str]]:
    names = list(figures.agreement)
    yield ["group", "scored", *names]
    for group, found in figures.groups.items():
        scored = sum(each.scored for name, each in found.items() if name != OVERALL)
        yield [group, f"{scored:,}", *(_pair(found.get(name)) for name in names)]
    for title, of in (("lowest", "low"), ("highest", "high"), ("standard deviation", "std")):
        yield [f"*{title}*", "", *(_ends(figures.spread[name], of) for name in names)]


def _ends(spread: Mapping[str, Spread], of: str) -> str:
    return f"{value(getattr(spread['plcc'], of))} / {value(getattr(spread['srcc'], of))}"


def _uncertainty_rows(evaluation: Evaluation) -> Iterator[list[str]]:
    several = len(evaluation.assessors) > 1
    yield [*(["assessor"] if several else []), "dimension", "SRCC of spread and error", "within one spread", "slope"]
    for figures in evaluation.assessors:
        for name, found in figures.uncertainty.items():
            row = [name, shown(found.srcc), value(found.within_one_spread), value(found.slope)]
            yield [*([label(figures.about)] if several else []), *row]


def _notes(evaluation: Evaluation) -> Iterator[str]:
    for figures in evaluation.assessors:
        whose = f"{label(figures.about)}: " if len(evaluation.assessors) > 1 else ""
        for name, found in figures.agreement.items():
            yield from (f"{whose}{name}: {flag}" for flag in found.flags)
        for reason, count in figures.failures.items():
            yield f"{whose}{count:,} opinions without a score: {reason}"
    if evaluation.ungrouped:
        yield f"{evaluation.ungrouped:,} opinions without {evaluation.held_out_by}: in no group"
    for reason, count in evaluation.dropped.items():
        what = "opinions on" if reason == CUT_TEXT else "rows of the annotations left out:"
        yield f"{count:,} {what} {reason}"


def table(rows: Iterator[list[str]]) -> Iterator[str]:
    """Rows, the first of which is the head -> lines of Markdown."""
    head = next(rows)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _pair(found: Agreement | HumanCeiling | None) -> str:
    return NOTHING if found is None else f"{value(found.plcc.value)} / {value(found.srcc.value)}"


def shown(figure: Figure) -> str:
    """A figure with three decimals, and its interval where it has one."""
    if figure.low is None or figure.high is None:
        return value(figure.value)
    return f"{value(figure.value)} [{figure.low:.3f}, {figure.high:.3f}]"


def value(number: float | None) -> str:
    """Three decimals; a dash where the number is not defined."""
    return NOTHING if number is None else f"{number:.3f}"
