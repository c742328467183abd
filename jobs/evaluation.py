"""Settings -> opinions and scores -> how well they agree, as Markdown and JSON."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.corpus.storage import FetchFailed, Forbidden, Missing, Storage, absolute
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinions
from jobs.command import DONE
from jobs.evaluate_settings import EvaluateSettings
from jobs.evaluation_report import Evaluation, measured, to_json, to_markdown
from jobs.judged import Judged, judged_by_assessor, judged_by_table


def evaluate(settings: EvaluateSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is scored."""
    _check(settings)
    with redirect_stdout(sys.stderr):  # standard output is the report's alone
        opinions = chosen(load_opinions(settings.annotations), settings)
        print(f"annotations {len(opinions.rows):,} opinions on {len(opinions.images):,} images", flush=True)
        judged = _judged(settings, opinions)
        # intervals over some thousand pairs take half a minute
        print(f"figures     {settings.resamples:,} resamples for each interval", flush=True)
        evaluation = measured(opinions, judged, settings.resamples, settings.seed)
    print(to_markdown(evaluation))
    if settings.output is not None:
        _write(settings, evaluation)
    return DONE


def chosen(opinions: Opinions, settings: EvaluateSettings) -> Opinions:
    """The opinions on the dimensions and the images that the flags choose."""
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


def _judged(settings: EvaluateSettings, opinions: Opinions) -> Judged:
    if settings.scores is None:
        return judged_by_assessor(opinions, settings.assessor, settings.rubric)
    try:
        return judged_by_table(opinions, settings.scores, settings.storage_options)
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(f"--scores: {error}") from error


def _check(settings: EvaluateSettings) -> None:
    if settings.scores is not None and (settings.assessor != AssessorConfig() or settings.rubric is not None):
        raise CallerError("--scores are judged as they are: --assessor and --rubric would be ignored; leave them out")
    if settings.scores is None and settings.storage_options:
        raise CallerError("--storage-options belong to --scores")


def _write(settings: EvaluateSettings, evaluation: Evaluation) -> None:
    assert settings.output is not None
    # storage options may hold secrets
    content = to_json(evaluation) | {"config": settings.model_dump(mode="json", exclude={"storage_options"})}
    try:
        Storage(settings.storage_options).put(absolute(settings.output), json.dumps(content, indent=2).encode())
    except (OSError, Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"--output {settings.output} cannot be written: {error}") from error
