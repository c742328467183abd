"""The flags of the grounding job, documented where they are defined; light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from jobs.assessing.settings import AssessSettings
from jobs.command import Lasting


class GroundSettings(AssessSettings):
    """Say where images are bad: scores of the cells of a grid and of a user's boxes, in Parquet. Resumable."""

    dimensions: list[str] = Field(default_factory=list)
    """Dimension that is asked about; may be repeated; default: those that the rubric marks as local."""
    grid: Literal["2x2", "3x3"] = "2x2"
    """Cells whose scores are compared."""
    boxes: Path | None = None
    """.jsonl, .parquet or .csv of boxes that are asked about too: source, key, box_id, label, x, y, width, height."""
    self_test: Path | None = None
    """What check --grounding --output wrote: it is noted, and no place is claimed in a dimension that is at chance."""
    keep_at_chance: bool = False
    """With --self-test: claim places in such dimensions too."""
    calibration: Lasting | None = None
    """Output of this job with 200 or more images of the same kind, against whose cells `cell_z` compares."""
