"""What an output keeps of written answers -> the columns of its score table; other outputs have none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

CAPTION, REASONING = "written_caption", "written_reasoning"
ANSWERS, PARSED, FINISH = "written_answers", "written_parsed", "written_finish"


@dataclass(frozen=True, slots=True)
class WrittenColumns:
    """What is kept beside the scores."""

    all_samples: bool = False
    """Whether every answer is kept, verbatim."""

    @property
    def schema(self) -> pa.Schema:
        """The columns, in order; null where an image is rejected."""
        fields = [(CAPTION, pa.string()), (REASONING, pa.string())]
        fields += [(ANSWERS, pa.list_(pa.string()))] * self.all_samples
        return pa.schema([*fields, (PARSED, pa.int32()), (FINISH, pa.string())])

    def to_json(self) -> dict[str, Any]:
        """As a plan has it."""
        return {"all_samples": self.all_samples}

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> WrittenColumns | None:
        """The inverse of `to_json`; None for None. Raises KeyError or TypeError for other content."""
        return None if content is None else cls(bool(content["all_samples"]))
