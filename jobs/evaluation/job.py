"""Settings -> everything an evaluation consists of, checked: opinions, and judges that have not judged yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinions
from iqa_core.opinions.terms import Terms, terms_of
from iqa_core.records import RATING
from iqa_core.slots import TextLimits
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.scores.columns import REWARD
from jobs.evaluation.judged import Judge, assessor_judge, table_judge, table_terms
from jobs.evaluation.plots import require_plottable
from jobs.evaluation.settings import EvaluateSettings

TABLE = "scores:"
"""Begins a --against that is a score table."""
RUBRIC = "?rubric="
"""In a --against: stands between the checkpoint and what it is asked. Either may have a question mark of its own."""


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """What does not change during an evaluation."""

    settings: EvaluateSettings
    opinions: Opinions
    """Those on the dimensions and the images that the flags choose."""
    judges: Sequence[Judge]
    """The first is the one that the others are compared with."""


def checked(settings: EvaluateSettings) -> EvaluationJob:
    """The job, with all checked that can be before anything is scored. Raises CallerError."""
    _check_flags(settings)
    spec = None if settings.scores is not None else _spec(settings.assessor, settings.rubric)
    terms = _terms(settings, spec)
    opinions = chosen(load_opinions(settings.annotations, settings.hold_out_by, terms), settings)
    if settings.hold_out_by is not None and not any(row.group for row in opinions.rows):
        raise CallerError(f"--hold-out-by {settings.hold_out_by}: no opinion has anything in that column")
    print(f"annotations {len(opinions.rows):,} opinions on {len(opinions.images):,} images", flush=True)
    others = (_other(text, settings, opinions, terms.limits) for text in settings.against)
    judges = [_first(settings, opinions, spec), *others]
    return EvaluationJob(settings, opinions, judges)


def chosen(opinions: Opinions, settings: EvaluateSettings) -> Opinions:
    """The opinions on the dimensions and the images that the flags choose.

    Raises CallerError for a dimension that no opinion is about.
    """
    unknown = sorted(set(settings.dimension) - set(opinions.dimensions))
    if unknown:
        raise CallerError(
            f"--dimension {', '.join(unknown)}: the annotations are about {', '.join(opinions.dimensions)}"
        )
    rows = [row for row in opinions.rows if not settings.dimension or row.dimension in settings.dimension]
    images = Opinions(tuple(rows), opinions.dropped).images
    if settings.limit is not None and settings.limit < len(images):
        picks = np.random.default_rng(settings.seed).choice(len(images), settings.limit, replace=False)
        kept = {images[pick] for pick in picks}
        rows = [row for row in rows if row.path in kept]
    return Opinions(tuple(rows), opinions.dropped)


def _spec(config: AssessorConfig, rubric: str | None) -> AssessorSpec:
    return describe(config, rubric, own_limits(config))


def _terms(settings: EvaluateSettings, spec: AssessorSpec | None) -> Terms:
    """What the first assessor's rubric, or the score table, says of the opinions."""
    if spec is not None:
        terms = terms_of(spec.rubric, settings.slot, settings.text_limits, whole=True)
    else:
        assert settings.scores is not None
        with _named(settings.scores):
            terms = table_terms(settings.scores, settings.storage_options, settings.slot)
    return replace(terms, ranges={**terms.ranges, REWARD: RATING})


def _first(settings: EvaluateSettings, opinions: Opinions, spec: AssessorSpec | None) -> Judge:
    if spec is not None:
        return assessor_judge(opinions, settings.assessor, spec, settings.text_limits)
    assert settings.scores is not None
    return _table(settings, opinions, settings.scores)


def _other(text: str, settings: EvaluateSettings, opinions: Opinions, limits: TextLimits) -> Judge:
    """One --against; all settings of the assessor but its checkpoint are those of the first.

    limits: those by which the opinions' texts were read: with --scores they are the table's.
    """
    if text.startswith(TABLE):
        return _table(settings, opinions, text.removeprefix(TABLE))
    checkpoint, _, rubric = text.partition(RUBRIC)
    config = settings.assessor.model_copy(update={"checkpoint": checkpoint})
    return assessor_judge(opinions, config, _spec(config, rubric or None), limits)


def _table(settings: EvaluateSettings, opinions: Opinions, scores: str) -> Judge:
    with _named(scores):
        return table_judge(opinions, scores, settings.storage_options)


@contextmanager
def _named(scores: str) -> Iterator[None]:
    """Inside, a score table that cannot be read is the caller's error, by its name."""
    try:
        yield
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(f"--scores {scores}: {error}") from error


def _check_flags(settings: EvaluateSettings) -> None:
    """Raises CallerError for flags that do not go together, and for outputs that cannot be written."""
    asked = settings.assessor
    if all(text.startswith(TABLE) for text in settings.against):
        used = AssessorConfig()
    else:  # all but the checkpoint is also meant for the others
        used = asked.model_copy(update={"checkpoint": AssessorConfig().checkpoint})
    if settings.scores is not None and (asked != used or settings.rubric is not None):
        raise CallerError("--scores are judged as they are: --assessor and --rubric would be ignored; leave them out")
    if settings.scores is not None and settings.text_limits != TextLimits():
        raise CallerError("--slot-too-long and --slot-chars: the scoring job had its own; leave them out with --scores")
    if (
        settings.scores is None
        and settings.storage_options
        and TABLE not in {t[: len(TABLE)] for t in settings.against}
    ):
        raise CallerError("--storage-options belong to --scores")
    if settings.plots is not None:
        require_plottable(settings.plots)
    for flag, place in (("--output", settings.output), ("--plots", settings.plots)):
        if place is not None:
            Storage(settings.storage_options).require_writable(absolute(place), flag, is_folder=False)
