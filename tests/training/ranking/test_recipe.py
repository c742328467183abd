"""Settings of a training by ranking: presets, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from iqa_core.training.ranking.recipe import PRESETS, RankingRecipe


def test_presets_are_those_of_the_papers_with_an_anchor() -> None:
    attributes, perception = PRESETS["attributes"], PRESETS["perception"]
    assert (attributes.rollouts, attributes.images, attributes.kl_weight, attributes.lora_rank) == (6, 128, 0.04, None)
    assert (perception.rollouts, perception.images, perception.kl_weight, perception.lora_rank) == (8, 32, 0.001, 16)
    assert {"fidelity", "score", "format"} == attributes.rewards.composition.weights.keys()
    assert {"score", "caption", "words", "format"} == perception.rewards.composition.weights.keys()
    assert (attributes.calibrate, perception.calibrate) == (True, False), "the paper's scores are not"
    for preset in PRESETS.values():
        assert preset.rewards.composition.weights["score"] > 0


def test_the_engine_is_told_answers_for_samples_and_which_weights_learn() -> None:
    recipe = RankingRecipe(images=8, rollouts=4, epochs=2.5, vision="full", zero_stage=0)
    engine = recipe.engine(recipe.steps(num_batches=3))
    assert (engine.max_steps, engine.global_batch) == (8, 32), "two and a half epochs of three batches"
    assert (engine.vision, engine.aligner, engine.language, engine.zero_stage) == ("full", "frozen", "full", 0)
    low = PRESETS["perception"].engine(1)
    assert (low.language, low.lora_rank, low.lora_alpha, low.vision) == ("lora", 16, 32, "frozen")
    assert RankingRecipe(max_steps=7).steps(num_batches=3) == 7


@pytest.mark.parametrize("preset", PRESETS)
def test_a_card_can_say_a_recipe_and_it_is_read_again(preset: str) -> None:
    recipe = PRESETS[preset]
    assert RankingRecipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    "settings",
    [
        {"rollouts": 1},
        {"images": 1},
        {"temperature": 0},
        {"alpha": 2},
        {"rewards": {"composition": {"weights": {"beauty": 1}}}},
        {"rewards": {"score": {"width": 5}}},
        {"rewards": {"variance_floor": float("inf")}},
        {"rewards": {"composition": {"std_floor": float("inf")}}},
        {"unknown": 1},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RankingRecipe.model_validate(settings)
