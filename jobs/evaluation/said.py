"""What a model wrote about images, while it is judged -> its texts and numbers by image, apart from its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqa_core.assessor.protocol import Assessor, CaptionReader
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, Rejection, Written
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.written.columns import CAPTION, REASONING
from iqa_core.written.form import Attribute, Grammar
from iqa_core.written.parsing import Parsed, parsed

PARTS = ("caption", "reasoning")


@dataclass(frozen=True, slots=True)
class Said:
    """What was written about one image, of which at least one answer was parsed."""

    caption: str | None
    """Of the first answer that was parsed, as the score table has it; None where the grammar has none."""
    reasoning: str | None
    """Likewise."""
    samples: tuple[Parsed | None, ...] = ()
    """Every answer, None where it was not parsed; empty where only the first is known."""
    attributes: tuple[Attribute, ...] = ()
    """Of each answer's numbers; empty where only scores are known."""

    def texts(self, part: str) -> tuple[str, ...]:
        """One of PARTS of each answer that was parsed, the first one's first; empty where the grammar has none."""
        texts = [one.caption if part == "caption" else one.reasoning for one in self.samples if one is not None]
        first = self.caption if part == "caption" else self.reasoning
        return tuple(text for text in (texts or [first]) if text is not None)

    def numbers(self, name: str) -> tuple[float, ...]:
        """An attribute by each answer, 1 (worst) to 5 (best); empty where one was not parsed, or none is known."""
        parsed_ones = [one for one in self.samples if one is not None]
        if len(parsed_ones) < len(self.samples):
            return ()
        return tuple(
            attribute.range.rating(one.values[k])
            for one in parsed_ones
            for k, attribute in enumerate(self.attributes)
            if attribute.name == name
        )


def has_captions(rubric: AnyRubric) -> bool:
    """Whether captions of its answers can be rated by themselves: the question needs no texts of the image's own."""
    return isinstance(rubric, WrittenRubric) and rubric.output.grammar is Grammar.PERCEPTION and not rubric.slots


def parts_of(rubric: WrittenRubric) -> frozenset[str]:
    """Which of PARTS its answers have."""
    output = rubric.output
    if output.grammar is Grammar.PERCEPTION:
        return frozenset(PARTS)
    return frozenset({"reasoning"}) if output.thought_tag or output.reasoning else frozenset()


def said_by_assessor(results: Iterable[tuple[Path, Assessment | Rejection]], rubric: AnyRubric) -> dict[Path, Said]:
    """By image; nothing of a rubric with slots, by which an image has several answers, or with closed sets."""
    if not isinstance(rubric, WrittenRubric) or rubric.slots:
        return {}
    written = ((path, one.written) for path, one in results if isinstance(one, Assessment) and one.written is not None)
    return {
        path: Said(own.caption, own.reasoning, _samples(own, rubric), rubric.form.attributes) for path, own in written
    }


def _samples(written: Written, rubric: WrittenRubric) -> tuple[Parsed | None, ...]:
    """Each answer by itself; empty where this would tell another story than the scores.

    That is so where numbers are read as distributions, and where an answer was cut right behind a number.
    """
    if rubric.decoding.readout != "parsed":
        return ()
    found = [parsed(text, rubric.form) for text in written.answers]
    samples = tuple(one if isinstance(one, Parsed) else None for one in found)
    return samples if sum(one is not None for one in samples) == written.parsed else ()


def said_in_table(rows: Iterable[tuple[Path, Mapping[str, Any] | None]]) -> dict[Path, Said]:
    """By image, from rows of a score table with columns of written answers; nothing of rejected images."""
    return {path: Said(row[CAPTION], row[REASONING]) for path, row in rows if row is not None and row["reason"] is None}


def caption_reader(assessor: Assessor) -> CaptionReader:
    """The assessor, if it can be asked without an image. Raises CallerError where it cannot."""
    if not isinstance(assessor, CaptionReader):
        raise CallerError("--caption-only: this engine writes about images alone; leave it out, or name another engine")
    return assessor


def rated_captions(assessor: CaptionReader, said: Mapping[Path, Said]) -> dict[Path, float]:
    """What the assessor reads from each caption alone, 1 (worst) to 5 (best), NaN where that is no rating.

    Its rubric has captions, see `has_captions`.
    """
    captions = {path: one.caption for path, one in said.items() if one.caption is not None}
    print(f"captions    {len(captions):,} are rated without their images", flush=True)
    return dict(zip(captions, map(float, assessor.rate_captions(list(captions.values()))), strict=True))
