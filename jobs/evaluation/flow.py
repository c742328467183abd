"""Settings -> opinions and scores -> how well they agree, as Markdown, JSON and scatter plots."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import PurePosixPath

from iqa_core.errors import DONE, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from jobs.evaluation.figures import Evaluation, measured
from jobs.evaluation.job import checked
from jobs.evaluation.plots import draw
from jobs.evaluation.report import to_json, to_markdown
from jobs.evaluation.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is scored, RunError later."""
    with redirect_stdout(sys.stderr):  # standard output is the report's alone
        job = checked(settings)
        judged = [judge() for judge in job.judges]
        # intervals over some thousand pairs take half a minute
        print(f"figures     {settings.resamples:,} resamples for each interval", flush=True)
        evaluation = measured(job.opinions, judged, settings.resamples, settings.seed, settings.hold_out_by)
    print(to_markdown(evaluation))
    if settings.output is not None:
        _write(settings, "--output", settings.output, _content(settings, evaluation))
    if settings.plots is not None:
        kind = PurePosixPath(settings.plots).suffix[1:]
        _write(settings, "--plots", settings.plots, draw(job.opinions, judged, evaluation, kind))
    return DONE


def _content(settings: EvaluateSettings, evaluation: Evaluation) -> bytes:
    # storage options may hold secrets
    content = to_json(evaluation) | {"config": settings.model_dump(mode="json", exclude={"storage_options"})}
    return json.dumps(content, indent=2).encode()


def _write(settings: EvaluateSettings, flag: str, output: str, content: bytes) -> None:
    try:
        Storage(settings.storage_options).put(absolute(output), content)
    except (Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"{flag} {output} cannot be written: {error}") from error
