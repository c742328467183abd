"""What is to be trained on what: plain values that travel to every worker. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.rubrics import Rubric
from iqa_core.training.recipe import Recipe
from iqa_core.training.samples import TrainingSample

WEIGHTS = "trained.safetensors"
"""In a checkpoint: the weights that were trained, whole, by their names in the model."""
PROGRESS = "progress.json"
"""In a checkpoint: the figures that it was reported with."""


@dataclass(frozen=True)
class TrainingTask:
    """Everything that a worker needs."""

    base: str
    """Checkpoint that the training begins with; means the same on every node."""
    rubric: Rubric
    preparer: ModelPreparer
    recipe: Recipe
    train: tuple[TrainingSample, ...]
    validation: tuple[TrainingSample, ...]
    threads: int | None
    """CPU threads of torch per worker; None is all that a worker may use."""
