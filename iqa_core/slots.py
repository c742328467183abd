"""Texts that come with an image, such as the prompt it was made from -> what a rubric's slots are filled with.

One boundary for job, endpoint and notebook: a text is here, or the image is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from iqa_core.errors import CallerError
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
        return self.too_long is TooLong.CUT and len(_letters(text)) > self.max_chars


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
        text = _letters(value) if isinstance(value, str) else ""
        if not text:
            return Rejection(Reason.MISSING_TEXT, f"there is no text for {{{slot}}}")
        if len(text) > limits.max_chars and limits.too_long is TooLong.REFUSE:
            return Rejection(
                Reason.TOO_LARGE, f"the text for {{{slot}}} has {len(text)} characters, above {limits.max_chars}"
            )
        found[slot] = text[: limits.max_chars]
    return found


def _letters(text: str) -> str:
    """A text as it is asked about, at full length."""
    return text.strip().encode("utf-8", "backslashreplace").decode()


def columns_of(given: Sequence[str], slots: Sequence[str], limits: TextLimits) -> dict[str, str]:
    """Slot -> column of an input that its texts come from: the one of its own name, unless a flag names another.

    given: `--slot` flags, each `slot=column`. Raises CallerError on any other form, a slot that the rubric does not
    have, one that is given twice, and limits where there are no slots.
    """
    named: dict[str, str] = {}
    for flag in given:
        slot, _, column = flag.partition("=")
        if not slot or not column:
            raise CallerError(f"--slot {flag}: give it as slot=column")
        if slot not in slots:
            there = f"slots are {', '.join(slots)}" if slots else "it has none"
            raise CallerError(f"--slot {flag}: the rubric has no slot {slot} ({there})")
        if slot in named:
            raise CallerError(f"--slot {slot} is given twice, as {named[slot]} and as {column}")
        named[slot] = column
    if not slots and limits != TextLimits():
        raise CallerError("--slot-too-long and --slot-chars are about texts for slots, and the rubric has none")
    return dict(zip(slots, slots, strict=True)) | named


def sample_texts(slots: Sequence[str], num_images: int) -> list[dict[str, str]] | None:
    """SAMPLE_TEXT in every slot of some images, to try a model on them; None where there are no slots."""
    return [dict.fromkeys(slots, SAMPLE_TEXT)] * num_images if slots else None
