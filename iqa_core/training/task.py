"""The description of a training, in plain values that travel to every worker. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.rubrics import AnyRubric
from iqa_core.training.recipe import Recipe
from iqa_core.training.samples import TrainingSample
from iqa_core.training.written_validation import Rated

WEIGHTS = "trained.safetensors"
"""File of a training checkpoint: the trained weights, whole, by their names in the model."""
PROGRESS = "progress.json"
"""File of a training checkpoint: its figures."""
SCORES = "scores.json"
"""File of a training checkpoint whose export is to be calibrated: what is read from answers about its rated images."""


@dataclass(frozen=True)
class TrainingTask:
    """All that a worker needs to train."""

    base: str
    """Checkpoint from which the training begins, by a name that means the same on every node."""
    rubric: AnyRubric
    preparer: ModelPreparer
    recipe: Recipe
    train: tuple[TrainingSample, ...]
    validation: tuple[TrainingSample, ...]
    threads: int | None
    """CPU threads of torch per worker; None is all usable ones."""
    rated: tuple[Rated, ...] = ()
    """Images that the model writes about at each validation, where the rubric is a written one."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the export's written scores are brought to the scale of opinions."""
        return False
