"""What a written answer must look like: its grammar, and the numbers that stand in it.

A form is made by a written rubric, read by `parsing` and written by `writing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iqa_core.records import RATING, ScoreRange


class Grammar(StrEnum):
    """How the parts of an answer follow one another; white space may stand between them."""

    ATTRIBUTES = "attributes"
    """A thought, then one line `Label: number, Label: number, …`."""
    PERCEPTION = "perception"
    """`<caption>`, `<reasoning>` and `<rating>`, each once; a number is in the last."""
    TAGGED_NUMBER = "tagged-number"
    """A thought, then a number in `<answer>`."""
    TAGGED_JSON = "tagged-json"
    """A thought, then an object of JSON in `<answer>`, with a number for each attribute."""
    JSON = "json"
    """An object of JSON: one of texts called `reasoning`, where there are any, then a number for each attribute."""


LABELLED = frozenset({Grammar.ATTRIBUTES, Grammar.TAGGED_JSON, Grammar.JSON})
"""Grammars in which each number has a label; the others have one number."""

THINKING = frozenset({Grammar.ATTRIBUTES, Grammar.TAGGED_NUMBER, Grammar.TAGGED_JSON})
"""Grammars that may begin with a thought."""

ANSWERING = frozenset({Grammar.TAGGED_NUMBER, Grammar.TAGGED_JSON})
"""Grammars with an `<answer>`."""

LAST_ANSWER, STRIP_PREFIX = "last_answer", "strip_prefix"
LENIENT = (LAST_ANSWER, STRIP_PREFIX)
"""The lenient switches: of several `<answer>` the last counts; an empty `<think>` before the answer is taken off."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number of an answer."""

    name: str
    """Column of scores."""
    label: str
    """What stands before the number; empty where the grammar has no labels."""
    range: ScoreRange = RATING
    """Ends of what may be said, both 0 or more; it is brought to 1 (worst) to 5 (best)."""
    decimals: int = 2
    """Digits behind the point, at most."""


@dataclass(frozen=True, slots=True)
class Form:
    """All that parsing an answer depends on."""

    grammar: Grammar
    attributes: tuple[Attribute, ...]
    """In the order of the answer; one, where the grammar has no labels."""
    thought: str | None = None
    """Tag of the thought, without its brackets; None where the answer has none."""
    reasoning: tuple[str, ...] = ()
    """Keys of the texts of `reasoning`, in JSON alone."""
    is_quoted: bool = False
    """Whether numbers are strings of JSON."""
    last_answer: bool = False
    strip_prefix: bool = False
