"""Images of the validation part -> what a model in training writes about them -> numbers, and examples for people.

What is true of an image is what its own answer in the data says, or what people's opinions say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.records import Assessment, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.rubrics.written import Decoding
from iqa_core.training.sample_encoder import SampleEncoder
from iqa_core.training.samples import TrainingSample
from iqa_core.written.parsing import Parsed, parsed

MOST_IMAGES = 100
"""Images that are written about at each validation: seconds for a small model, and the SRCC is known to .03."""

NUM_EXAMPLES = 4
"""Images whose answers are kept."""

MAX_CHARACTERS = 1000
"""Of an answer that is kept; a caption and a reasoning have 300 to 800."""

UNPARSED = "answer that does not parse"
"""Reason why a text is left out."""


@dataclass(frozen=True, slots=True)
class Rated:
    """An image that is written about, and what is true of it."""

    sample: TrainingSample
    ratings: Mapping[str, float]
    """Attribute of the rubric -> 1 (worst) to 5 (best)."""

    @property
    def as_scored(self) -> TrainingSample:
        """The sample with the picture that scoring has, whatever its image was shrunk to."""
        return replace(self.sample, max_pixels=None)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model wrote about an image."""

    text: str
    """Verbatim; where nothing was parsed, the reason and how the answer begins."""
    ratings: Mapping[str, float] | None
    """Attribute -> number, brought to 1 (worst) to 5 (best); None where nothing was parsed."""


@dataclass(frozen=True, slots=True)
class Example:
    """What was written about an image at one validation, and what is true of the image."""

    image: str
    """Its path."""
    text: str
    """As the model wrote it, or why nothing was read from it; up to MAX_CHARACTERS."""
    ratings: Mapping[str, float] | None
    """Attribute -> 1 (worst) to 5 (best), as it was written; None where the answer was not parsed."""
    opinions: Mapping[str, float]
    """The same, as people say."""


def parsable(samples: Iterable[TrainingSample], rubric: WrittenRubric) -> tuple[list[TrainingSample], Counter[str]]:
    """The samples but for those that answer the rubric's question in another form, and the number of these."""
    kept, dropped = [], Counter[str]()
    for sample in samples:
        if sample.query == rubric.question and not isinstance(parsed(sample.answer, rubric.form), Parsed):
            dropped[UNPARSED] += 1
        else:
            kept.append(sample)
    return kept, dropped


def rated_by_answers(samples: Iterable[TrainingSample], rubric: WrittenRubric) -> tuple[Rated, ...]:
    """The first MOST_IMAGES images with an answer to the rubric's question, each with its numbers."""
    found: dict[Any, Rated] = {}
    for sample in samples:
        said = parsed(sample.answer, rubric.form)
        if sample.query == rubric.question and isinstance(said, Parsed):
            pairs = zip(rubric.form.attributes, said.values, strict=True)
            found.setdefault(sample.image, Rated(sample, {one.name: one.range.rating(value) for one, value in pairs}))
    return tuple(found.values())[:MOST_IMAGES]


def asked_about(opinions: Iterable[Opinion], rubric: WrittenRubric) -> list[TrainingSample]:
    """The rubric's question about each image of the opinions, without an answer."""
    images = {opinion.path: opinion.dataset for opinion in opinions}
    return [TrainingSample(image, rubric.question, "", dataset) for image, dataset in images.items()]


def rated_by_opinions(
    samples: Iterable[TrainingSample], opinions: Iterable[Opinion], rubric: WrittenRubric
) -> tuple[Rated, ...]:
    """The first MOST_IMAGES samples, each with the opinions on its image.

    Raises CallerError for an opinion on what the rubric has no number for.
    """
    ratings: dict[Any, dict[str, float]] = {}
    for opinion in opinions:
        if opinion.dimension not in rubric.names:
            raise CallerError(
                f"--validation has opinions on {opinion.dimension}, but rubric {rubric.id} has "
                f"{', '.join(rubric.names)}"
            )
        ratings.setdefault(opinion.path, {})[opinion.dimension] = opinion.mos
    return tuple(Rated(sample, ratings[sample.image]) for sample in samples)[:MOST_IMAGES]


def greedy(rubric: WrittenRubric) -> WrittenRubric:
    """The rubric with one answer per image, the likeliest token at each step, and numbers as they are written."""
    kept = {"max_new_tokens", "stop", "suppress_image", "repetition_penalty", "presence_penalty"}
    decoding = Decoding.model_validate(rubric.decoding.model_dump(include=kept))
    return rubric.model_copy(update={"decoding": decoding})


def written_answers(
    model: Any, processor: Any, rubric: WrittenRubric, encoder: SampleEncoder, rated: Sequence[Rated]
) -> list[Answered]:
    """What the model writes about each image.

    The model is in evaluation mode afterwards, and else as it was.
    """
    from iqa_core.assessor.model.writing import WritingAssessor

    tokens = AssessorConfig().batch_tokens
    assessor = WritingAssessor(model, processor, rubric, encoder.preparer, "", tokens, keeps_model=True)
    results = assessor.assess([encoder.prepared(each.as_scored) for each in rated])
    return [_answered(result, rubric) for result in results]


def _answered(result: Assessment | Rejection, rubric: WrittenRubric) -> Answered:
    if isinstance(result, Rejection):
        return Answered(result.detail, None)
    assert result.written is not None
    return Answered(result.written.answers[0], dict(zip(rubric.names, map(float, result.scores_K), strict=True)))


def examples_of(rated: Sequence[Rated], answered: Sequence[Answered]) -> tuple[Example, ...]:
    """Examples about NUM_EXAMPLES images or fewer, from the worst image to the best by the mean of people's opinions.

    answered: about each of the rated images. Which images are taken follows from `rated` alone.
    """
    goodness_N = [np.mean(list(each.ratings.values())) for each in rated]
    order = np.argsort(goodness_N, kind="stable")
    taken = order[np.unique(np.linspace(0, len(rated) - 1, NUM_EXAMPLES).round().astype(np.int64))]
    return tuple(_example(rated[i], answered[i]) for i in taken)


def _example(rated: Rated, answered: Answered) -> Example:
    text = answered.text
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS - 2]} …"
    return Example(str(rated.sample.image), text, answered.ratings, rated.ratings)
