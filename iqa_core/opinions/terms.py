"""A rubric and `--slot` flags -> what columns of texts and numbers of opinions mean for each of its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import NumberRange, Texts
from iqa_core.opinions.rows import Row
from iqa_core.records import Reason, ScoreRange
from iqa_core.rubrics import Rubric
from iqa_core.slots import TextLimits, columns_of, texts_of

LEFT_OUT = {Reason.MISSING_TEXT: "no text for a slot", Reason.TOO_LARGE: "a text above --slot-chars"}
"""Why a row whose text is of no use gives no opinion."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rubric says of a file with opinions on its questions."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Slot -> column with its texts."""
    limits: TextLimits = TextLimits()
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Dimension or statement -> slots whose texts an opinion on it needs."""
    all_slots: tuple[str, ...] = ()
    """Those of an opinion on anything else."""
    ranges: Mapping[str, ScoreRange] = field(default_factory=dict)
    """Dimension, statement or group -> the range of its own."""

    def texts(self, row: Row, dimension: str) -> Texts | str:
        """The texts that a row's opinion is about, or the reason why it gives none.

        Raises CallerError when a column of texts is not there.
        """
        needed = self.needed(dimension)
        for slot in needed:
            if self.columns[slot] not in row.values:
                raise CallerError(
                    f"{row.place}: no column {self.columns[slot]} with texts for {{{slot}}}; there are "
                    f"{', '.join(row.values)}; name one by --slot {slot}=COLUMN"
                )
        found = texts_of(needed, {slot: row.values[self.columns[slot]] for slot in needed}, self.limits)
        return tuple(found.items()) if isinstance(found, dict) else LEFT_OUT[found.reason]

    def is_cut(self, row: Row, dimension: str) -> bool:
        """Whether only the beginning of a text of this row is asked about."""
        return any(self.limits.is_cut(row.values[self.columns[slot]]) for slot in self.needed(dimension))

    def needed(self, dimension: str) -> tuple[str, ...]:
        """Slots whose texts an opinion on a dimension or statement needs."""
        return self.slots.get(dimension, self.all_slots)

    def own_range(self, dimension: str, place: str) -> NumberRange:
        """Range of the numbers of `?range=own`. Raises CallerError where the rubric does not have the dimension."""
        if dimension not in self.ranges:
            known = f"the rubric has {', '.join(self.ranges)}" if self.ranges else "there is no rubric"
            raise CallerError(f"{place}: ?range=own takes the range of {dimension} from the rubric, and {known}")
        ends = self.ranges[dimension]
        return NumberRange(ends.worst, ends.best)


ANY = Terms()
"""Where no rubric is known: numbers are on 1..5 or on a range that the file's address gives."""


def terms_of(
    rubric: Rubric, given: Sequence[str] = (), limits: TextLimits = TextLimits(), *, whole: bool = False
) -> Terms:
    """What a rubric says of opinions on its questions.

    given: `--slot` flags. whole: an opinion needs the texts of all questions, as an image that is scored does, and not
    those of its own alone. Raises CallerError as `columns_of` does.
    """
    return Terms(
        columns_of(given, rubric.slots, limits),
        limits,
        {} if whole else {question.name: question.slots for question in rubric.questions},
        rubric.slots if whole else (),
        {column.name: column.scale.range for column in rubric.columns}
        | {question.name: question.scale.range for question in rubric.questions},
    )
