"""Texts that come with an image, such as the prompt it was made from -> what a rubric's slots are filled with.

One boundary for job, endpoint and notebook: a text is here, or the image is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from iqa_core.records import Reason, Rejection

MAX_CHARS = 2000
"""Characters of a text; a token of the demo and of byte-level tokenizers is at most 4 bytes of them."""


SAMPLE_TEXT = "a room"
"""The text of every slot where the bundled sample images are asked about, which are rooms."""


class TooLong(StrEnum):
    """What happens to a text above the bound."""

    REFUSE = "refuse"
    """Its image is rejected, `too_large`."""
    CUT = "cut"
    """Its beginning is asked about."""


@dataclass(frozen=True, slots=True)
class TextLimits:
    """The bound on a slot's text, and what happens above it."""

    max_chars: int = MAX_CHARS
    too_long: TooLong = TooLong.REFUSE

    def is_cut(self, text: str) -> bool:
        """Whether a text is asked about in part only."""
        return self.too_long is TooLong.CUT and len(text.strip()) > self.max_chars


def texts_of(
    slots: Sequence[str], values: Mapping[str, object], limits: TextLimits = TextLimits()
) -> dict[str, str] | Rejection:
    """The text of every slot of one image, or why the image cannot be asked about.

    values: by slot; white space around a text is taken off. One that is absent, null, blank or no text at all is
    `missing_text`; one above the bound is cut, or `too_large`. Lone surrogates, which no tokenizer takes, are letters
    (`\\ud83d`), as carried columns have them: so is the text of a job, which comes from one.
    """
    found: dict[str, str] = {}
    for slot in slots:
        value = values.get(slot)
        text = value.strip().encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ""
        if not text:
            return Rejection(Reason.MISSING_TEXT, f"there is no text for {{{slot}}}")
        if len(text) > limits.max_chars and limits.too_long is TooLong.REFUSE:
            return Rejection(
                Reason.TOO_LARGE, f"the text for {{{slot}}} has {len(text)} characters, above {limits.max_chars}"
            )
        found[slot] = text[: limits.max_chars]
    return found


def sample_texts(slots: Sequence[str], num_images: int) -> list[dict[str, str]] | None:
    """SAMPLE_TEXT in every slot of some images, to try a model on them; None where there are no slots."""
    return [dict.fromkeys(slots, SAMPLE_TEXT)] * num_images if slots else None
