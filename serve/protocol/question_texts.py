"""A text, and the model that its sender names -> the question of a served rubric that the text is.

A text is a question only if it is, word for word, what the rubric asks: so the model reads what the caller wrote. Where
the query has a slot it may say anything, and a query of nothing but a slot is any text at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iqa_core.errors import listed
from iqa_core.questions import Question, placeholders
from iqa_core.rubrics import AnyRubric, Rubric, WrittenRubric
from serve.errors import Refusal
from serve.model.asking import Texts

NO_QUESTION = "model: no question here is one text: that takes a rubric without slots, or with one, once in the query"
MAX_SHOWN = 200
"""Characters of a query in a refusal."""
MAX_QUERIES = 8
"""Queries in a refusal."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """One question of a rubric, and the text of its slot."""

    rubric: str
    """Id."""
    question: Question
    texts: Texts


def asked_question(model: str, text: str, rubrics: Sequence[AnyRubric]) -> AskedQuestion:
    """The question that a text is. model: `<rubric>` or `<rubric>/<question>`; rubrics: those that are served.

    Raises Refusal (422) where the text is none of them, or several.
    """
    named = [(rubric.id, one) for rubric in rubrics for one in askable(rubric) if model in _names(rubric, one)]
    if not named:
        served = listed([name for rubric in rubrics for name in model_names(rubric)])
        raise Refusal(422, f"model: {model[:64]!r} is none of {served}" if served else NO_QUESTION, param="model")
    found = [(rubric, one, texts) for rubric, one in named if (texts := texts_in(text, one)) is not None]
    if not found:
        wanted = listed([repr(one.query[:MAX_SHOWN]) for _, one in named], MAX_QUERIES, "; or ")
        raise Refusal(422, f"messages: {model} asks no such text; send {wanted}", param="messages")
    if len(found) > 1:
        fitting = ", ".join(f"{rubric}/{one.name}" for rubric, one, _ in found)
        raise Refusal(422, f"model: this text is more than one question; send one of {fitting}", param="model")
    return AskedQuestion(*found[0])


def model_names(rubric: AnyRubric) -> list[str]:
    """What a client may send as its model: the rubric's id, or one of its questions."""
    return list(dict.fromkeys(name for one in askable(rubric) for name in _names(rubric, one)))


def askable(rubric: AnyRubric) -> list[Question]:
    """The questions that one text can be: with a column to itself, and with the rubric's slot, where it has one.

    None of a written rubric, which has no closed set.
    """
    if isinstance(rubric, WrittenRubric):
        return []
    alone = (rubric.questions[one.questions[0]] for one in rubric.columns if not one.scale.is_group)
    return [one for one in alone if len(rubric.slots) <= 1 and _slots_in(one.query, rubric) == rubric.slots]


def texts_in(text: str, question: Question) -> Texts | None:
    """The text of the question's slot where a text is that question; None where it is another.

    White space around a text does not count; around words it does not either where there is no slot.
    """
    if not question.slots:
        return {} if text.split() == question.query.split() else None
    [slot] = question.slots
    before, after = question.query.strip().split(f"{{{slot}}}")
    text = text.strip()
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        return None
    return {slot: text[len(before) : len(text) - len(after)]}


def _names(rubric: AnyRubric, question: Question) -> tuple[str, str]:
    return rubric.id, f"{rubric.id}/{question.name}"


def _slots_in(query: str, rubric: Rubric) -> tuple[str, ...]:
    """In order, each as often as it is there."""
    return tuple(one for one in placeholders(query) if one in rubric.slots)
