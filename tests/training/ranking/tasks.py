"""A tiny checkpoint that has learnt to write two numbers about scenes, and small trainings that rank its answers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import render_prompt
from iqa_core.opinions.opinion import Opinion
from iqa_core.records import ImageLimits
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.checking import usable
from iqa_core.training.ranking.recipe import RankingRecipe
from iqa_core.training.ranking.task import RankingTask, batches_of, people_of
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.training.written_validation import asked_about, rated_by_opinions
from iqa_core.written.writing import written_as

RUBRIC = """
kind = "written"
id = "ranked"
domain = "Tests."
prompt_version = 1
description = "Two numbers."
question = "How good?"
[output]
grammar = "attributes"
thought = "none"
[[attributes]]
name = "quality"
label = "q"
decimals = 0
[[attributes]]
name = "layout"
label = "l"
decimals = 0
[decoding]
max_new_tokens = 16
"""

SEEN = """
kind = "written"
id = "seen"
domain = "Tests."
prompt_version = 1
description = "A caption and a number."
question = "What is seen?"
[output]
grammar = "perception"
[[attributes]]
name = "quality"
decimals = 0
[decoding]
max_new_tokens = 40
"""

SETTINGS = {
    "rewards": {"composition": {"weights": {"fidelity": 1, "score": 1, "format": 0.5}}},
    "rollouts": 4,
    "images": 4,
    "micro_batch": 4,
    "max_new_tokens": 16,
    "learning_rate": 3e-4,
    "precision": "fp32",
    "zero_stage": 0,
    "gradient_checkpointing": False,
    "max_steps": 4,
    "every": 2,
}


def answer(quality: int, layout: int) -> str:
    return f"q: {quality}, l: {layout}"


def seen(number: int) -> str:
    return (
        f"<caption>{'dark' if number < 3 else 'bright'}</caption>\n<reasoning>so</reasoning>\n<rating>{number}</rating>"
    )


def encoder_of(checkpoint: Path, rubric: Path) -> SampleEncoder:
    spec = describe(AssessorConfig(checkpoint=str(checkpoint)), str(rubric), ImageLimits())
    return SampleEncoder(load_processor(checkpoint), spec.rubric, spec.preparer)  # type: ignore[arg-type]


def two_opinions(opinions: Sequence[Opinion]) -> list[Opinion]:
    """Those on layout, and the mean of each image's as one on quality."""
    by_image: dict[Path, list[Opinion]] = {}
    for opinion in opinions:
        by_image.setdefault(opinion.path, []).append(opinion)
    found = []
    for path, rows in by_image.items():
        overall = float(np.mean([row.mos for row in rows]))
        found += [Opinion(rows[0].image, path, "quality", overall, "d")]
        found += [Opinion(rows[0].image, path, "layout", row.mos, "d") for row in rows if row.dimension == "layout"]
    return found


def caption_rows(processor: Any, rubric: WrittenRubric, learnt: Mapping[str, float]) -> list[Any]:
    """Token ids of the question without an image and of an answer, for each caption and its rating."""
    import torch

    answers = [written_as([rating], rubric.form, caption, "so") for caption, rating in learnt.items()]
    texts = [render_prompt(processor, [rubric.question], answer, rubric.system) for answer in answers]
    return [torch.tensor([processor.tokenizer.encode(text, add_special_tokens=False)]) for text in texts]


def save_warm(base: Path, folder: Path, opinions: Sequence[Opinion]) -> Path:
    """The checkpoint after 40 steps of what to write about eight images in both forms, and about two captions without
    an image: any numbers, mostly parsed."""
    import torch

    from iqa_core.assessor.model.loading import load_model
    from iqa_core.training.objective import losses

    shutil.copytree(base, folder)
    (folder / "ranked.toml").write_text(RUBRIC)
    (folder / "seen.toml").write_text(SEEN)
    encoder = encoder_of(folder, folder / "ranked.toml")
    images = list(dict.fromkeys(row.path for row in opinions))[:8]
    samples = [
        TrainingSample(image, "How good?", answer(1 + i % 5, 1 + (2 * i) % 5), "d") for i, image in enumerate(images)
    ]
    samples += [TrainingSample(one.image, "What is seen?", seen(1 + i % 5), "d") for i, one in enumerate(samples)]
    model = load_model(folder, "float32", "cpu", 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    batch = encoder.batch(samples)
    written = encoder_of(folder, folder / "seen.toml").rubric
    assert isinstance(written, WrittenRubric)
    rows = caption_rows(load_processor(folder), written, {"dark": 2, "bright": 4})
    for _ in range(40):
        model.train()
        loss = losses(model, batch, 1.0).weighted_sum / len(samples)
        loss = loss + sum(model(input_ids=row, labels=row).loss for row in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def make_ranking_task(
    checkpoint: Path, opinions: Sequence[Opinion], rubric_file: str = "ranked.toml", **settings: Any
) -> RankingTask:
    """Of 12 images, and of 4 more that are for validation."""
    recipe = RankingRecipe.model_validate({**SETTINGS, **settings})
    encoder = encoder_of(checkpoint, checkpoint / rubric_file)
    rubric = encoder.rubric
    assert isinstance(rubric, WrittenRubric)
    people = [one for one in two_opinions(opinions) if one.dimension in rubric.names]
    samples = usable(asked_about(people, rubric), encoder).samples
    learnt, held_out = samples[:12], samples[12:]
    ranked = people_of(learnt, people, rubric)
    return RankingTask(
        str(checkpoint),
        rubric,
        encoder.preparer,
        recipe.engine(recipe.steps(batches_of(ranked.d_N, recipe).num_batches)),
        learnt,
        (),
        threads=1,
        rated=rated_by_opinions(held_out, people, rubric),
        ranking=recipe,
        people=ranked,
    )
