"""A sample and an epoch -> the sample with its question in other words: a paraphrase, or some words left out.

The draw depends on the seed, the sample's index and the epoch alone. Image, answer and level stay as they are. Samples
without a level word are not changed: their questions may be about anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iqa_core.rubrics.rubric import TAG
from iqa_core.training.recipe import Recipe
from iqa_core.training.samples import TrainingSample


def augmented(sample: TrainingSample, index: int, epoch: int, recipe: Recipe) -> TrainingSample:
    """The sample as it is shown in an epoch; itself where the recipe augments nothing.

    index: of the sample among the training samples.
    """
    if sample.level is None or not (sample.paraphrases or recipe.augment_prompts_drop):
        return sample
    random = np.random.default_rng([recipe.seed, epoch, index])
    wordings = (sample.query, *sample.paraphrases)
    query = wordings[random.integers(len(wordings))]
    kept = (sample.level.dimension, *(f"{{{slot}}}" for slot, _ in sample.texts))
    return replace(sample, query=without_words(query, kept, recipe.augment_prompts_drop, random))


def without_words(query: str, names: Sequence[str], share: float, random: np.random.Generator) -> str:
    """The query without about this share of its words, each with the white space around it.

    Words with a tag such as `<layout>` or with one of the names in them, which are in lower case, stay; where no word
    would stay, all do.
    """
    words = re.findall(r"\s*\S+\s*", query)
    kept = [
        word
        for word, draw in zip(words, random.random(len(words)), strict=True)
        if draw >= share or TAG.search(word) or any(name in word.lower() for name in names)
    ]
    return "".join(kept).strip() or query
