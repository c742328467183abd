"""A rubric and a checkpoint's args.json -> the system prompt that the model is given, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iqa_core.assessor.checkpoint.files import read_json
from iqa_core.errors import CallerError
from iqa_core.rubrics import Rubric

ARGS_FILE: Literal["args.json"] = "args.json"
"""What ms-swift writes beside the weights that it trained; its key `system` is the prompt of the training."""


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """What stands in the system turn."""

    text: str | None
    """None: no system turn is passed. What the chat template then writes of its own is part of the template."""
    origin: Literal["rubric", "args.json", "none"]

    def describe(self) -> str:
        """One line for people."""
        if self.text is None:
            return "none given; the chat template decides"
        return f"{self.text!r}, from {'the rubric' if self.origin == 'rubric' else self.origin}"

    def within(self, rubric: Rubric) -> Rubric:
        """The same rubric with this system prompt, so that its digest covers all that reaches the model."""
        # validated anew, not copied: a copy would keep a digest that was computed before
        return (
            rubric if self.text == rubric.system else Rubric.model_validate(rubric.model_dump() | {"system": self.text})
        )


def system_prompt(rubric: Rubric, folder: Path | None) -> SystemPrompt:
    """The rubric's own if it names one, else that of args.json beside the weights, else none.

    folder: of the checkpoint; None where there is none. An empty text is no system prompt.
    Raises CallerError when args.json is malformed.
    """
    if rubric.system:
        return SystemPrompt(rubric.system, "rubric")
    return SystemPrompt(None, "none") if folder is None else checkpoints_own(folder)


def checkpoints_own(folder: Path) -> SystemPrompt:
    """That of args.json beside the weights, else none. Raises CallerError when args.json is malformed."""
    given = read_json(folder / ARGS_FILE).get("system")
    if not isinstance(given, str | None):
        raise CallerError(f"{folder}/{ARGS_FILE}: system is {given!r}; a text is wanted")
    return SystemPrompt(given, ARGS_FILE) if given else SystemPrompt(None, "none")
