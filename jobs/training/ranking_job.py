"""Settings -> a training by ranking, checked: opinions on images that a model writes about, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.terms import terms_of
from iqa_core.rubrics import AnyRubric, WrittenRubric, written_names
from iqa_core.training.parts import require_context, require_trainable
from iqa_core.training.ranking.recipe import RankingRecipe
from iqa_core.training.ranking.sampler import require_ranks
from iqa_core.training.ranking.task import RankingTask, batches_of, people_of, references_of
from iqa_core.training.rewards.arrays import Opinions
from iqa_core.training.rewards.batch import CAPTION
from iqa_core.training.rewards.rouge import require_words
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample, text_samples
from iqa_core.training.written_validation import Rated, asked_about, rated_by_opinions
from iqa_core.written.form import Grammar
from jobs.training.ranking_settings import RankingSettings
from jobs.training.run import (
    TrainingRun,
    begun,
    divided,
    identity_of,
    reliable_opinions,
    require_whole_weights,
    usable_samples,
)

OF_OPINIONS = {"fidelity", "margin", "score"}
"""Names of the rewards that are nothing without opinions."""

WORDS = "words"
"""Name of the reward that needs texts of people."""


@dataclass(frozen=True)
class RankingJob(TrainingRun):
    """A training by the order of a model's own answers."""

    settings: RankingSettings
    task: RankingTask

    def describe(self) -> Iterator[str]:
        """Lines for people."""
        task, recipe, engine = self.task, self.task.ranking, self.task.recipe
        composition, accumulation = recipe.rewards.composition, engine.accumulation(self.settings.num_workers)
        weights = ", ".join(f"{name} {weight:g}" for name, weight in composition.weights.items())
        yield f"base       {self.settings.base}"
        yield f"rubric     {task.rubric.id}, prompt version {task.rubric.prompt_version}"
        yield f"train      {len(task.train):,} images ({_by_dataset(task.train)})"
        if task.references is not None:
            yield f"texts      about {sum(map(bool, task.references)):,} of these images"
        yield f"validate   {len(task.rated):,} images are written about at each validation"
        yield from (f"           {count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        yield f"rewards    {weights}; {composition.aggregation.replace('_', ' ')}, {recipe.rewards.alignment}"
        yield f"parts      vision {engine.vision}, aligner {engine.aligner}, language {engine.language}"
        yield (
            f"steps      {engine.max_steps:,} of {recipe.images} images x {recipe.rollouts} answers, "
            f"{task.batches.num_batches:,} to an epoch: {self.settings.num_workers} workers x {recipe.micro_batch} x "
            f"{accumulation} accumulated, {recipe.precision}, ZeRO {recipe.zero_stage}"
        )
        yield f"output     {self.settings.output}"


def checked(settings: RankingSettings) -> RankingJob:
    """The job, with all checked that can be before training starts. Raises CallerError."""
    settings = _resolved(settings)
    recipe = RankingRecipe.model_validate({name: getattr(settings, name) for name in RankingRecipe.model_fields})
    _require_possible(recipe, settings.num_workers, has_texts=bool(settings.text))
    settings, spec = begun(settings)
    rubric = _written(spec.rubric)
    _require_fits_rubric(recipe, rubric)
    assert isinstance(spec.preparer, ModelPreparer)
    encoder = SampleEncoder(load_processor(materialise(settings.base)), rubric, spec.preparer)
    data = _data(settings, encoder, rubric)
    datasets = [sample.dataset for sample in data.train]
    _require_opinions(data.people, recipe, rubric)
    require_ranks(data.people.y_NA, datasets, rubric.names)
    references = _references(settings, data.train, rubric, recipe)
    engine = recipe.engine(recipe.steps(batches_of(datasets, recipe).num_batches))
    require_trainable(materialise(settings.base), engine)
    require_context(materialise(settings.base), _longest_prompt(data, encoder), recipe.max_new_tokens)
    task = RankingTask(
        base=spec.checkpoint,
        rubric=rubric,
        preparer=spec.preparer,
        recipe=engine,
        train=data.train,
        validation=(),
        threads=settings.torch_threads,
        rated=data.rated,
        ranking=recipe,
        people=data.people,
        references=references,
    )
    sizes = {"train_images": len(data.train), "validation_images": len(data.rated)}
    return RankingJob(settings, task, data.dropped, identity_of(settings, spec, rubric) | sizes)


@dataclass(frozen=True)
class _Data:
    """Images to write about."""

    train: tuple[TrainingSample, ...]
    people: Opinions
    """What people say of these."""
    rated: tuple[Rated, ...]
    dropped: Counter[str]


def _data(settings: RankingSettings, encoder: SampleEncoder, rubric: WrittenRubric) -> _Data:
    if not settings.train:
        raise CallerError("there is nothing to learn from: give --train, opinions on images")
    terms = terms_of(rubric, settings.slot, settings.text_limits)
    found, dropped = reliable_opinions(settings, settings.train, terms)
    opinions = _whole_images(found)
    train, validation = divided(settings, settings.seed, opinions, terms, dropped)
    learnt, held_out = (
        usable_samples(asked_about(part, rubric), encoder, settings, dropped) for part in (train, validation)
    )
    people = people_of(learnt, train, rubric)  # before the part that was carved out, so that --train is at fault
    return _Data(learnt, people, rated_by_opinions(held_out, validation, rubric), dropped)


def _longest_prompt(data: _Data, encoder: SampleEncoder) -> int:
    """Tokens of it; where readers, who have no tokenizer, count more, theirs."""
    samples = (*data.train, *(each.sample for each in data.rated))
    uncounted = encoder.preparer.cost.text_tokens + 1 - encoder.text_tokens(samples[0])  # all have one question
    return max(sample.tokens for sample in samples) + max(0, uncounted)


def _references(
    settings: RankingSettings, samples: tuple[TrainingSample, ...], rubric: WrittenRubric, recipe: RankingRecipe
) -> tuple[tuple[str, ...], ...] | None:
    """What people wrote about each image, if that counts."""
    if not settings.text:
        return None
    found = references_of(text_samples(settings.text, {}), samples, rubric, recipe.rewards.words)
    require_words(found)
    return found


def _whole_images(opinions: list[Opinion]) -> list[Opinion]:
    """The opinions, all of an image in the data set that has it first: a file per attribute makes no data set."""
    first: dict[Path, Opinion] = {}
    for opinion in opinions:
        first.setdefault(opinion.path, opinion)
    return [
        replace(one, dataset=first[one.path].dataset, image=first[one.path].image, group=first[one.path].group)
        for one in opinions
    ]


def _resolved(settings: RankingSettings) -> RankingSettings:
    try:
        return settings.resolved()
    except ValidationError as error:
        faults = "; ".join(f"--{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise CallerError(faults) from None


def _require_possible(recipe: RankingRecipe, num_workers: int, *, has_texts: bool) -> None:
    """Raises CallerError for settings that do not fit together, or that there is nothing for yet."""
    weights = recipe.rewards.composition.weights
    if (WORDS in weights) != has_texts:
        raise CallerError(
            "--text is for the reward words, which has no weight here: leave it out, or name its weight"
            if has_texts
            else "the reward words needs what people wrote: give --text, or name the rewards without it"
        )
    if recipe.rewards.alignment != "within" and recipe.batches == "homogeneous":
        raise CallerError(
            f"--rewards.alignment {recipe.rewards.alignment} compares images of several data sets, and homogeneous "
            "batches have those of one: add --batches mixed"
        )
    if recipe.batches == "mixed" and recipe.alpha != RankingRecipe.model_fields["alpha"].default:
        raise CallerError("--alpha is about homogeneous batches, and mixed ones have all data sets alike: leave it out")
    require_whole_weights(recipe.zero_stage)
    if recipe.images % num_workers:
        raise CallerError(f"--images {recipe.images} cannot be shared evenly by {num_workers} workers")
    if recipe.images * recipe.rollouts % (num_workers * recipe.micro_batch):
        raise CallerError(
            f"--images {recipe.images} x --rollouts {recipe.rollouts} is no multiple of {num_workers} workers x "
            f"--micro-batch {recipe.micro_batch}; choose one that is"
        )


def _written(rubric: AnyRubric) -> WrittenRubric:
    """The rubric, if a model can be ranked by what it writes. Raises CallerError."""
    if not isinstance(rubric, WrittenRubric):
        raise CallerError(
            f"rubric {rubric.id} has closed sets of answers, and ranking needs answers that are drawn: give a written "
            f"--rubric, such as {written_names()[0]}"
        )
    if rubric.slots:
        raise CallerError(f"rubric {rubric.id} has slots, and ranking does not fill them yet: take a rubric without")
    return rubric


def _require_fits_rubric(recipe: RankingRecipe, rubric: WrittenRubric) -> None:
    """Raises CallerError for rewards of what the rubric's answers do not have."""
    if CAPTION in recipe.rewards.composition.weights and rubric.output.grammar is not Grammar.PERCEPTION:
        raise CallerError(
            f"the reward {CAPTION} needs answers with a caption, and those of rubric {rubric.id} have none: take a "
            f"--rubric with the grammar {Grammar.PERCEPTION}, or name the rewards without it"
        )
    if unknown := sorted(recipe.rewards.attributes.keys() - set(rubric.names)):
        raise CallerError(
            f"--rewards.attributes: rubric {rubric.id} has no {unknown[0]}; it has {', '.join(rubric.names)}"
        )
    if not any(recipe.rewards.attributes.get(name, 1) for name in rubric.names):
        raise CallerError("--rewards.attributes: every weight is 0, so that no attribute is worth anything")


def _require_opinions(people: Opinions, recipe: RankingRecipe, rubric: WrittenRubric) -> None:
    """Raises CallerError for rewards by opinions that nobody gave."""
    rewards, weights = recipe.rewards, recipe.rewards.composition.weights
    counts_A = np.array([rewards.attributes.get(name, 1) > 0 for name in rubric.names])
    if OF_OPINIONS & weights.keys() and not np.isfinite(people.y_NA[:, counts_A]).any():
        raise CallerError("--train has no opinion on an attribute whose weight in --rewards.attributes is above 0")
    spreads = {"fidelity": rewards.preferences == "soft", "margin": rewards.tolerance == "sigma"}
    for name in spreads.keys() & weights.keys():
        if spreads[name] and not np.isfinite((people.y_NA + people.s_NA)[:, counts_A]).any():
            raise CallerError(
                f"the reward {name} needs the standard deviation of opinions here, and --train has none: give it, or "
                "leave out --rewards.preferences soft and --rewards.tolerance sigma"
            )


def _by_dataset(samples: tuple[TrainingSample, ...]) -> str:
    counts = Counter(sample.dataset for sample in samples)
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
