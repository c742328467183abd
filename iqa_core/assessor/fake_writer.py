"""What a fake assessor sees of an image -> answers in the grammar of a written rubric, true to the numbers in them.

They are a function of the image's mean colour, its texts and the answer's number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import numpy as np

from iqa_core.records import FIVE_LEVELS, Assessment, Finish, FreeAnswer, FreeQuestion, Rejection
from iqa_core.rubrics import WrittenRubric
from iqa_core.written.form import Attribute, Grammar
from iqa_core.written.judging import NOT_FINITE, Reading, Sample, judged
from iqa_core.written.writing import written_as

if TYPE_CHECKING:
    from numpy.typing import NDArray

Seen: TypeAlias = tuple[float, Mapping[str, str], bool]
"""An image: its turn, its texts by slot, and whether it is one that gets no finite score."""

WORDS = ("bad", "poor", "fair", "good", "excellent")
"""Of the five levels, worst to best."""

TURN_PER_SAMPLE = 0.013
"""How much an answer differs from the one before, in turns: scores by up to 0.2."""


class FakeWriter:
    """Writes about images of which it knows a colour."""

    def __init__(self, rubric: WrittenRubric, cut_share: float) -> None:
        """cut_share: of answers that are cut off somewhere, 0 to 1."""
        self._rubric = rubric
        self._cut_share = cut_share

    def results(self, seen: Sequence[Seen]) -> list[Assessment | Rejection]:
        """One per image."""
        numbers = range(self._rubric.decoding.samples)
        return [judged([self._sample(one, number) for number in numbers], self._rubric.form) for one in seen]

    def described(self, seen: Sequence[Seen], questions: Sequence[FreeQuestion]) -> list[FreeAnswer | Rejection]:
        """One answer per image, which ends in the question; each word is a token."""
        return [
            NOT_FINITE if is_nan else _free_answer(turn, question)
            for (turn, _, is_nan), question in zip(seen, questions, strict=True)
        ]

    def rated(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """What each caption says of the image, 1 to 5; NaN where it names no level.

        Raises TypeError where answers have no caption.
        """
        if self._rubric.output.grammar is not Grammar.PERCEPTION:
            raise TypeError(f"answers by {self._rubric.id} have no caption")
        levels = [[WORDS.index(word) for word in caption.split() if word in WORDS] for caption in captions]
        return np.array([FIVE_LEVELS.worst + found[0] if found else math.nan for found in levels], np.float64)

    def _sample(self, seen: Seen, number: int) -> Sample:
        turn, texts, is_nan = seen
        form = self._rubric.form
        turn += turn_of_texts([texts[slot] for slot in self._rubric.slots]) + TURN_PER_SAMPLE * number
        values = [_value(turn + k / len(form.attributes), one) for k, one in enumerate(form.attributes)]
        said = [f"The {one.name} is {_word(value, one)}." for value, one in zip(values, form.attributes, strict=True)]
        is_perception = form.grammar is Grammar.PERCEPTION
        has_reasoning = is_perception or form.thought or form.reasoning
        reasoning = "\n".join([" ".join(said)] * max(1, len(form.reasoning))) if has_reasoning else None
        caption = f"Something {_word(values[0], form.attributes[0])} is seen." if is_perception else None
        text = written_as(values, form, caption, reasoning)
        lot = crc32(f"{turn!r} {number}".encode()) / 2**32
        if lot < self._cut_share:  # where, is another function of the same lot
            return Sample(text[: int(len(text) * (lot * 1e3 % 1))], Finish.LENGTH)
        if is_nan or self._rubric.decoding.readout == "expected":
            means = [math.nan] * len(values) if is_nan else values
            stds = [one.range.width / 40 for one in form.attributes]
            return Sample(text, readings=tuple(map(Reading, means, stds)))
        return Sample(text)


def _free_answer(turn: float, question: FreeQuestion) -> FreeAnswer:
    said = _word(FIVE_LEVELS.middle * (1 + math.sin(2 * math.pi * turn) / 2), Attribute("quality", ""))
    words = f"It is {said}. {question.text}".split()
    is_whole = len(words) < question.max_tokens  # else it is cut before it can end
    return FreeAnswer(" ".join(words[: question.max_tokens]), Finish.STOP if is_whole else Finish.LENGTH)


def turn_of(pixels_HWC: NDArray[np.uint8]) -> float:
    """Turns of a circle that depend on the mean colour."""
    # sums of whole numbers are exact in any order; this one takes a seventh of the time of `mean`
    red, green, blue = pixels_HWC.sum(axis=0, dtype=np.uint64).sum(axis=0) / pixels_HWC[..., 0].size / 255
    return float(0.61 * red + 0.83 * green + 1.07 * blue)


def turn_of_texts(texts: Sequence[str]) -> float:
    """A share of a turn that depends on every letter of the texts; 0 where there are none."""
    return crc32("\0".join(texts).encode("utf-8", "surrogatepass")) / 2**32


def _value(turn: float, attribute: Attribute) -> float:
    """A number in the attribute's range, as its decimals can say it."""
    own = attribute.range
    value = round(own.middle + own.width / 2 * math.sin(2 * math.pi * turn), attribute.decimals)
    return min(max(value, own.low), own.high)


def _word(value: float, attribute: Attribute) -> str:
    own = attribute.range
    return WORDS[FIVE_LEVELS.nearest(1 + 4 * (value - own.worst) / (own.best - own.worst))]
