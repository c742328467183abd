"""Settings -> everything an evaluation consists of, checked: opinions, and judges that have not judged yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinions
from iqa_core.opinions.terms import Terms, terms_of
from iqa_core.records import RATING
from iqa_core.slots import TextLimits
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.scores.columns import REWARD
from jobs.evaluation.judged import Judge, table_terms
from jobs.evaluation.judges import TABLE, first_judge, named, other_judge, spec_of
from jobs.evaluation.plots import require_plottable
from jobs.evaluation.reasons_job import ReasonsJob, reasons_job
from jobs.evaluation.settings import EvaluateSettings


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """What does not change during an evaluation."""

    settings: EvaluateSettings
    opinions: Opinions
    """Those on the dimensions and the images that the flags choose."""
    judges: Sequence[Judge]
    """The first is the one that the others are compared with."""
    reasons: ReasonsJob
    """What is held against one another beside scores and opinions."""


def checked(settings: EvaluateSettings) -> EvaluationJob:
    """The job, with all checked that can be before anything is scored. Raises CallerError."""
    _check_flags(settings)
    spec = None if settings.scores is not None else spec_of(settings.assessor, settings.rubric)
    terms = _terms(settings, spec)
    opinions = chosen(load_opinions(settings.annotations, settings.hold_out_by, terms), settings)
    if settings.hold_out_by is not None and not any(row.group for row in opinions.rows):
        raise CallerError(f"--hold-out-by {settings.hold_out_by}: no opinion has anything in that column")
    print(f"annotations {len(opinions.rows):,} opinions on {len(opinions.images):,} images", flush=True)
    others = (other_judge(text, settings, opinions, terms.limits) for text in settings.against)
    judges = [first_judge(settings, opinions, spec), *others]
    return EvaluationJob(settings, opinions, judges, reasons_job(settings, opinions, spec, terms.limits))


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


def _terms(settings: EvaluateSettings, spec: AssessorSpec | None) -> Terms:
    """What the first assessor's rubric, or the score table, says of the opinions."""
    if spec is not None:
        terms = terms_of(spec.rubric, settings.slot, settings.text_limits, whole=True)
    else:
        assert settings.scores is not None
        with named(settings.scores):
            terms = table_terms(settings.scores, settings.storage_options, settings.slot)
    return replace(terms, ranges={**terms.ranges, REWARD: RATING})


def _check_flags(settings: EvaluateSettings) -> None:
    """Raises CallerError for flags that do not go together, and for outputs that cannot be written."""
    asked = settings.assessor
    others = [*settings.against, *(text.partition("=")[2] for text in settings.alone)]
    if all(text.startswith(TABLE) for text in others):
        used = AssessorConfig()
    else:  # all but the checkpoint is also meant for the others
        used = asked.model_copy(update={"checkpoint": AssessorConfig().checkpoint})
    if settings.scores is not None and (asked != used or settings.rubric is not None):
        raise CallerError("--scores are judged as they are: --assessor and --rubric would be ignored; leave them out")
    if settings.scores is not None and settings.text_limits != TextLimits():
        raise CallerError("--slot-too-long and --slot-chars: the scoring job had its own; leave them out with --scores")
    if settings.scores is None and settings.storage_options and TABLE not in {t[: len(TABLE)] for t in others}:
        raise CallerError("--storage-options belong to --scores")
    if settings.plots is not None:
        require_plottable(settings.plots)
    for flag, place in (("--output", settings.output), ("--plots", settings.plots), ("--sheet", settings.sheet)):
        if place is not None:
            is_folder = flag == "--sheet"
            Storage(settings.storage_options).require_writable(absolute(place), flag, is_folder=is_folder)
