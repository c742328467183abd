"""A checkpoint, and what ranking made of it, asked about the same scenes -> what the training changed.

A single answer is what scoring with one drawn sample sees. Its rank correlation with the truth is compared on answers
that are parsed before and after, so that a model gains nothing by leaving out what is hard.

    python -m iqa_core.demo.ranked --before ranked/guessing/checkpoint --after ranked/run-0/checkpoint \\
        --annotations held-out/annotations.csv --annotations held-out/quality.csv --output ranked.json

Shape suffixes: N images, K answers that are drawn about each, A attributes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement import Floats, spearman
from iqa_core.agreement.figures import RESAMPLES, Figure, bootstrapped
from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import read_file
from iqa_core.assessor.load import describe, fingerprint, own_limits
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.demo.card import shown
from iqa_core.errors import DONE, CallerError, exit_code
from iqa_core.flags import StrictParser
from iqa_core.images.preparing import prepare
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinions
from iqa_core.records import Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written import Decoding
from iqa_core.rubrics.written.rubric import OVERALL
from iqa_core.storage.outputs import local_output
from iqa_core.written.form import Form
from iqa_core.written.judging import Sample
from iqa_core.written.parsing import Parsed

SINGLE_SRCC, PARSED = "single answers, SRCC", "single answers, parsed"
MEAN_SRCC, MEAN_MAE = "mean of drawn answers, SRCC", f"mean of drawn answers, MAE of {OVERALL}"
GREEDY_SRCC, GREEDY_PARSED, GREEDY_MAE = "greedy, SRCC", "greedy, parsed", f"greedy, MAE of {OVERALL}"
NAMES = (SINGLE_SRCC, PARSED, MEAN_SRCC, MEAN_MAE, GREEDY_SRCC, GREEDY_PARSED, GREEDY_MAE)
"""Names of figures. An SRCC is the mean over attributes, and over drawn answers; errors are in points, uncalibrated."""

MOST_ANSWERS = 64
"""Most that a rubric can ask for."""

Figures = Mapping[str, Figure]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Said:
    """What a checkpoint says about each image, on 1 (worst) to 5 (best); NaN is an answer that is not parsed."""

    greedy_NA: Floats
    drawn_NKA: Floats

    def about(self, picks: NDArray[np.intp]) -> Said:
        """What it says about the images of these indices."""
        return Said(self.greedy_NA[picks], self.drawn_NKA[picks])

    @property
    def is_parsed_NK(self) -> NDArray[np.bool_]:
        """Whether a drawn answer is parsed; one has all of its numbers or none."""
        return np.asarray(np.isfinite(self.drawn_NKA).all(axis=2))

    @property
    def mean_NA(self) -> Floats:
        """Mean of the drawn answers about each image that are parsed; NaN where none is."""
        is_parsed_NK = self.is_parsed_NK
        sum_NA = np.where(is_parsed_NK[:, :, None], self.drawn_NKA, 0).sum(axis=1)
        count_N = is_parsed_NK.sum(axis=1, dtype=np.float64)
        return np.asarray(sum_NA / np.where(count_N > 0, count_N, np.nan)[:, None])


@dataclass(frozen=True, slots=True)
class Change:
    """One training: name of a figure -> its value, and what it grew by."""

    before: Figures
    after: Figures
    grown: Figures


@dataclass(frozen=True, slots=True)
class Ranked:
    """Trainings that began from one checkpoint, such as with different seeds."""

    images: int
    answers: int
    """Drawn about each image."""
    changes: tuple[Change, ...]
    grown: Figures
    """Mean over the trainings."""


def figures_of(said: Said, is_compared_NK: NDArray[np.bool_], y_NA: Floats, overall: int) -> dict[str, float]:
    """Name -> figure of one checkpoint; NaN where it is not defined.

    is_compared_NK: the drawn answers whose SRCC is taken. y_NA: what is true, on 1..5. overall: the attribute whose
    error is taken.
    """
    attributes, answers = range(y_NA.shape[1]), range(is_compared_NK.shape[1])
    single = [_srcc(said.drawn_NKA[:, k, a], y_NA[:, a], is_compared_NK[:, k]) for a in attributes for k in answers]
    mean_srcc, _, mean_mae = _of_one_answer(said.mean_NA, y_NA, overall)
    values = [float(np.mean(single)), float(said.is_parsed_NK.mean()), mean_srcc, mean_mae]
    return dict(zip(NAMES, [*values, *_of_one_answer(said.greedy_NA, y_NA, overall)], strict=True))


def _of_one_answer(said_NA: Floats, y_NA: Floats, overall: int) -> tuple[float, float, float]:
    """SRCC, share of the images, and error, where there is one answer about each image."""
    is_there_N = np.asarray(np.isfinite(said_NA).all(axis=1))
    srcc = [_srcc(said_NA[:, a], y_NA[:, a], is_there_N) for a in range(y_NA.shape[1])]
    error_N = np.abs(said_NA - y_NA)[is_there_N, overall]
    return float(np.mean(srcc)), float(is_there_N.mean()), float(error_N.mean()) if error_N.size else np.nan


def ranked(
    before: Said, afters: Sequence[Said], y_NA: Floats, overall: int, resamples: int = RESAMPLES, seed: int = 0
) -> Ranked:
    """What each training changed, and on average. Intervals are over images: all that is said of one stays together.

    y_NA: what is true of the images, on 1..5. overall: the attribute whose error is taken.
    """

    def measured(picks: NDArray[np.intp]) -> list[float]:
        first, y, values = before.about(picks), y_NA[picks], []
        for after in afters:
            then = after.about(picks)
            both = first.is_parsed_NK & then.is_parsed_NK
            old, new = (np.array([*figures_of(one, both, y, overall).values()]) for one in (first, then))
            values.append([old, new, new - old])
        grown = np.mean([row[-1] for row in values], axis=0)
        return np.concatenate([*np.concatenate(values), grown]).tolist()

    count = len(y_NA)
    found = iter(bootstrapped(measured, measured(np.arange(count)), count, resamples, seed))

    def named() -> Figures:
        return {name: next(found) for name in NAMES}

    changes = tuple(Change(named(), named(), named()) for _ in afters)
    return Ranked(count, before.drawn_NKA.shape[1], changes, named())


def _srcc(said_N: Floats, y_N: Floats, is_compared_N: NDArray[np.bool_]) -> float:
    return spearman(said_N[is_compared_N], y_N[is_compared_N])


def table(found: Ranked) -> Iterator[str]:
    """Lines of Markdown: a row per figure; before, after each training, and what it grew by on average."""
    yield f"| | before | {' | '.join(f'after {n}' for n, _ in enumerate(found.changes, 1))} | change |"
    yield "|---" * (len(found.changes) + 3) + "|"
    for name, grown in found.grown.items():
        # answers that are compared differ from training to training, by what is parsed after it
        first = np.mean([_value(change.before[name]) for change in found.changes])
        values = [float(first), *(_value(change.after[name]) for change in found.changes)]
        yield f"| {name} | {' | '.join('–' if np.isnan(one) else shown(one) for one in values)} | {_grown(grown)} |"


def _grown(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    return f"{figure.value:+.3f}" + ("" if figure.low is None else f" ({figure.low:+.3f} to {figure.high:+.3f})")


def _value(figure: Figure) -> float:
    return np.nan if figure.value is None else figure.value


def said_by(spec: AssessorSpec, config: AssessorConfig, images: Sequence[Path], answers: int) -> Said:
    """What a checkpoint writes about the images. Raises CallerError for one that cannot be read or written about."""
    assert isinstance(spec.rubric, WrittenRubric)
    rubric, kept = spec.rubric, spec.rubric.decoding.model_dump(include={"max_new_tokens", "stop", "suppress_image"})
    greedy, drawn = Decoding(**kept), Decoding(samples=answers, temperature=1, **kept)
    numbers = [
        _numbers(spec, rubric.model_copy(update={"decoding": decoding}), config, images) for decoding in (greedy, drawn)
    ]
    return Said(numbers[0][:, 0], numbers[1])


def _numbers(spec: AssessorSpec, rubric: WrittenRubric, config: AssessorConfig, images: Sequence[Path]) -> Floats:
    """The numbers of all answers by the rubric's decoding, (N, K, A)."""
    from iqa_core.assessor.model.writing import WritingAssessor

    assert isinstance(spec.preparer, ModelPreparer)
    parts = {**spec.fingerprint_parts, "decoding": rubric.decoding.describe()}
    folder, key = materialise(config.checkpoint), fingerprint(parts)
    assessor = WritingAssessor.load(folder, rubric, spec.preparer, parts["dtype"], key, config)
    found = assessor.answers([_taken(_prepared(path, spec.preparer), path) for path in images])
    said = [_taken(one, path) for one, path in zip(found, images, strict=True)]
    return np.array([[_ratings(Sample(one.text, one.finish), rubric.form) for one in of_image] for of_image in said])


def _ratings(answer: Sample, form: Form) -> list[float]:
    """Its numbers, each brought to 1..5; NaN where it is not parsed."""
    found = answer.parsed(form)
    if not isinstance(found, Parsed):
        return [np.nan] * len(form.attributes)
    return [one.range.rating(value) for one, value in zip(form.attributes, found.values, strict=True)]


def _prepared(path: Path, preparer: ModelPreparer) -> NDArray[np.uint8] | Rejection:
    data = read_file(path)
    return data if isinstance(data, Rejection) else prepare(data, preparer)


def _taken(found: T | Rejection, path: Path) -> T:
    if isinstance(found, Rejection):
        raise CallerError(
            f"{path}: {found.reason} ({found.detail}); figures are of images that can all be written about"
        )
    return found


def truths_of(opinions: Opinions, names: Sequence[str]) -> Floats:
    """What is true of each image by attribute, (N, A). Raises CallerError where an image has no opinion on one."""
    known = {(row.path, row.dimension): row.mos for row in opinions.rows}
    for path in opinions.images:
        if lacking := [name for name in names if (path, name) not in known]:
            raise CallerError(f"--annotations has no opinion on {lacking[0]} of {path}; give the file that has")
    return np.array([[known[path, name] for name in names] for path in opinions.images])


def main(argv: Iterable[str] | None = None) -> int:
    """Print the table of the checkpoints that the flags name; the exit code."""
    parser = StrictParser(prog="python -m iqa_core.demo.ranked", description=__doc__)
    parser.add_argument("--before", required=True, help="checkpoint that writes")
    parser.add_argument("--after", required=True, nargs="+", help="what trainings by ranking made of it")
    parser.add_argument("--annotations", required=True, action="append", help="what is true of the scenes; repeatable")
    parser.add_argument("--answers", type=int, default=8, help="drawn about each scene (default %(default)s)")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="for intervals (default %(default)s)")
    parser.add_argument("--output", type=local_output, help="JSON file for the figures")

    def run() -> int:
        flags = parser.parse_args(None if argv is None else list(argv))
        if not 1 <= flags.answers <= MOST_ANSWERS:
            raise CallerError(f"--answers {flags.answers}: give 1 to {MOST_ANSWERS}")
        configs = [AssessorConfig(checkpoint=name, threads=1) for name in (flags.before, *flags.after)]
        specs = [describe(config, None, own_limits(config)) for config in configs]
        names = _names(specs)
        opinions = load_opinions(flags.annotations)
        y_NA = truths_of(opinions, names)
        said = [
            said_by(spec, config, opinions.images, flags.answers) for spec, config in zip(specs, configs, strict=True)
        ]
        found = ranked(said[0], said[1:], y_NA, names.index(OVERALL), flags.resamples)
        print("\n".join(table(found)))
        if flags.output is not None:
            flags.output.write_text(json.dumps(asdict(found), indent=2), encoding="utf-8")
        return DONE

    return exit_code(run)


def _names(specs: Sequence[AssessorSpec]) -> tuple[str, ...]:
    """Attributes that all checkpoints write numbers of. Raises CallerError where they differ."""
    first = specs[0].rubric
    if not isinstance(first, WrittenRubric) or OVERALL not in first.names:
        raise CallerError(f"{specs[0].checkpoint}: its rubric {first.id} has no number of {OVERALL} that is written")
    for spec in specs[1:]:
        if spec.rubric.digest != first.digest:
            raise CallerError(
                f"{spec.checkpoint} has the rubric {spec.rubric.id}, and --before {first.id}; they must agree"
            )
    return first.names


if __name__ == "__main__":
    sys.exit(main())
