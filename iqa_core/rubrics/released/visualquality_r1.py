"""The README.md of VisualQuality-R1, in its checkout or beside its weights -> a written rubric in its words.

Its examples ask for a thought and a number (`thinking`), or for the number alone (`plain`). They set no temperature, so
what they draw depends on a checkpoint's file; here it is 1, which is transformers' own default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.reading import ReleasedWords
from iqa_core.rubrics.released.source import Quote, Source, agreed, python_blocks
from iqa_core.rubrics.released.turns import (
    Turn,
    asked_text,
    call_settings,
    has_system_turn,
    order,
    template_arguments,
    user_turns,
)
from iqa_core.rubrics.released.writers import Writer, written_reading

T = TypeVar("T")

PAGE = "README.md"
FORMS = ("thinking", "plain")
THOUGHT, ANSWER = "<think>", "<answer>"
LIMIT, TEMPERATURE = "max_new_tokens", "temperature"


@dataclass(frozen=True, slots=True)
class _Example:
    """A block that asks its own question about one image."""

    block: Source
    turns: Sequence[Turn]
    question: Quote[str]


def read_visualquality_r1(folder: Path, form: str = FORMS[0]) -> ReleasedWords:
    """The rubric. Raises CallerError when no example asks so, or when two of them do not say the same."""
    thinks = form == "thinking"
    asking = _asking(folder, thinks)
    decoding, notes = _decoding(asking)
    templates = [template_arguments(one.block) for one in asking]
    return written_reading(
        folder,
        Writer(
            id="visualquality-r1" if thinks else f"visualquality-r1-{form}",
            description="VisualQuality-R1's own question (arXiv 2505.14460), as its examples ask it.",
            question=agreed("question", [one.question for one in asking]),
            parts=agreed("order of image and text", [order(one.block, one.turns) for one in asking]),
            template=_all_agreed(templates),
            output={"grammar": "tagged-number", "thought": "think" if thinks else "none", "last_answer": True},
            asks_for=(THOUGHT, ANSWER) if thinks else (ANSWER,),
            decoding=decoding,
            assumed={} if TEMPERATURE in decoding else {TEMPERATURE: 1},
            notes=notes,
        ),
    )


def _asking(folder: Path, thinks: bool) -> list[_Example]:
    """Examples that ask for a thought, or that do not."""
    answering = [one for one in _examples(folder) if ANSWER in one.question.value]
    asking = [one for one in answering if (THOUGHT in one.question.value) == thinks]
    if not asking:
        raise CallerError(
            f"{PAGE} has no example in Python whose question has {ANSWER} {'and' if thinks else 'without'} {THOUGHT}: "
            "the words are not where they were"
        )
    if any(has_system_turn(one.block) for one in asking):
        raise CallerError(f"{PAGE} has an example with a system turn, and had none: the words are not what they were")
    return asking


def _examples(folder: Path) -> list[_Example]:
    found = []
    for block in python_blocks(folder, PAGE):
        turns = user_turns(block)
        questions = [text for turn in turns if (text := asked_text(block, turn.text)) is not None]
        if questions:
            found.append(_Example(block, turns, agreed("question", questions)))
    return found


def _decoding(asking: Sequence[_Example]) -> tuple[dict[str, Quote[float]], tuple[str, ...]]:
    settings = [call_settings(one.block) for one in asking]
    limits = _each(settings, LIMIT)
    longest, notes = max(limits, key=lambda limit: limit.value), []
    if len({limit.value for limit in limits}) > 1:
        said = " and ".join(f"{limit.value:g} ({limit.place})" for limit in limits)
        notes.append(f"its examples have {said} as {LIMIT}; the largest is taken, which cuts the fewest answers")
    found = _all_agreed([{name: one[name] for name in one if name != LIMIT} for one in settings])
    return {LIMIT: longest, **found}, tuple(notes)


def _all_agreed(found: Sequence[Mapping[str, Quote[T]]]) -> dict[str, Quote[T]]:
    """What all examples have, name by name."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: agreed(name, _each(found, name)) for name in names}


def _each(found: Sequence[Mapping[str, Quote[T]]], name: str) -> list[Quote[T]]:
    """What each example has there. Raises CallerError where one has it and another has not."""
    have = [one[name] for one in found if name in one]
    if len(have) != len(found):
        raise CallerError(f"{PAGE}: not every example sets {name}, so it cannot be told what holds")
    return have
