"""Samples in other words: drawn by seed and epoch, off unless asked for, and with the answer's tokens as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics import load_rubric
from iqa_core.training.augmenting import augmented, without_words
from iqa_core.training.checking import usable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import IGNORED, SampleEncoder
from iqa_core.training.samples import TrainingSample, level_samples
from tests.training.tasks import make_encoder

RUBRIC = load_rubric("interior-v2")
BOTH = Recipe(augment_prompts_paraphrase=True, augment_prompts_drop=0.3)


@pytest.fixture(scope="module")
def encoder(qwen: Path) -> SampleEncoder:
    return make_encoder(qwen, "interior-v2")


@pytest.fixture(scope="module")
def samples(opinions: list[Opinion]) -> list[TrainingSample]:
    return level_samples(opinions[:8], RUBRIC, "linear", {}, paraphrased=True)


def queries(sample: TrainingSample, recipe: Recipe, epochs: int = 40) -> list[str]:
    return [augmented(sample, 5, epoch, recipe).query for epoch in range(epochs)]


def test_nothing_is_augmented_unless_asked_for(opinions: list[Opinion]) -> None:
    assert (Recipe().augment_prompts_paraphrase, Recipe().augment_prompts_drop) == (False, 0)
    [sample] = level_samples(opinions[:1], RUBRIC, "linear", {})
    assert augmented(sample, 0, 0, Recipe()) is sample


def test_what_is_drawn_hangs_on_seed_epoch_and_place_alone(samples: list[TrainingSample]) -> None:
    first = queries(samples[0], BOTH)
    assert queries(samples[0], BOTH) == first
    assert len(set(first)) > 20, "another wording from epoch to epoch"
    assert queries(samples[0], BOTH.model_copy(update={"seed": 1})) != first
    assert [augmented(samples[0], 6, epoch, BOTH).query for epoch in range(40)] != first


def test_every_wording_of_the_rubric_is_asked(samples: list[TrainingSample]) -> None:
    dimension = RUBRIC.dimensions[0]
    assert samples[0].level is not None
    assert samples[0].level.dimension == dimension.name
    found = queries(samples[0], Recipe(augment_prompts_paraphrase=True))
    assert set(found) == {dimension.query, *dimension.paraphrases}
    assert len(dimension.paraphrases) == 3


def test_words_are_left_out_but_neither_tags_nor_the_dimensions_name() -> None:
    query = "<layout>See. " + "word " * 996 + "the\nLayout, please?"
    found = without_words(query, ["layout"], 0.25, np.random.default_rng(0))
    assert 720 < found.count("word") < 775
    assert found.startswith("<layout>See. ")
    assert "Layout," in found
    assert without_words("How nice?", ["layout"], 0.999, np.random.default_rng(0)) == "How nice?", "not all of them"
    assert without_words(query, ["layout"], 0, np.random.default_rng(0)) == query


def test_a_description_is_asked_as_it_was_written() -> None:
    sample = TrainingSample(Path("a.png"), "What stands in the corner?", "A sofa.", "words")
    assert augmented(sample, 0, 0, BOTH) is sample


@pytest.mark.slow
def test_the_tokens_of_the_answer_stay_and_those_of_the_question_change(
    encoder: SampleEncoder, samples: list[TrainingSample]
) -> None:
    asked = [augmented(sample, index, 3, BOTH) for index, sample in enumerate(samples)]
    plain, other = encoder.batch(samples), encoder.batch(asked)
    changed = 0
    for row, (sample, new) in enumerate(zip(samples, asked, strict=True)):
        assert replace(new, query=sample.query) == sample
        answers = [batch.labels_NT[row][batch.labels_NT[row] != IGNORED].tolist() for batch in (plain, other)]
        assert answers[0] == answers[1]
        questions = [
            batch.inputs["input_ids"][row][: int(batch.level_places[row]) + 1].tolist() for batch in (plain, other)
        ]
        level = [ids[-1] for ids in questions]
        assert level[0] == level[1]
        changed += questions[0] != questions[1]
    assert changed >= 7
    assert (plain.level_ids_NL == other.level_ids_NL).all()
    assert (plain.targets_NL == other.targets_NL).all()


@pytest.mark.slow
def test_the_longest_wording_counts_for_the_bound_on_tokens(
    encoder: SampleEncoder, samples: list[TrainingSample]
) -> None:
    found = usable(samples, encoder).samples
    for sample in found:
        lengths = [encoder.batch([augmented(sample, 0, epoch, BOTH)]).real_tokens for epoch in range(8)]
        wordings = [replace(sample, query=query) for query in (sample.query, *sample.paraphrases)]
        assert sample.tokens == max(encoder.batch([wording]).real_tokens for wording in wordings) >= max(lengths)


def test_a_rubric_without_paraphrases_is_refused(opinions: list[Opinion]) -> None:
    plain = tuple(dimension.model_copy(update={"paraphrases": ()}) for dimension in RUBRIC.dimensions)
    with pytest.raises(CallerError, match=r"has no paraphrases of distortion, harmony.*add them"):
        level_samples(opinions, RUBRIC.model_copy(update={"dimensions": plain}), "linear", {}, paraphrased=True)
