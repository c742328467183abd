"""What a run reports, step by step -> files of its output, of one JSON object per line, whichever workers it had."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join
from iqa_core.training.validation import RANK

FIGURES = "figures.jsonl"
"""In the output: one object per report, by step."""
TEXTS = "texts.jsonl"
"""In the output: what was written about a few images, at each validation."""

MAX_VALIDATIONS = 24
"""Those whose texts are kept, at most: 24 x 4 answers of up to 1,000 characters."""

NOT_CURVES = frozenset({"step", "steps", RANK})
"""Figures that are not drawn."""

Record = dict[str, Any]


@dataclass(frozen=True)
class RecordsFile:
    """Objects with a `step`, in the order of their steps; of one step there may be several."""

    storage: Storage
    uri: str

    @classmethod
    def of(cls, output: str, storage: Storage, name: str) -> RecordsFile:
        """The file of this name in a run's output."""
        return cls(storage, join(output, name))

    def read(self) -> list[Record]:
        """All objects; none before the first report."""
        try:
            return [json.loads(line) for line in self.storage.read(self.uri).splitlines()]
        except Missing:
            return []

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the file in one step: a reader never sees half of a line."""
        self.storage.put(self.uri, "".join(f"{json.dumps(record)}\n" for record in records).encode())


@dataclass
class Log:
    """What a run's first worker adds to a file, step by step."""

    file: RecordsFile
    max_steps: int | None = None
    """Steps of which something is kept; None is all."""
    _records: list[Record] | None = None

    def add(self, step: float, records: Iterable[Mapping[str, Any]]) -> None:
        """Write what there is of a step behind that of earlier ones.

        Steps that are done again after a restart replace what was noted of them.
        """
        known = self.file.read() if self._records is None else self._records
        found = [record for record in known if record["step"] < step]
        found += [{"step": step, **record} for record in records]
        self._records = found if self.max_steps is None else _thinned(found, self.max_steps)
        self.file.write(self._records)


def _thinned(records: list[Record], max_steps: int) -> list[Record]:
    """Those of max_steps steps at most: of every second, fourth, eighth … validation from the first, and of the last.

    The more steps a run has, the fewer are taken, and none that was left out before.
    """
    if not records:
        return []
    every, last = records[0]["step"], records[-1]["step"]
    gap = every
    while (last - every) / gap > max_steps - 2:
        gap *= 2
    return [record for record in records if (record["step"] - every) % gap == 0 or record["step"] == last]
