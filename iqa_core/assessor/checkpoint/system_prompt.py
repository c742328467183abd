"""A rubric and a checkpoint's args.json -> the system prompt that the model is given, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from iqa_core.assessor.checkpoint.files import read_json
from iqa_core.errors import CallerError
from iqa_core.rubrics import AnyRubric, BaseRubric, WrittenRubric

ARGS_FILE: Literal["args.json"] = "args.json"
"""File that ms-swift writes beside trained weights; its key `system` is the system prompt of the training."""

SomeRubric = TypeVar("SomeRubric", bound=BaseRubric)


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """The text of the system turn, and where it comes from."""

    text: str | None
    """None passes no system turn; the chat template may then write one of its own."""
    origin: Literal["rubric", "args.json", "none"]

    def describe(self) -> str:
        """Text and origin in one line, for people."""
        if self.text is None:
            return "none given; the chat template decides"
        return f"{self.text!r}, from {'the rubric' if self.origin == 'rubric' else self.origin}"

    def within(self, rubric: SomeRubric) -> SomeRubric:
        """The rubric with this system prompt, so that the rubric's digest covers all text that the model is given."""
        # validated anew, not copied: its text may have a slot's name in braces
        return (
            rubric
            if self.text == rubric.system
            else type(rubric).model_validate(rubric.model_dump() | {"system": self.text})
        )


def system_prompt(rubric: AnyRubric, folder: Path | None) -> SystemPrompt:
    """The rubric's own system prompt, else the one of args.json beside the weights, else none.

    A written rubric says all that the model is given: its empty text is an empty turn, and args.json is not asked.
    folder: of the checkpoint; None where there is no checkpoint. Elsewhere an empty text is no system prompt.
    Raises CallerError when args.json is malformed.
    """
    if isinstance(rubric, WrittenRubric):
        return SystemPrompt(rubric.system, "none" if rubric.system is None else "rubric")
    if rubric.system:
        return SystemPrompt(rubric.system, "rubric")
    return SystemPrompt(None, "none") if folder is None else checkpoints_own(folder)


def checkpoints_own(folder: Path) -> SystemPrompt:
    """The system prompt of args.json beside the weights, else none. Raises CallerError when args.json is malformed."""
    given = read_json(folder / ARGS_FILE).get("system")
    if not isinstance(given, str | None):
        raise CallerError(f"{folder}/{ARGS_FILE}: system is {given!r}; a text is wanted")
    return SystemPrompt(given, ARGS_FILE) if given else SystemPrompt(None, "none")
