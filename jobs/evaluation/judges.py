"""Settings, or the text of one flag -> a judge: an assessor that is to be asked, or a score table to be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.opinion import Opinions
from iqa_core.slots import TextLimits
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from jobs.evaluation.judged import Judge, assessor_judge, table_judge
from jobs.evaluation.settings import EvaluateSettings

TABLE = "scores:"
"""Begins a judge that is a score table."""
RUBRIC = "?rubric="
"""In another judge: stands between the checkpoint and what it is asked. Either may have a question mark of its own."""


def spec_of(config: AssessorConfig, rubric: str | None) -> AssessorSpec:
    """What is known of an assessor before it is loaded. Raises CallerError."""
    return describe(config, rubric, own_limits(config))


def first_judge(settings: EvaluateSettings, opinions: Opinions, spec: AssessorSpec | None) -> Judge:
    """The one that the others are compared with: the assessor of `spec`, or --scores. Raises CallerError."""
    if spec is not None:
        config, captions = settings.assessor, settings.caption_only
        return assessor_judge(opinions, config, spec, settings.text_limits, reads_captions=captions)
    assert settings.scores is not None
    return _table(settings, opinions, settings.scores)


def other_judge(text: str, settings: EvaluateSettings, opinions: Opinions, limits: TextLimits) -> Judge:
    """One --against or --alone; all settings of the assessor but its checkpoint are those of the first.

    limits: those by which the opinions' texts were read: with --scores they are the table's. Raises CallerError.
    """
    if text.startswith(TABLE):
        return _table(settings, opinions, text.removeprefix(TABLE))
    checkpoint, _, rubric = text.partition(RUBRIC)
    config = settings.assessor.model_copy(update={"checkpoint": checkpoint})
    spec = spec_of(config, rubric or None)
    return assessor_judge(opinions, config, spec, limits, reads_captions=settings.caption_only)


def _table(settings: EvaluateSettings, opinions: Opinions, scores: str) -> Judge:
    with named(scores):
        return table_judge(opinions, scores, settings.storage_options)


@contextmanager
def named(scores: str) -> Iterator[None]:
    """Inside, a score table that cannot be read is the caller's error, by its name."""
    try:
        yield
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(f"--scores {scores}: {error}") from error
