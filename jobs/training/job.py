"""Settings -> a training task, checked: every image decoded, every text encoded, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.errors import CallerError, RunError
from iqa_core.opinions.terms import terms_of
from iqa_core.rubrics import AnyRubric, Rubric, WrittenRubric, closed_set, written_names
from iqa_core.slots import columns_of
from iqa_core.training.parts import require_trainable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample, level_samples, require_known_weights, text_samples
from iqa_core.training.schedule import Schedule
from iqa_core.training.split import require_disjoint, split_texts
from iqa_core.training.task import TrainingTask
from iqa_core.training.written_validation import Rated, asked_about, parsable, rated_by_answers, rated_by_opinions
from jobs.training.run import (
    TrainingRun,
    begun,
    divided,
    identity_of,
    reliable_opinions,
    require_whole_weights,
    usable_samples,
)
from jobs.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainingJob(TrainingRun):
    """A fine-tuning on opinions, or on texts."""

    settings: TrainSettings

    def describe(self) -> Iterator[str]:
        """Lines for people."""
        task, recipe = self.task, self.task.recipe
        steps, accumulation = recipe.steps(len(task.train)), recipe.accumulation(self.settings.num_workers)
        yield f"base       {self.settings.base}"
        yield f"rubric     {task.rubric.id}, prompt version {task.rubric.prompt_version}"
        if task.rubric.slots:
            columns = columns_of(self.settings.slot, task.rubric.slots, self.settings.text_limits)
            bound = ", ".join(f"{{{slot}}} is column {column}" for slot, column in columns.items())
            fate = "cut" if self.settings.slot_too_long == "cut" else "left out"
            yield f"slots      {bound}; longer than {self.settings.slot_chars:,} characters: {fate}"
        yield f"train      {_counted(task.train)}"
        yield f"validate   {_counted(task.validation)}"
        if task.rated:
            yield f"           {len(task.rated):,} images are written about at each validation"
        yield from (f"           {count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        yield f"parts      vision {recipe.vision}, aligner {recipe.aligner}, language {recipe.language}"
        if recipe.augment_prompts_paraphrase or recipe.augment_prompts_drop:
            wordings = "query or paraphrase" if recipe.augment_prompts_paraphrase else "query"
            yield f"asked      by {wordings}, {recipe.augment_prompts_drop:.0%} of words left out"
        yield (
            f"steps      {steps:,} of {recipe.global_batch} samples: {self.settings.num_workers} workers x "
            f"{recipe.micro_batch} x {accumulation} accumulated, {recipe.precision}, ZeRO {recipe.zero_stage}"
        )
        yield f"output     {self.settings.output}"

    def foresee(self) -> Iterator[str]:
        """The share of padding, for which all steps are gone through."""
        padding = Schedule(self.task.recipe, [sample.tokens for sample in self.task.train]).padding()
        yield f"padding    {padding:.1%} of tokens"


def checked(settings: TrainSettings) -> TrainingJob:
    """The job, with all checked that can be before training starts. Raises CallerError."""
    settings, spec = begun(settings)
    recipe = Recipe.model_validate(settings.model_dump(include=set(Recipe.model_fields)))
    recipe.accumulation(settings.num_workers)
    assert isinstance(spec.preparer, ModelPreparer)
    rubric = _trained_rubric(settings, spec.rubric)
    encoder = SampleEncoder(load_processor(materialise(settings.base)), rubric, spec.preparer)
    if isinstance(rubric, WrittenRubric):
        data = _written_data(settings, encoder, rubric)
    else:
        data = _rated_data(settings, recipe, encoder, rubric)
    _require_kept_tokens(encoder, data.train)
    require_trainable(materialise(settings.base), recipe)
    task = TrainingTask(
        base=spec.checkpoint,
        rubric=rubric,
        preparer=spec.preparer,
        recipe=recipe,
        train=data.train,
        validation=data.validation,
        threads=settings.torch_threads,
        rated=data.rated,
    )
    identity = identity_of(settings, spec, rubric) | {
        "train_samples": len(data.train),
        "validation_samples": len(data.validation),
    }
    if recipe.augment_prompts_paraphrase and isinstance(
        rubric, Rubric
    ):  # no part of the rubric's digest, since they decide no score
        identity["paraphrases"] = {d.name: list(d.paraphrases) for d in rubric.dimensions}
    return TrainingJob(settings, task, data.dropped, identity)


@dataclass(frozen=True)
class _Data:
    """Both parts of the data."""

    train: tuple[TrainingSample, ...]
    validation: tuple[TrainingSample, ...]
    dropped: Counter[str]
    rated: tuple[Rated, ...] = ()


def _trained_rubric(settings: TrainSettings, rubric: AnyRubric) -> AnyRubric:
    """The rubric, if it fits what there is to learn from. Raises CallerError."""
    if settings.train:
        _require_defaults(settings, ("number_weight",), "numbers of written answers")
        return closed_set(rubric, "training on --train")
    if not settings.text:
        raise CallerError("there is nothing to learn from: give --train, or --text with a written --rubric")
    if not isinstance(rubric, WrittenRubric):
        raise CallerError(
            f"--text without --train teaches to write, and rubric {rubric.id} has closed sets of answers: give "
            f"--train, or a written --rubric, such as {written_names()[0]}"
        )
    if rubric.slots:
        raise CallerError(f"rubric {rubric.id} has slots, and --text has no texts for them: take a rubric without")
    require_whole_weights(settings.zero_stage)
    about_raters = () if settings.validation else ("min_raters", "max_std")
    for name in ("augment_prompts_paraphrase", "augment_prompts_drop", *about_raters):
        if getattr(settings, name):
            raise CallerError(f"--{name.replace('_', '-')} is about opinions, and there are none: leave it out")
    _require_defaults(settings, ("targets", "level_weight"), "level words")
    if settings.split_by != "image":
        raise CallerError(f"--split-by {settings.split_by}: texts have no group; leave it out")
    return rubric


def _require_defaults(settings: TrainSettings, names: Sequence[str], about: str) -> None:
    """Raises CallerError for a setting that would do nothing."""
    for name in names:
        if getattr(settings, name) != TrainSettings.model_fields[name].default:
            raise CallerError(f"--{name.replace('_', '-')} is about {about}, and there are none: leave it out")


def _written_data(settings: TrainSettings, encoder: SampleEncoder, rubric: WrittenRubric) -> _Data:
    """Answers to learn, and images to write about: a part of the answers', or those of opinions."""
    weights, terms = _weights(settings.weight), terms_of(rubric, settings.slot, settings.text_limits)
    texts, dropped = parsable(text_samples(settings.text, weights), rubric)
    require_known_weights(weights, texts)
    if not settings.validation:
        train, validation = (
            usable_samples(part, encoder, settings, dropped)
            for part in split_texts(texts, settings.validation_fraction, settings.seed)
        )
        rated = rated_by_answers(validation, rubric)
        if not rated:
            raise CallerError(
                f"no text of the validation part answers the question of rubric {rubric.id}, so nothing would tell "
                "which checkpoint is best; name another --rubric, or give --validation"
            )
        return _Data(train, validation, dropped, rated)
    opinions, more = reliable_opinions(settings, settings.validation, terms)
    dropped.update(more)
    require_disjoint((text.image for text in texts), (opinion.path for opinion in opinions), "--text")
    asked = usable_samples(asked_about(opinions, rubric), encoder, settings, dropped)
    return _Data(
        usable_samples(texts, encoder, settings, dropped), (), dropped, rated_by_opinions(asked, opinions, rubric)
    )


def _rated_data(settings: TrainSettings, recipe: Recipe, encoder: SampleEncoder, rubric: Rubric) -> _Data:
    """Opinions to learn, with texts beside them, and others to validate by."""
    weights = _weights(settings.weight)
    terms = terms_of(rubric, settings.slot, settings.text_limits)
    opinions, dropped = reliable_opinions(settings, settings.train, terms)
    train, validation = divided(settings, settings.seed, opinions, terms, dropped)
    parts = (
        level_samples(train, rubric, recipe.targets, weights, paraphrased=recipe.augment_prompts_paraphrase)
        + text_samples(settings.text, weights),
        level_samples(validation, rubric, recipe.targets, {}),
    )
    require_known_weights(weights, parts[0])
    learnt, held_out = (usable_samples(part, encoder, settings, dropped) for part in parts)
    return _Data(learnt, held_out, dropped)


def _require_kept_tokens(encoder: SampleEncoder, samples: Sequence[TrainingSample]) -> None:
    """Raises CallerError where a processor changes the tokens of an answer, or of a question with slots."""
    one_of_each = {bool(sample.texts): sample for sample in reversed(samples)}
    try:
        for _, sample in sorted(one_of_each.items(), reverse=True):
            encoder.batch([sample])
    except RunError as error:
        raise CallerError(str(error)) from None


def _weights(texts: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for name, number in map(_weight, texts):
        if name in weights:
            raise CallerError(f"--weight {name} is given twice, as {weights[name]:g} and as {number:g}")
        weights[name] = number
    return weights


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise CallerError(f"--weight {text}: write name=number, such as layout=2") from None


def _counted(samples: tuple[TrainingSample, ...]) -> str:
    images = len({sample.image for sample in samples})
    by_dimension = Counter(sample.level.dimension if sample.level else "text" for sample in samples)
    shown = ", ".join(f"{name} {count:,}" for name, count in by_dimension.items())
    return f"{len(samples):,} samples of {images:,} images ({shown})"
