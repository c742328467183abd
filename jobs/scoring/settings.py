"""The flags of the scoring job, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path

from jobs.assessing.settings import AssessSettings


class ScoreSettings(AssessSettings):
    """Score images along the dimensions of a rubric: one row per image, in Parquet. Resumable at any point."""

    fusion: Path | None = None
    """TOML with fusion weights; default: equal weights."""
    probs: bool = False
    """Also write the probabilities of the five levels."""
    all_samples: bool = False
    """With a written rubric: also write every answer, verbatim."""
    report: bool = True
    """Write report.html at the end; --no-report leaves it out."""
