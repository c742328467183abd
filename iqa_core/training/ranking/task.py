"""The description of a training by ranking, in plain values that travel to every worker. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.ranking.recipe import RankingRecipe
from iqa_core.training.ranking.sampler import DomainBatchSampler, Ints
from iqa_core.training.rewards.answers import Part, read
from iqa_core.training.rewards.arrays import Opinions
from iqa_core.training.rewards.pairs import LabelScales, label_scales
from iqa_core.training.samples import TrainingSample
from iqa_core.training.task import TrainingTask
from iqa_core.written.form import Form
from iqa_core.written.judging import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingTask(TrainingTask):
    """A training whose samples are images with the rubric's question, and answers that the model draws itself."""

    ranking: RankingRecipe
    people: Opinions
    """What people say of the images in `train`, in their order."""
    references: tuple[tuple[str, ...], ...] | None = None
    """What people wrote about each of them, for the reward that holds words against it."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the recipe says so."""
        return self.ranking.calibrate

    @property
    def written(self) -> WrittenRubric:
        """The rubric: what is ranked is written."""
        assert isinstance(self.rubric, WrittenRubric)
        return self.rubric

    @property
    def form(self) -> Form:
        """What an answer must look like."""
        return self.written.form

    @cached_property
    def batches(self) -> DomainBatchSampler:
        """Which images are written about together."""
        return batches_of(self.people.d_N, self.ranking)

    @cached_property
    def scales(self) -> LabelScales | None:
        """Where the opinions of each data set lie, for the alignment that needs it."""
        if self.ranking.rewards.alignment != "standardised":
            return None
        return label_scales(self.people.y_NA, self.people.d_N)

    def images(self, step: int) -> Ints:
        """Indices of the images of one step, of all workers; a pure function of the step, in every epoch another."""
        epoch, number = divmod(step, self.batches.num_batches)
        return self.batches.batches(epoch)[number]


def batches_of(datasets: ArrayLike, recipe: RankingRecipe) -> DomainBatchSampler:
    """Which images of these data sets, by number or name, go together. Raises as `DomainBatchSampler` does."""
    return DomainBatchSampler(
        datasets, recipe.images, recipe.rollouts, recipe.passes, recipe.seed, recipe.batches, recipe.alpha
    )


def people_of(samples: Sequence[TrainingSample], opinions: Sequence[Opinion], rubric: WrittenRubric) -> Opinions:
    """Opinions on the samples' images as arrays, attributes in the rubric's order; data sets in order of appearance.

    Raises CallerError for an opinion on what the rubric has no number for.
    """
    rows = {sample.image: i for i, sample in enumerate(samples)}
    names = {name: a for a, name in enumerate(rubric.names)}
    y_NA, s_NA = (np.full((len(samples), len(names)), np.nan) for _ in range(2))
    for opinion in opinions:
        if opinion.dimension not in names:
            raise CallerError(
                f"--train has opinions on {opinion.dimension}, but rubric {rubric.id} has {', '.join(names)}"
            )
        if opinion.path in rows:
            place = rows[opinion.path], names[opinion.dimension]
            y_NA[place] = opinion.mos
            s_NA[place] = np.nan if opinion.std is None else opinion.std
    datasets = list(dict.fromkeys(sample.dataset for sample in samples))
    return Opinions(y_NA, s_NA, np.array([datasets.index(sample.dataset) for sample in samples], dtype=np.int64))


def references_of(
    texts: Sequence[TrainingSample], samples: Sequence[TrainingSample], rubric: WrittenRubric, part: Part
) -> tuple[tuple[str, ...], ...]:
    """That part of the texts that answer the rubric's question, by the samples' images. Raises CallerError for none."""
    by_image: dict[Path, list[str]] = {}
    for one in texts:
        [[said]] = read([[Sample(one.answer)]], rubric.form).texts(part)
        if one.query == rubric.question and said:
            by_image.setdefault(one.image, []).append(said)
    found = tuple(tuple(by_image.get(sample.image, ())) for sample in samples)
    if not any(found):
        raise CallerError(
            f"no text of --text answers the question of rubric {rubric.id} about an image of --train with a "
            f"{'caption or reasoning' if part == 'both' else part}"
        )
    return found
