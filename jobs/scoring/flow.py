"""Settings -> a scored corpus, and the exit code."""

from __future__ import annotations

from jobs.assessing.driving import drive
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings


def score(settings: ScoreSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    return drive(lambda: checked(settings))
