"""Figures of a training over its steps, and what its model wrote on the way -> one HTML file, as those of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iqa_core.report.charts import Curve, curves
from iqa_core.report.templates import filled


@dataclass(frozen=True, slots=True)
class Chart:
    """One or two figures on one axis."""

    title: str
    lines: Sequence[Curve]
    bounds: Sequence[float] = ()
    """Values that the axis holds in any case, such as 0 and 1 of a share."""


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under a heading."""

    title: str
    charts: Sequence[Chart]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was written about an image at one step."""

    step: int
    text: str
    ratings: Mapping[str, float] | None
    """Attribute -> 1 (worst) to 5 (best); None where the answer was not parsed."""


@dataclass(frozen=True, slots=True)
class Example:
    """An image of the validation part, and what was written about it over time."""

    name: str
    thumbnail: str
    """Data URI; empty where there is none."""
    opinions: Mapping[str, float]
    """Attribute -> 1 to 5, as people say."""
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Everything that stands on a page."""

    title: str
    facts: Sequence[tuple[str, str]]
    """Name and value of each line at the top."""
    attention: Sequence[tuple[str, str]]
    """What goes wrong: when, and in words."""
    sections: Sequence[Section]
    examples: Sequence[Example]


def render_training(report: TrainingReport) -> bytes:
    """The page; whatever comes from the data is escaped."""
    return filled(
        "training.html.jinja",
        report.title,
        report.facts,
        report=report,
        sections=[
            (
                section.title,
                [(chart, curves(chart.title, chart.lines, chart.bounds)) for chart in section.charts],
            )
            for section in report.sections
        ],
        examples=[(example, _table(example)) for example in report.examples],
    )


def _table(example: Example) -> tuple[list[str], list[tuple[str, list[str], str]]]:
    """Attributes; and by row what it is about, a number per attribute, and the text. The first is what people say."""
    known = [example.opinions, *(answer.ratings or {} for answer in example.answers)]
    names = list(dict.fromkeys(name for ratings in known for name in ratings))
    rows = [("people", _numbers(names, example.opinions), "")]
    rows += [(f"step {one.step:,}", _numbers(names, one.ratings or {}), one.text) for one in example.answers]
    return names, rows


def _numbers(names: Sequence[str], ratings: Mapping[str, float]) -> list[str]:
    return [f"{ratings[name]:.2f}" if name in ratings else "–" for name in names]
