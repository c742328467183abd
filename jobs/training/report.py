"""Figures and texts of a training so far -> its page: what goes wrong, curves, and what the model writes over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from iqa_core.corpus.fetching import fetch_all
from iqa_core.records import ImageLimits, Rejection
from iqa_core.report.charts import Curve
from iqa_core.report.thumbnails import thumbnail
from iqa_core.report.training_page import Answer, Chart, Example, Section, TrainingReport, render_training
from iqa_core.storage.storage import Storage
from iqa_core.training.ranking.alarms import Alarm, alarms
from iqa_core.training.ranking.worth import BLIND_FIDELITY, CAPTION_PLCC, CAPTION_READ, CUT, DRAWN_PARSED, FIDELITY
from iqa_core.training.validation import PARSED, RANK
from jobs.training.records import FIGURES, NOT_CURVES, TEXTS, Record, RecordsFile

Points = Mapping[str, Sequence[tuple[float, float]]]
"""Name of a figure -> (step, value), by step; finite."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chart, for runs that have one of its figures."""

    title: str
    names: Sequence[str]
    labels: Sequence[str] = ()
    """Of the lines, where there are two."""
    bounds: Sequence[float] = ()
    """See `Chart`."""


SHARE, AMOUNT = (0.0, 1.0), (0.0,)
"""What the axis of a share, and of what is never negative, holds in any case."""


def _validated(title: str, name: str, bounds: Sequence[float] = ()) -> Wanted:
    """By the likeliest answer, or by level words; and by answers that are drawn."""
    return Wanted(title, (name, f"single_{name}"), ("greedy", "single answers"), bounds)


def _judged(title: str, name: str) -> Wanted:
    return Wanted(title, (name, f"{name}_base"), ("by the model", "by its base"), SHARE)


REWARD, REWARD_PART, REWARD_STD = "reward", "reward_", "reward_std"
AGREEMENT = {"srcc": "SRCC", "plcc": "PLCC", "auc": "AUC", "mae": "mean absolute error"}
"""Name of a figure of a validation -> its title; with an attribute behind it, that of the attribute."""

VALIDATION = (
    _validated("share of answers that are parsed", PARSED, SHARE),
    *(_validated(title, name) for name, title in AGREEMENT.items()),
    Wanted("loss of the validation part", ("validation_loss",)),
)
LOOKS = (Wanted("normalised fidelity", (FIDELITY, BLIND_FIDELITY), ("of answers", "of those about another image")),)
DRAWN = (
    Wanted("share that is parsed", (DRAWN_PARSED,), bounds=SHARE),
    Wanted("share that is cut", (CUT,), bounds=SHARE),
    Wanted("tokens of an answer", ("answer_tokens",), bounds=AMOUNT),
    Wanted("different texts about an image", ("distinct_texts",), bounds=AMOUNT),
    Wanted("spread of an image's numbers", ("spread",), bounds=AMOUNT),
    Wanted("spread of an image's rewards", (REWARD_STD,), bounds=AMOUNT),
    Wanted("share of images whose answers are worth the same", ("dead_groups",), bounds=SHARE),
    _judged("share of captions that a rating is read from", CAPTION_READ),
    _judged("PLCC of ratings that are read from captions", CAPTION_PLCC),
)
LEARNING = (
    Wanted("loss", ("loss",)),
    Wanted("divergence from the base, nats", ("kl",), bounds=AMOUNT),
    Wanted("entropy of the next token, nats", ("entropy",), bounds=AMOUNT),
    Wanted("share of tokens beyond the clip ratio", ("clipped",), bounds=AMOUNT),
    Wanted("norm of the gradient", ("gradient_norm",), bounds=AMOUNT),
    Wanted("learning rate", ("learning_rate",), bounds=AMOUNT),
)


@dataclass
class RunReport:
    """The page of a run, made of what lies in its output at the moment."""

    output: str
    storage: Storage
    facts: Sequence[tuple[str, str]]
    """What the run is: name and value of each line at the top."""
    _thumbnails: dict[str, str] = field(default_factory=dict)
    """Image -> data URI, or nothing where it cannot be had."""

    def page(self) -> bytes:
        """As HTML. Raises what reading the output raises."""
        figures, texts = (RecordsFile.of(self.output, self.storage, name).read() for name in (FIGURES, TEXTS))
        return render_training(
            TrainingReport(
                title=f"Training {self.output}",
                facts=[*self.facts, *_progress(figures)],
                attention=[(_when(alarm), alarm.text) for alarm in alarms(figures)],
                sections=list(sections(figures)),
                examples=list(self._examples(texts)),
            )
        )

    def _examples(self, texts: Sequence[Record]) -> Iterator[Example]:
        """By image, in the order in which they come at each validation."""
        by_image: dict[str, list[Record]] = {}
        for record in texts:
            by_image.setdefault(record["image"], []).append(record)
        self._fetch(by_image)
        for image, records in by_image.items():
            answers = [Answer(record["step"], record["text"], record["ratings"]) for record in records]
            yield Example(PurePath(image).name, self._thumbnails[image], records[-1]["opinions"], answers)

    def _fetch(self, images: Iterable[str]) -> None:
        """Thumbnails of images that are not known yet."""
        limits = ImageLimits()
        new = [image for image in images if image not in self._thumbnails]
        for image, data in zip(new, fetch_all(self.storage, ((image, None) for image in new), limits), strict=True):
            self._thumbnails[image] = "" if isinstance(data, Rejection) else thumbnail(data, limits) or ""


def sections(figures: Sequence[Record]) -> Iterator[Section]:
    """Charts of all figures that a run has, by what they are about; those that nobody has planned for at the end."""
    points = _points(figures)
    parts = [name for name in points if name.startswith(REWARD_PART) and name != REWARD_STD]
    attributes = [name.removeprefix("mae_") for name in points if name.startswith("mae_")]
    plan: dict[str, Sequence[Wanted]] = {
        "Validation": VALIDATION,
        "Rewards": [Wanted("reward", (REWARD,)), *(Wanted(_part(name), (name,)) for name in parts)],
        "Does it look at the image?": LOOKS,
        "Drawn answers": DRAWN,
        "Learning": LEARNING,
        "Validation by attribute": [
            _validated(f"{title} of {attribute}", f"{name}_{attribute}")
            for attribute in attributes
            for name, title in AGREEMENT.items()
        ],
    }
    planned = {name for wanted in plan.values() for chart in wanted for name in chart.names}
    plan["Machines"] = [Wanted(name.replace("_", " "), (name,)) for name in points if name not in planned]
    for title, wanted in plan.items():
        if charts := [_chart(one, points) for one in wanted if not points.keys().isdisjoint(one.names)]:
            yield Section(title, charts)


def _part(name: str) -> str:
    return f"reward: {name.removeprefix(REWARD_PART)}"


def _chart(wanted: Wanted, points: Points) -> Chart:
    """With the figures that there are; a line that is alone needs no name of its own."""
    there = [place for place, name in enumerate(wanted.names) if name in points]
    lines = [
        Curve(wanted.labels[place] if len(there) > 1 else wanted.title, points[wanted.names[place]]) for place in there
    ]
    return Chart(wanted.title, lines, wanted.bounds)


def _points(figures: Iterable[Record]) -> Points:
    found: dict[str, list[tuple[float, float]]] = {}
    for record in figures:
        for name, value in record.items():
            if name not in NOT_CURVES and math.isfinite(value):
                found.setdefault(name, []).append((record["step"], value))
    return found


def _progress(figures: Sequence[Record]) -> Iterator[tuple[str, str]]:
    if figures:
        yield "step", f"{figures[-1]['step']:,} of {figures[-1]['steps']:,}"
    if validated := [record for record in figures if RANK in record]:
        yield "best", f"the checkpoint of step {best(validated)['step']:,}"


def best(validated: Iterable[Record]) -> Record:
    """The figures of the checkpoint that is exported; of equals the last one's."""
    return max(validated, key=lambda record: (record[RANK], record["step"]))


def _when(alarm: Alarm) -> str:
    if alarm.is_on:
        return f"since step {alarm.first:,}"
    return f"step {alarm.first:,}" if alarm.first == alarm.last else f"steps {alarm.first:,} to {alarm.last:,}"
