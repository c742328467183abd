"""The untouched model -> the scores that the assessor gives, for whatever preparation its processor asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import sample_scores
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.assessor.samples import SAMPLES, read_sample
from iqa_core.inspection.plain import PlainModel
from iqa_core.levels import expected_score, level_probabilities
from iqa_core.records import ImageLimits
from iqa_core.rubrics import closed_set
from tests.assessor import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_idefics3(tmp_path_factory.mktemp("idefics"))


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_paligemma(tmp_path_factory.mktemp("paligemma"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # PaliGemma's processor
@pytest.mark.parametrize("name", ["untuned", "idefics", "paligemma"])
@pytest.mark.parametrize("max_pixels", [None, 6272])
def test_it_scores_as_the_assessor_does(name: str, max_pixels: int | None, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    config = AssessorConfig(checkpoint=str(folder), threads=1, max_pixels=max_pixels)
    spec = describe(config, None, ImageLimits())
    found = sample_scores(load(spec, config), SAMPLES[:1])[SAMPLES[0]]
    assert isinstance(found, dict)
    model = PlainModel.load(folder, "float32", config, max_pixels)
    rubric = closed_set(spec.rubric, "this test")
    for question in rubric.questions:
        prompt = build_prompt(model.processor, question, None)
        ids = level_token_ids(model.processor.tokenizer, prompt, rubric.levels)
        logits = model.read(prompt, read_sample(SAMPLES[0])).logits_PV[-1, ids]
        assert found[question.name] == pytest.approx(float(expected_score(level_probabilities(logits))), abs=1e-4)


def test_rows_of_a_reading_are_the_last_ones(untuned: Path) -> None:
    """What follows a token does not depend on what comes behind it."""
    model = PlainModel.load(untuned, "float32", AssessorConfig(threads=1), None)
    text = "<|vision_start|><|image_pad|><|vision_end|>How good"
    image = read_sample(SAMPLES[0])
    longer, shorter = model.read(f"{text} is it", image, 3), model.read(text, image, 1)
    assert longer.prompt_tokens == shorter.prompt_tokens + 2
    assert longer.visual_tokens == shorter.visual_tokens == 16
    np.testing.assert_allclose(longer.logits_PV[0], shorter.logits_PV[0], atol=1e-5)


def test_it_says_what_is_likeliest(speaking: Path) -> None:
    model = PlainModel.load(speaking, "float32", AssessorConfig(threads=1), None)
    asked = "<|vision_start|><|image_pad|><|vision_end|>\nThe quality"
    assert model.say(asked, read_sample(SAMPLES[0]), 5).strip() == "level of this picture is"
