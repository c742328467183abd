"""Images of a step and the model as it is now -> the answers that it draws about them, and what these say.

Shape suffixes: N images, K rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import RunError
from iqa_core.records import Finish, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.ranking.recipe import RankingRecipe
from iqa_core.training.rewards.answers import Answers, read
from iqa_core.training.rewards.arrays import Floats
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.written.form import Form
from iqa_core.written.judging import Sample

if TYPE_CHECKING:
    from iqa_core.assessor.model.generation.decoding import Answer


@dataclass(frozen=True, slots=True)
class Rollout:
    """An answer that was drawn."""

    text: str
    finish: Finish
    ids: tuple[int, ...]
    """Its tokens, that which ended the turn included: all that the model chose."""
    log_probs: tuple[float, ...]
    """Of each of them, as the model that drew it saw them."""


@dataclass(frozen=True)
class Said:
    """What answers say, of some images of a step: all that other workers need of them."""

    answers: Answers
    distinct_N: tuple[int, ...]
    """Different texts among an image's answers."""
    cut_N: tuple[int, ...]
    """Answers that reached the limit."""
    tokens_N: tuple[int, ...]
    """Tokens of all of an image's answers."""
    judged_NK: Floats | None = None
    """What the model reads from each caption alone, where that is asked for; NaN where it reads nothing."""
    judged_by_base_NK: Floats | None = None
    """What its base reads there: a code between captions and ratings that training made is none to it."""

    @classmethod
    def of(cls, rollouts_NK: Sequence[Sequence[Rollout]], form: Form) -> Said:
        """By the parser that scoring has."""
        samples = [[Sample(one.text, one.finish) for one in rollouts] for rollouts in rollouts_NK]
        return cls(
            read(samples, form),
            tuple(len({one.text for one in rollouts}) for rollouts in rollouts_NK),
            tuple(sum(one.finish is Finish.LENGTH for one in rollouts) for rollouts in rollouts_NK),
            tuple(sum(len(one.ids) for one in rollouts) for rollouts in rollouts_NK),
        )

    @classmethod
    def dealt(cls, parts: Sequence[Said]) -> Said:
        """What all workers' images say, where image i of the step is worker i's modulo their number."""
        count = sum(len(part.distinct_N) for part in parts)
        order = [(i % len(parts), i // len(parts)) for i in range(count)]
        answers = [part.answers for part in parts]
        return cls(
            Answers(
                np.stack([answers[w].q_NKA[i] for w, i in order]),
                tuple(answers[w].captions_NK[i] for w, i in order),
                tuple(answers[w].reasonings_NK[i] for w, i in order),
            ),
            tuple(parts[w].distinct_N[i] for w, i in order),
            tuple(parts[w].cut_N[i] for w, i in order),
            tuple(parts[w].tokens_N[i] for w, i in order),
            _dealt([part.judged_NK for part in parts], order),
            _dealt([part.judged_by_base_NK for part in parts], order),
        )


def _dealt(parts: Sequence[Floats | None], order: Sequence[tuple[int, int]]) -> Floats | None:
    """Rows of all workers in the order of the step; None where none has any."""
    found = [part for part in parts if part is not None]
    return np.stack([found[w][i] for w, i in order]) if found else None


def drawing_rubric(rubric: WrittenRubric, recipe: RankingRecipe) -> WrittenRubric:
    """The rubric with several answers per image, drawn from all tokens without penalties: from the model's own
    distribution, which is what a policy's gradient is about."""
    return rubric.model_copy(update={"decoding": recipe.drawing.model_copy(update={"stop": rubric.decoding.stop})})


class Drawer:
    """Writes with a model that is being trained, by its weights of the moment: none is copied."""

    def __init__(self, model: Any, processor: Any, encoder: SampleEncoder, recipe: RankingRecipe) -> None:
        """Raises CallerError when the model cannot write by a cache as it would without one."""
        from iqa_core.assessor.model.writing import WritingAssessor

        assert isinstance(encoder.rubric, WrittenRubric)
        self._encoder, self._seed = encoder, recipe.seed
        self._writer = WritingAssessor(
            model,
            processor,
            drawing_rubric(encoder.rubric, recipe),
            encoder.preparer,
            "",
            AssessorConfig().batch_tokens,
            keeps_model=True,
            measures=True,
        )

    def __call__(self, samples: Sequence[TrainingSample], step: int) -> list[list[Rollout]]:
        """Answers about each image. They follow from weights, image, seed and step, whoever else is written about.

        The model must be in evaluation mode. Raises RunError where a logit is no number, or an image does not fit.
        """
        self._encoder.expect(samples)  # once for each answer, by the model and its base
        images = [self._encoder.prepared(sample) for sample in samples]
        seed = int(np.random.SeedSequence([self._seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        found = self._writer.answers(images, seed=seed)
        return [
            [_rollout(one, sample) for one in _answers(of_image, sample)]
            for of_image, sample in zip(found, samples, strict=True)
        ]


def _answers(found: Sequence[Answer] | Rejection, sample: TrainingSample) -> Sequence[Answer]:
    if isinstance(found, Rejection):
        raise RunError(f"{sample.image} cannot be written about: {found.detail}")
    return found


def _rollout(answer: Answer, sample: TrainingSample) -> Rollout:
    if not answer.is_finite:
        raise RunError(f"a logit is no number where {sample.image} is written about; lower --learning-rate")
    end = () if answer.end is None else (answer.end,)
    return Rollout(answer.text, answer.finish, answer.ids + end, answer.log_probs)
