"""What is asked of a model about an image, and which column of scores its answer becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from iqa_core.records import AnswerScale, ScoreRange

STATEMENT = "statement"
"""The placeholder of a checklist's query that its statements take."""

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")
"""A name in braces: where a query takes a text."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text that a model is asked, and the closed set of answers whose probabilities are read."""

    name: str
    """Of its dimension or statement."""
    query: str
    """Stands behind the image, verbatim but for the placeholders of its slots."""
    answer_start: str
    """The forced beginning of the answer. An answer follows after a space; at once, where it is empty."""
    scale: AnswerScale
    slots: tuple[str, ...] = ()
    """Names of the texts that it needs, which come with each image."""

    def filled(self, texts: Mapping[str, str]) -> Question:
        """The question about an image with these texts, slot -> text; it has no slots then."""
        return replace(self, query=replaced(self.query, {slot: texts[slot] for slot in self.slots}), slots=())


@dataclass(frozen=True, slots=True)
class Column:
    """A score: the answer to one question, or the weighted share of yes among a group's statements."""

    name: str
    range: ScoreRange
    questions: tuple[int, ...]
    """Indices into `Rubric.questions`: one, or those of a group's statements."""
    shares: tuple[float, ...]
    """Weights of a group's statements, which sum to 1; (1.0,) for one question."""
    weight: float
    """How much it counts in the reward, until weights are fitted."""
    is_group: bool = False


def yes_column(group: str) -> str:
    """The column with the probability of yes of each of a group's statements, in the rubric's order."""
    return f"{group}_yes"


def placeholders(query: str) -> list[str]:
    """Names in braces that a query holds, in order."""
    return PLACEHOLDER.findall(query)


def replaced(query: str, texts: Mapping[str, str]) -> str:
    """The query with texts in place of their placeholders; braces inside a text stay as they are."""
    return PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), query)
