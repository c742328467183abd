"""Settings -> a training task, checked: every image decoded, every text encoded, before anything starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.fake import PREFIX
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import ModelPreparer
from iqa_core.differences import differences
from iqa_core.errors import CallerError, IqaError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.reliable import reliable
from iqa_core.rubrics.load import closed_set, rubric_named
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute, join, scratch_of
from iqa_core.training.checking import Usable, usable
from iqa_core.training.parts import require_trainable
from iqa_core.training.recipe import Recipe
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample, level_samples, require_known_weights, text_samples
from iqa_core.training.schedule import Schedule
from iqa_core.training.split import require_disjoint, split
from iqa_core.training.task import TrainingTask
from jobs.claims import TRAINING, require_own
from jobs.command import SECRET_FIELDS
from jobs.training.settings import TrainSettings

NAMED = "rubric_named"
"""Key of training.json: the rubric's id and origin, for people; its digest says what it asks."""
MACHINES = frozenset(
    "output storage_options worker_cpus worker_gpus threads max_failures dry_run log_every".split()
) | {"ray_address", "code_on_nodes"}
"""Settings that may differ from one start of a run to the next."""


@dataclass(frozen=True)
class TrainingJob:
    """What does not change during a run: a training task, and where its results go."""

    settings: TrainSettings
    task: TrainingTask
    dropped: Mapping[str, int]
    """Reason -> opinions or samples that were left out, or (`shrunk to fit`) changed."""
    identity: Mapping[str, Any]
    """What the run must be started with again to go on."""

    @property
    def storage(self) -> Storage:
        """Where the output lies."""
        return Storage(self.settings.storage_options)

    def describe(self) -> Iterator[str]:
        """Lines for people."""
        task, recipe = self.task, self.task.recipe
        steps, accumulation = recipe.steps(len(task.train)), recipe.accumulation(self.settings.num_workers)
        yield f"base       {self.settings.base}"
        yield f"rubric     {task.rubric.id}, prompt version {task.rubric.prompt_version}"
        yield f"train      {_counted(task.train)}"
        yield f"validate   {_counted(task.validation)}"
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


def checked(settings: TrainSettings) -> TrainingJob:
    """The job, with all checked that can be before training starts. Raises CallerError."""
    settings = settings.model_copy(update={"output": absolute(settings.output)})
    require_own(Storage(settings.storage_options), settings.output, TRAINING)
    if settings.base.startswith(PREFIX):
        raise CallerError(f"--base {settings.base}: there is no model behind it that could be trained")
    recipe = Recipe.model_validate(settings.model_dump(include=set(Recipe.model_fields)))
    recipe.accumulation(settings.num_workers)
    config = AssessorConfig(checkpoint=settings.base, max_pixels=settings.max_pixels)
    spec = describe(config, settings.rubric, own_limits(config))
    assert isinstance(spec.preparer, ModelPreparer)
    rubric = closed_set(spec.rubric, "training")
    encoder = SampleEncoder(load_processor(materialise(settings.base)), rubric, spec.preparer)
    train, validation, dropped = _samples(settings, recipe, encoder)
    require_trainable(materialise(settings.base), recipe)
    digests = {name: spec.fingerprint_parts[name] for name in ("weights", "tokenizer", "rubric")}
    task = TrainingTask(
        base=spec.checkpoint,
        rubric=rubric,
        preparer=spec.preparer,
        recipe=recipe,
        train=train.samples,
        validation=validation.samples,
        threads=settings.threads or max(1, int(settings.worker_cpus)),
    )
    dropped.update(train.counts)
    dropped.update(validation.counts)
    identity = settings.model_dump(mode="json", exclude=set(MACHINES)) | {
        "digests": digests,
        "train_samples": len(train.samples),
        "validation_samples": len(validation.samples),
        NAMED: rubric_named(rubric.id, settings.rubric),
    }
    if recipe.augment_prompts_paraphrase:  # no part of the rubric's digest, since they decide no score
        identity["paraphrases"] = {d.name: list(d.paraphrases) for d in rubric.dimensions}
    return TrainingJob(settings, task, dropped, identity)


def claim(job: TrainingJob) -> None:
    """Make the output this run's own, or find that it is. Raises CallerError that says what differs."""
    uri = join(job.settings.output, TRAINING)
    content = json.dumps(job.identity, indent=2, sort_keys=True) + "\n"
    try:
        job.storage.begin(uri, content.encode(), scratch=scratch_of(job.settings.output))
        there = job.storage.read_object(uri)
    except IqaError as error:
        raise CallerError(f"--output {job.settings.output} cannot be used: {error}") from error
    here = json.loads(content)
    named = [identity.pop(NAMED, "") for identity in (there, here)]
    if differing := differences(there, here):
        if any(text.startswith("digests.rubric:") for text in differing):
            differing.insert(0, f"rubric: {named[0] or 'one without a name'} there, {named[1]} now")
        shown = "\n".join(f"  {text}" for text in differing)
        raise CallerError(
            f"--output {job.settings.output} holds a run that was started otherwise:\n{shown}\n"
            "give another --output, or the same settings"
        )


def shown_settings(settings: TrainSettings) -> dict[str, Any]:
    """The resolved settings as JSON values, without secrets."""
    return settings.model_dump(mode="json", exclude=set(SECRET_FIELDS))


def _samples(settings: TrainSettings, recipe: Recipe, encoder: SampleEncoder) -> tuple[Usable, Usable, Counter[str]]:
    weights = _weights(settings.weight)
    opinions, dropped = _reliable(settings, settings.train)
    if settings.validation:
        train, (validation, more) = opinions, _reliable(settings, settings.validation)
        dropped.update(more)
        require_disjoint(train, validation)
    else:
        train, validation = split(opinions, settings.validation_fraction, settings.split_by, settings.seed)
    parts = (
        level_samples(train, encoder.rubric, recipe.targets, weights, paraphrased=recipe.augment_prompts_paraphrase)
        + text_samples(settings.text, weights),
        level_samples(validation, encoder.rubric, recipe.targets, {}),
    )
    require_known_weights(weights, parts[0])
    found = [
        usable(
            part,
            encoder,
            max_tokens=settings.max_tokens,
            too_long=settings.too_long,
            skip_unreadable=settings.skip_unreadable,
        )
        for part in parts
    ]
    return found[0], found[1], dropped


def _reliable(settings: TrainSettings, addresses: list[str]) -> tuple[list[Opinion], Counter[str]]:
    opinions = load_opinions(addresses)
    kept, dropped = reliable(opinions.rows, settings.min_raters, settings.max_std)
    return kept, Counter(opinions.dropped) + dropped


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


def padding_of(job: TrainingJob) -> float:
    """Share of tokens that will be padding."""
    return Schedule(job.task.recipe, [sample.tokens for sample in job.task.train]).padding()
