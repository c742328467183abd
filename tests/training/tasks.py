"""Scenes and a checkpoint -> small training tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.processors import load_processor
from iqa_core.demo.corpus import write_scenes
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinion
from iqa_core.records import ImageLimits
from iqa_core.rubrics import Rubric
from iqa_core.training.checking import usable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample, level_samples
from iqa_core.training.task import TrainingTask

STEPS, HALF = 14, 7
"""Steps of a small run, and those after which it is kept and validated first."""

SHORT = {
    "max_steps": STEPS,
    "global_batch": 4,
    "micro_batch": 1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "every": HALF,
    "log_every": 1,
    "gradient_checkpointing": False,
    "targets": "linear",
}


def write_opinions(folder: Path, count: int, seed: int = 11) -> Path:
    """The CSV of `count` scenes."""
    write_scenes(folder, count, seed)
    return folder / "annotations.csv"


def scene_opinions(folder: Path, count: int, seed: int = 11) -> list[Opinion]:
    return list(load_opinions([str(write_opinions(folder, count, seed))]).rows)


class LevelEncoder(SampleEncoder):
    """One for a rubric with closed sets of answers."""

    rubric: Rubric


def make_encoder(checkpoint: Path, rubric: str | None = None) -> LevelEncoder:
    spec = describe(AssessorConfig(checkpoint=str(checkpoint)), rubric, ImageLimits())
    return LevelEncoder(load_processor(checkpoint), spec.rubric, spec.preparer)  # type: ignore[arg-type]


def asking_opinions(opinion: Opinion, rubric: Rubric, texts: Sequence[str]) -> list[Opinion]:
    """One per text and question of `tests.unlike.ASKING`, in this order."""
    return [
        replace(opinion, dimension=question.name, texts=tuple((slot, text) for slot in question.slots))
        for text in texts
        for question in rubric.questions
    ]


def asking_samples(opinion: Opinion, rubric: Rubric, texts: Sequence[str]) -> list[TrainingSample]:
    """The same as samples."""
    return level_samples(asking_opinions(opinion, rubric, texts), rubric, "linear", {})


def make_task(checkpoint: Path, opinions: list[Opinion], rubric: str | None = None, **settings: Any) -> TrainingTask:
    """A quarter of the images, the last, is for validation."""
    recipe = Recipe.model_validate({**SHORT, **settings})
    encoder = make_encoder(checkpoint, rubric)
    samples = usable(level_samples(opinions, encoder.rubric, recipe.targets, {}), encoder).samples
    cut = len(samples) * 3 // 4
    return TrainingTask(
        str(checkpoint), encoder.rubric, encoder.preparer, recipe, samples[:cut], samples[cut:], threads=1
    )
