"""A sample and an epoch -> the same sample asked in other words: a paraphrase of its question, or some words left out.

What is drawn hangs on the seed, the sample's place and the epoch alone. Image, answer and level stay as they are, and
samples without a level word, whose question may be about anything, stay whole.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from iqa_core.rubrics.rubric import TAG
from iqa_core.training.recipe import Recipe
from iqa_core.training.samples import TrainingSample


def augmented(sample: TrainingSample, index: int, epoch: int, recipe: Recipe) -> TrainingSample:
    """The sample as it is shown in this epoch; itself where the recipe augments nothing.

    index: its place among the training samples.
    """
    if sample.level is None or not (sample.paraphrases or recipe.augment_prompts_drop):
        return sample
    random = np.random.default_rng([recipe.seed, epoch, index])
    wordings = (sample.query, *sample.paraphrases)
    query = wordings[random.integers(len(wordings))]
    return replace(sample, query=without_words(query, sample.level.dimension, recipe.augment_prompts_drop, random))


def without_words(query: str, dimension: str, share: float, random: np.random.Generator) -> str:
    """The query with about this share of its words left out; white space goes with the word before it.

    Words with a tag such as `<layout>`, or with the dimension's name, stay; so does all of it where nothing would.
    """
    words = re.findall(r"\s*\S+\s*", query)
    kept = [
        word
        for word, draw in zip(words, random.random(len(words)), strict=True)
        if draw >= share or TAG.search(word) or dimension in word.lower()
    ]
    return "".join(kept).strip() or query
