"""`--slot` flags -> where the texts that opinions are about come from; for every job that takes annotations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from iqa_core.slots import MAX_CHARS, TextLimits, TooLong
from jobs.command import JobSettings


class OpinionTexts(JobSettings):
    """Settings of texts that a rubric's slots take."""

    slot: list[str] = Field(default_factory=list)
    """slot=column of the annotations whose text fills a slot of the rubric, by default the one of its own name."""
    slot_too_long: Literal["refuse", "cut"] = "refuse"
    """What to do with a text of more than --slot-chars: leave its opinion out, or ask about the text's beginning."""
    slot_chars: int = Field(default=MAX_CHARS, ge=1)
    """Characters of a slot's text at most."""

    @property
    def text_limits(self) -> TextLimits:
        """The bound on a text, and what happens above it."""
        return TextLimits(self.slot_chars, TooLong(self.slot_too_long))
