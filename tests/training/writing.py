"""A tiny checkpoint and scenes -> a training that teaches to write one number about each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.processors import load_processor
from iqa_core.records import ImageLimits
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.checking import usable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.training.task import TrainingTask
from iqa_core.training.written_validation import rated_by_answers
from tests.training.tasks import SHORT

RUBRIC = """
kind = "written"
id = "rated"
domain = "Tests."
prompt_version = 1
description = "One number."
question = "How good?"
{head}
[output]
grammar = "tagged-number"
thought = "none"
[[attributes]]
name = "quality"
worst = 9
best = 1
decimals = 0
[decoding]
max_new_tokens = 24
"""
"""A scale that is turned round: 1 is 5, and 9 is 1."""
QUESTION = "How good?"


def answer(number: float) -> str:
    return f"<answer>{number:g}</answer>"


def make_writing_encoder(checkpoint: Path, folder: Path, head: str = "") -> SampleEncoder:
    path = folder / "rated.toml"
    path.write_text(RUBRIC.replace("{head}", head))
    spec = describe(AssessorConfig(checkpoint=str(checkpoint)), str(path), ImageLimits())
    return SampleEncoder(load_processor(checkpoint), spec.rubric, spec.preparer)  # type: ignore[arg-type]


def make_writing_task(
    checkpoint: Path, folder: Path, images: Sequence[Path], numbers: Sequence[float], **settings: Any
) -> TrainingTask:
    """A quarter of the images, the last, is for validation. folder: for the rubric's file."""
    recipe = Recipe.model_validate({**SHORT, **settings})
    encoder = make_writing_encoder(checkpoint, folder)
    rubric = encoder.rubric
    assert isinstance(rubric, WrittenRubric)
    made = [TrainingSample(image, QUESTION, answer(n), "d") for image, n in zip(images, numbers, strict=True)]
    samples = usable(made, encoder).samples
    cut = len(samples) * 3 // 4
    task = TrainingTask(str(checkpoint), rubric, encoder.preparer, recipe, samples[:cut], samples[cut:], threads=1)
    return replace(task, rated=rated_by_answers(task.validation, rubric))
