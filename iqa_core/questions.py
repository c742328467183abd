"""What is asked of a model about an image, and which column of scores its answer becomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iqa_core.records import FIVE_LEVELS, RATING, AnswerScale, ScoreRange

STATEMENT = "statement"
"""The placeholder of a checklist's query that its statements take."""

BETWEEN = "\n"
"""What stands between an image and a question about it, unless a rubric says otherwise."""

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")
"""A name in braces: where a query takes a text."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text that a model is asked, and the closed set of answers whose probabilities are read."""

    name: str
    """Of its dimension or statement."""
    query: str
    """Stands behind the image and `between`, verbatim but for the placeholders of its slots."""
    answer_start: str
    """The forced beginning of the answer. An answer follows after a space; at once, where it is empty."""
    scale: AnswerScale
    slots: tuple[str, ...] = ()
    """Names of the texts that it needs, which come with each image."""
    between: str = BETWEEN
    """White space behind the image, or none."""

    def filled(self, texts: Mapping[str, str]) -> Question:
        """The question about an image with these texts, slot -> text; it has no slots then."""
        return replace(self, query=replaced(self.query, {slot: texts[slot] for slot in self.slots}), slots=())


@dataclass(frozen=True, slots=True)
class ColumnScale:
    """What the numbers in a column of scores can be."""

    range: ScoreRange = RATING
    worths: tuple[float, ...] = tuple(map(float, FIVE_LEVELS.levels))
    """Of a dimension's answers, worst to best; none for a group, which has a probability per statement."""
    is_group: bool = False

    @property
    def max_std(self) -> float:
        """Largest standard deviation: half of everything at each end."""
        return (max(self.worths) - min(self.worths)) / 2 if self.worths else self.range.width / 2

    @property
    def has_two_answers(self) -> bool:
        """Whether the question is one of yes or no."""
        return len(self.worths) == 2

    def to_json(self) -> dict[str, Any]:
        """As a plan has it."""
        ends = {"worst": self.range.worst, "best": self.range.best}
        return {**ends, "worths": list(self.worths), "is_group": self.is_group}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ColumnScale:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for other content."""
        ends = ScoreRange(float(content["worst"]), float(content["best"]))
        return cls(ends, tuple(map(float, content["worths"])), bool(content["is_group"]))


LEVELS = ColumnScale()
"""The scale of every dimension that does not say otherwise: five levels, worth 1 to 5."""


def own_scales(columns: Iterable[Column]) -> dict[str, ColumnScale]:
    """Name -> scale, of the columns that are not five levels worth 1 to 5."""
    return {column.name: column.scale for column in columns if column.scale != LEVELS}


def scales_json(scales: Mapping[str, ColumnScale]) -> dict[str, Any]:
    """Name -> scale as a JSON value."""
    return {name: scale.to_json() for name, scale in scales.items()}


@dataclass(frozen=True, slots=True)
class Column:
    """A score: the answer to one question, or the weighted share of yes among a group's statements."""

    name: str
    scale: ColumnScale
    questions: tuple[int, ...]
    """Indices into `Rubric.questions`: one, or those of a group's statements."""
    shares: tuple[float, ...]
    """Weights of a group's statements, which sum to 1; (1.0,) for one question."""
    weight: float
    """How much it counts in the reward, until weights are fitted."""


def asked_alone(columns: Sequence[Column], names: Sequence[str]) -> tuple[list[int], list[Column]]:
    """Numbers of the questions behind some columns, and these columns as they count questions then.

    names: of the columns, which keep their order. Raises ValueError on one that is not there, or where there is none.
    """
    known = [column.name for column in columns]
    if not names or (unknown := sorted({*names} - {*known})):
        raise ValueError(f"{', '.join(unknown) if names else 'nothing'} is asked; there are {', '.join(known)}")
    chosen = [column for column in columns if column.name in set(names)]
    numbers = sorted({number for column in chosen for number in column.questions})
    return numbers, [replace(one, questions=tuple(map(numbers.index, one.questions))) for one in chosen]


def yes_column(group: str) -> str:
    """The column with the probability of yes of each of a group's statements, in the rubric's order."""
    return f"{group}_yes"


def placeholders(query: str) -> list[str]:
    """Names in braces that a query holds, in order."""
    return PLACEHOLDER.findall(query)


def replaced(query: str, texts: Mapping[str, str]) -> str:
    """The query with texts in place of their placeholders; braces inside a text stay as they are."""
    return PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), query)
