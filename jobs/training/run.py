"""Settings of a training -> what both trainings check, claim and read in the same way before anything starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.fake import PREFIX
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.differences import differences
from iqa_core.errors import CallerError, IqaError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import CUT_TEXT, Opinion
from iqa_core.opinions.reliable import reliable
from iqa_core.opinions.terms import Terms
from iqa_core.rubrics import AnyRubric
from iqa_core.rubrics.load import rubric_named
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute, join, scratch_of
from iqa_core.training.checking import usable
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.training.split import require_disjoint, split
from iqa_core.training.task import TrainingTask
from jobs.claims import TRAINING, require_own
from jobs.command import SECRET_FIELDS
from jobs.opinion_texts import OpinionTexts
from jobs.training.settings import RunSettings

NAMED = "rubric_named"
"""Key of training.json: the rubric's id and origin, for people; its digest says what it asks."""
MACHINES = frozenset(
    "output storage_options worker_cpus worker_gpus threads max_failures dry_run log_every".split()
) | {"ray_address", "code_on_nodes"}
"""Settings that may differ from one start of a run to the next."""

SLOTS = frozenset(OpinionTexts.model_fields)
LATER = {"number_weight": 1, "calibrate": False}
"""Settings that came after the first runs -> the value that these were begun with."""

NAME_WIDTH = 11
"""Characters of a line for people before its value."""

SPREADS_WEIGHTS = 3
"""The stage of ZeRO at which no worker has all weights."""

S = TypeVar("S", bound=RunSettings)


@dataclass(frozen=True)
class TrainingRun:
    """What does not change during a run: a training task, and where its results go."""

    settings: RunSettings
    task: TrainingTask
    dropped: Mapping[str, int]
    """Reason -> opinions or samples that were left out, or (`shrunk to fit`) changed."""
    identity: Mapping[str, Any]
    """What the run must be started with again to go on."""

    @property
    def storage(self) -> Storage:
        """Where the output lies."""
        return Storage(self.settings.storage_options)

    def describe(self) -> Iterable[str]:
        """Lines for people."""
        raise NotImplementedError

    def facts(self) -> list[tuple[str, str]]:
        """The same as names and values; a value without a name goes with the one before it."""
        return [(line[:NAME_WIDTH].strip(), line[NAME_WIDTH:]) for line in self.describe()]

    def foresee(self) -> Iterator[str]:
        """Lines for people who ask what would be done, and that take a moment."""
        yield from ()


def begun(settings: S) -> tuple[S, AssessorSpec]:
    """The settings with a whole output, and what is known of the base without loading it. Raises CallerError."""
    settings = settings.model_copy(update={"output": absolute(settings.output)})
    require_own(Storage(settings.storage_options), settings.output, TRAINING)
    if settings.base.startswith(PREFIX):
        raise CallerError(f"--base {settings.base}: there is no model behind it that could be trained")
    config = AssessorConfig(checkpoint=settings.base, max_pixels=settings.max_pixels)
    return settings, describe(config, settings.rubric, own_limits(config))


def identity_of(settings: RunSettings, spec: AssessorSpec, rubric: AnyRubric) -> dict[str, Any]:
    """What a run must be started with again to go on, but for its data."""
    # runs of older versions have none of these
    unused = frozenset() if spec.rubric.slots else SLOTS
    unused |= {name for name, value in LATER.items() if getattr(settings, name, value) == value}
    return settings.model_dump(mode="json", exclude=set(MACHINES | unused)) | {
        "digests": {name: spec.fingerprint_parts[name] for name in ("weights", "tokenizer", "rubric")},
        NAMED: rubric_named(rubric.id, settings.rubric),
    }


def claim(run: TrainingRun) -> None:
    """Make the output this run's own, or find that it is. Raises CallerError that says what differs."""
    uri = join(run.settings.output, TRAINING)
    content = json.dumps(run.identity, indent=2, sort_keys=True) + "\n"
    try:
        run.storage.begin(uri, content.encode(), scratch=scratch_of(run.settings.output))
        there = run.storage.read_object(uri)
    except IqaError as error:
        raise CallerError(f"--output {run.settings.output} cannot be used: {error}") from error
    here = json.loads(content)
    named = [identity.pop(NAMED, "") for identity in (there, here)]
    if differing := differences(there, here):
        if any(text.startswith("digests.rubric:") for text in differing):
            differing.insert(0, f"rubric: {named[0] or 'one without a name'} there, {named[1]} now")
        shown = "\n".join(f"  {text}" for text in differing)
        raise CallerError(
            f"--output {run.settings.output} holds a run that was started otherwise:\n{shown}\n"
            "give another --output, or the same settings"
        )


def shown_settings(settings: RunSettings) -> dict[str, Any]:
    """The resolved settings as JSON values, without secrets."""
    return settings.model_dump(mode="json", exclude=set(SECRET_FIELDS))


def require_whole_weights(zero_stage: int) -> None:
    """Raises CallerError where a model that is to write in training would lie on no worker as a whole."""
    if zero_stage == SPREADS_WEIGHTS:
        raise CallerError("--zero-stage 3 spreads the weights, and each worker writes with all of them: take 0 or 2")


def divided(
    settings: RunSettings, seed: int, opinions: list[Opinion], terms: Terms, dropped: Counter[str]
) -> tuple[list[Opinion], list[Opinion]]:
    """Opinions of --train to learn from, and those to validate by: a part of them, or those of --validation.

    Raises CallerError when an image is in both.
    """
    if not settings.validation:
        return split(opinions, settings.validation_fraction, settings.split_by, seed)
    validation, more = reliable_opinions(settings, settings.validation, terms)
    dropped.update(more)
    require_disjoint((row.path for row in opinions), (row.path for row in validation))
    return opinions, validation


def usable_samples(
    samples: Sequence[TrainingSample], encoder: SampleEncoder, settings: RunSettings, dropped: Counter[str]
) -> tuple[TrainingSample, ...]:
    """Those that can be trained on; the others are counted in `dropped`."""
    found = usable(
        samples,
        encoder,
        max_tokens=settings.max_tokens,
        too_long=settings.too_long,
        skip_unreadable=settings.skip_unreadable,
    )
    dropped.update(found.counts)
    return found.samples


def reliable_opinions(settings: RunSettings, addresses: list[str], terms: Terms) -> tuple[list[Opinion], Counter[str]]:
    """Opinions of files, and reason -> rows that were left out or changed."""
    opinions = load_opinions(addresses, terms=terms)
    kept, dropped = reliable(opinions.rows, settings.min_raters, settings.max_std)
    cut = Counter({CUT_TEXT: sum(opinion.is_cut for opinion in kept)})
    return kept, Counter(opinions.dropped) + dropped + cut
