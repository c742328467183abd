"""Settings -> opinions and scores -> how well they agree, as Markdown, JSON and scatter plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import PurePosixPath

from iqa_core.errors import DONE, RunError
from iqa_core.reasons.sheet import Rated
from iqa_core.reasons.sheet import files as sheet_files
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from jobs.evaluation.figures import Evaluation, measured
from jobs.evaluation.job import EvaluationJob, checked
from jobs.evaluation.judged import Judged
from jobs.evaluation.plots import draw
from jobs.evaluation.reasons import Asked, Reasons, reasons_of, scores_by_image
from jobs.evaluation.reasons_report import reasons_to_json, reasons_to_markdown
from jobs.evaluation.report import label, to_json, to_markdown
from jobs.evaluation.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is scored, RunError later."""
    with redirect_stdout(sys.stderr):  # standard output is the report's alone
        job = checked(settings)
        judged = [judge() for judge in job.judges]
        # intervals over some thousand pairs take half a minute
        print(f"figures     {settings.resamples:,} resamples for each interval", flush=True)
        evaluation = measured(job.opinions, judged, settings.resamples, settings.seed, settings.hold_out_by)
        reasons = _reasons(job, judged)
    print(to_markdown(evaluation))
    if reasons:
        print(reasons_to_markdown(reasons))
    if settings.output is not None:
        _write(settings, "--output", settings.output, _content(settings, evaluation, reasons))
    if settings.plots is not None:
        kind = PurePosixPath(settings.plots).suffix[1:]
        _write(settings, "--plots", settings.plots, draw(job.opinions, judged, evaluation, kind))
    if settings.sheet is not None:
        for name, content in _sheet(job, judged).items():
            _write(settings, "--sheet", f"{settings.sheet.rstrip('/')}/{name}", content)
    return DONE


def _reasons(job: EvaluationJob, judged: Sequence[Judged]) -> list[Reasons]:
    """Of each assessor with anything to report."""
    own, settings = job.reasons, job.settings
    alone = {name: (about, judge()) for name, (about, judge) in own.alone.items()}
    found = []
    for place, each in enumerate(judged):
        asked = Asked(own.chains, own.texts_model, own.matrix, {} if place else alone, own.opposites)
        found.append(reasons_of(job.opinions, each, asked, settings.resamples, settings.seed))
    return [one for one in found if not one.is_empty]


def _sheet(job: EvaluationJob, judged: Sequence[Judged]) -> dict[str, bytes]:
    """What each assessor wrote, image by image, for people to rate. Raises RunError where nothing was written."""
    scores = [scores_by_image(job.opinions, each) for each in judged]
    answers = [
        Rated(str(path.absolute()), said.caption, said.reasoning, of_image[path], label(each.about))
        for path in job.opinions.images
        for each, of_image in zip(judged, scores, strict=True)
        if (said := each.said.get(path)) is not None
    ]
    if not answers:
        raise RunError("--sheet: no answer was parsed, so there is nothing to rate")
    return sheet_files(answers)


def _content(settings: EvaluateSettings, evaluation: Evaluation, reasons: Sequence[Reasons]) -> bytes:
    # storage options may hold secrets
    content = to_json(evaluation) | {"config": settings.model_dump(mode="json", exclude={"storage_options"})}
    if reasons:
        content["reasons"] = reasons_to_json(reasons)
    return json.dumps(content, indent=2).encode()


def _write(settings: EvaluateSettings, flag: str, output: str, content: bytes) -> None:
    try:
        Storage(settings.storage_options).put(absolute(output), content)
    except (Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"{flag} {output} cannot be written: {error}") from error
