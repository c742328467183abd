"""A rubric's slots, and the carried columns that they are bound to -> the texts of each image, or why it has none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.chunks import READING
from iqa_core.corpus.columns import table_names
from iqa_core.errors import CallerError
from iqa_core.records import Rejection
from iqa_core.slots import TextLimits, TooLong, columns_of, texts_of

SHOWN_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class SlotColumns:
    """Where the text of each slot comes from, and the bound on a text; no columns where the rubric has no slots."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Slot -> carried column, by its name in the score table."""
    limits: TextLimits = TextLimits()

    def texts(self, carried: pa.Table) -> list[dict[str, str] | Rejection] | None:
        """For each row its texts, slot -> text, or its rejection; None where there are no slots."""
        if not self.columns:
            return None
        values = {slot: carried.column(name).to_pylist() for slot, name in self.columns.items()}
        rows = zip(*values.values(), strict=True)
        return [texts_of(tuple(values), dict(zip(values, row, strict=True)), self.limits) for row in rows]

    @property
    def that_may_be_cut(self) -> list[str]:
        """Columns that `num_cut` needs beside `reason`."""
        return sorted(set(self.columns.values())) if self.limits.too_long is TooLong.CUT else []

    def num_cut(self, rows: pa.Table) -> int:
        """Rows of the score table that were scored by a text of which only the beginning was asked about."""
        if not (names := self.that_may_be_cut):
            return 0
        scored = rows.filter(pc.is_null(rows.column("reason"))).select(names)
        # few texts are long; white space around them is taken off before they are measured
        are_long = [pc.greater(pc.utf8_length(column), self.limits.max_chars) for column in scored.columns]
        found = scored.filter(reduce(pc.or_kleene, are_long)).to_pylist()
        return sum(any(self.limits.is_cut((text or "").strip()) for text in row.values()) for row in found)

    def check(self, carried: pa.Schema) -> None:
        """Raises CallerError, which names the slot, for a column that is not carried, or is no text."""
        for slot, name in self.columns.items():
            if name not in carried.names:
                raise CallerError(
                    f"the rubric asks about each image's {{{slot}}}, and no input has a column {name}: name another by "
                    f"--slot {slot}=COLUMN ({_shown(carried.names)}); --carry NAME:string makes a column of a field of "
                    "JSON sidecars"
                )
            if not pa.types.is_string(carried.field(name).type):
                raise CallerError(
                    f"--slot {slot}={name}: the column is {carried.field(name).type}, and a slot takes text; name "
                    "another column, or carry this one as text by --carry NAME:string"
                )

    def describe(self) -> str:
        """What is bound to what, in one line; empty where there are no slots."""
        if not self.columns:
            return ""
        bound = ", ".join(f"{{{slot}}} is column {name}" for slot, name in self.columns.items())
        fate = "cut" if self.limits.too_long is TooLong.CUT else "rejected"
        return f"{bound}; longer than {self.limits.max_chars:,} characters: {fate}"

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; empty where there are no slots."""
        limits = {"too_long": str(self.limits.too_long), "max_chars": self.limits.max_chars}
        return {"columns": dict(self.columns), **limits} if self.columns else {}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SlotColumns:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for what it did not write."""
        if not content:
            return cls()
        return cls(dict(content["columns"]), TextLimits(int(content["max_chars"]), TooLong(content["too_long"])))


NO_SLOTS = SlotColumns()
"""Of a rubric that asks about images alone."""


def bound(given: Sequence[str], slots: Sequence[str], limits: TextLimits, own: Collection[str]) -> SlotColumns:
    """The columns of a rubric's slots; a slot that no flag names is bound to the column of its own name.

    given: `slot=column` flags, with names of the input's columns; own: names of the score table's own columns.
    Raises CallerError as `columns_of` does.
    """
    columns = columns_of(given, slots, limits)
    return SlotColumns({slot: table_names([name], own, READING)[0] for slot, name in columns.items()}, limits)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return f"columns there: {', '.join(names[:SHOWN_COLUMNS])}{more}" if names else "no input has columns"
