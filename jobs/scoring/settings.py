"""The flags of the scoring job, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from jobs.assessing.settings import AssessSettings
from jobs.command import Lasting


class ScoreSettings(AssessSettings):
    """Score images along the dimensions of a rubric: one row per image, in Parquet. Resumable at any point."""

    fusion: Path | None = None
    """TOML with fusion weights; default: equal weights."""
    probs: bool = False
    """Also write the probabilities of the five levels."""
    all_samples: bool = False
    """With a written rubric: also write every answer, verbatim."""
    ground: bool = False
    """Ask in the same pass where each image is bad, and write grounding/ and regions/ beside the scores."""
    ground_dimensions: list[str] = Field(default_factory=list)
    """With --ground: dimension that is asked about; may be repeated; default: those that the rubric marks as local."""
    grid: Literal["2x2", "3x3"] | None = None
    """With --ground: cells whose scores are compared; default: 2x2."""
    boxes: Path | None = None
    """With --ground: .jsonl, .parquet or .csv of boxes that are asked about too; see ground_corpus.py."""
    self_test: Path | None = None
    """With --ground: what check --grounding --output wrote; no place is claimed in a dimension that is at chance."""
    keep_at_chance: bool = False
    """With --self-test: claim places in such dimensions too."""
    calibration: Lasting | None = None
    """With --ground: output with 200 or more images of the same kind, against whose cells `cell_z` compares."""
