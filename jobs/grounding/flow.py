"""Settings -> a grounded corpus, and the exit code."""

from __future__ import annotations

from jobs.assessing.driving import drive
from jobs.grounding.job import checked
from jobs.grounding.settings import GroundSettings


def ground(settings: GroundSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    return drive(lambda: checked(settings))
