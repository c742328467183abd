"""Blocks of decisions -> `<output>/decisions/*.parquet`, and `selection.json` last: the policy and its counts."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.errors import CallerError, RunError
from iqa_core.selection.policy import Policy
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of

PART_ROWS = 262_144
"""Rows of one file of the decision table: about 8 MB."""

GROUP_ROWS = 131_072
"""Rows of a row group: what a reader of the decision table takes at once."""

SELECTION_VERSION = 1
"""Raised by hand when a column or rule of the decision table changes its meaning."""


@dataclass(slots=True)
class DecisionCounts:
    """Counts of a decision table, fed block by block."""

    images: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> images."""
    _weights: list[tuple[float, float]] = field(default_factory=list)
    """Sum and sum of squares of each block."""

    def add(self, block: pa.Table) -> None:
        """Count a block of the decision table."""
        self.images += block.num_rows
        counts = block.column("reason").value_counts()
        self.dropped.update({entry["values"].as_py(): entry["counts"].as_py() for entry in counts})
        self.kept += self.dropped.pop(None, 0)  # type: ignore[call-overload]
        weights = block.column("weight").to_numpy()
        self._weights.append((float(weights.sum()), float(np.square(weights).sum())))

    @property
    def effective_images(self) -> float:
        """(sum of weights)^2 / sum of their squares: how many equal weights would vary a training set as much."""
        total = math.fsum(pair[0] for pair in self._weights)
        squares = math.fsum(pair[1] for pair in self._weights)
        return total**2 / squares if squares else 0.0

    def to_json(self) -> dict[str, Any]:
        """The counts as they stand in selection.json."""
        return {
            "images": self.images,
            "kept": self.kept,
            "dropped": self.images - self.kept,
            "dropped_by_reason": dict(sorted(self.dropped.items())),
            "effective_images": round(self.effective_images, 3),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the decision table."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The folder of one selection."""

    storage: Storage
    output: str

    def read(self) -> dict[str, Any] | None:
        """selection.json; None where no selection is complete. Raises CallerError where it is of another kind."""
        uri = join(self.output, "selection.json")
        if self.storage.stat(uri) is None:
            return None
        found = self.storage.read_object(uri, {"policy_digest": str, "policy": dict, "scores": list, "decisions": list})
        for name, keys in (("scores", {"chunks"}), ("decisions", {"file", "sha256"})):
            if not all(isinstance(entry, dict) and keys <= entry.keys() for entry in found[name]):
                raise CallerError(f"{uri}: its {name} are of another kind; give another folder")
        return found

    def write(
        self,
        blocks: Iterable[pa.Table],
        schema: pa.Schema,
        policy: Policy,
        about: Mapping[str, Any],
        settled: Sequence[Mapping[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Put the parts, remove those of an earlier and longer table, put selection.json; returns its content.

        settled: `decisions` of the selection.json that something was built on. Raises RunError when these would be
        others; the table then stays as it is.
        """
        counts = DecisionCounts()
        parts = self._write_parts(blocks, schema, counts, settled)
        for name in set(self.storage.names(self._folder)) - {part.name for part in parts}:
            self.storage.delete(join(self._folder, name))
        record = {
            "selection_version": SELECTION_VERSION,
            "policy": policy.to_json(),
            "policy_digest": policy.digest,
            **counts.to_json(),
            **about,
            "decisions": [{"file": part.name, "rows": part.rows, "sha256": part.sha256} for part in parts],
        }
        self.put(record)
        return record

    def put(self, record: Mapping[str, Any]) -> None:
        """Replace selection.json."""
        data = json.dumps(record, indent=2, ensure_ascii=False).encode()
        self.storage.put(join(self.output, "selection.json"), data, scratch=scratch_of(self.output))

    @property
    def _folder(self) -> str:
        return join(self.output, "decisions")

    def _write_parts(
        self,
        blocks: Iterable[pa.Table],
        schema: pa.Schema,
        counts: DecisionCounts,
        settled: Sequence[Mapping[str, Any]] | None,
    ) -> list[Part]:
        """Encode and put parts in a second thread: encoding takes as long as reading. One part waits at most."""
        parts: list[Part] = []
        with ThreadPoolExecutor(1, thread_name_prefix="decisions") as writer:
            pending: Future[Part] | None = None
            for index, rows in enumerate(_of_size(blocks, schema, PART_ROWS)):
                counts.add(rows)  # parts have one size, so that sums of weights come out the same every time
                if pending is not None:
                    parts.append(pending.result())
                pending = writer.submit(self._put_part, index, rows, settled)
            if pending is not None:
                parts.append(pending.result())
        if settled is not None and len(parts) < len(settled):
            raise RunError(self._unsettled(settled[len(parts)]["file"]))
        return parts

    def _put_part(self, index: int, rows: pa.Table, settled: Sequence[Mapping[str, Any]] | None) -> Part:
        data = parquet_bytes(rows)
        part = Part(f"{index:06d}.parquet", rows.num_rows, hashlib.sha256(data).hexdigest())
        if settled is not None and (index >= len(settled) or settled[index]["sha256"] != part.sha256):
            raise RunError(self._unsettled(part.name))
        self.storage.put(join(self._folder, part.name), data, scratch=scratch_of(self.output))
        return part

    def _unsettled(self, name: str) -> str:
        return (
            f"{self.output}: an export of these decisions was begun, and {name} would be another now, since rows were "
            "scored anew. Nothing was changed; select into another folder"
        )


def parquet_bytes(rows: pa.Table) -> bytes:
    """A Parquet file of the rows; the same rows give the same bytes, however they were chunked."""
    buffer = io.BytesIO()
    pq.write_table(
        rows.combine_chunks().replace_schema_metadata(None),
        buffer,
        compression="zstd",
        row_group_size=GROUP_ROWS,
        # keys hardly repeat and are not looked up by range; a dictionary and statistics of them cost half of the time
        use_dictionary=["source", "reason"],
        write_statistics=[name for name in rows.column_names if name not in {"key", "source"}],
        store_schema=False,  # reasons are read as strings
    )
    return buffer.getvalue()


def _of_size(blocks: Iterable[pa.Table], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly so many, the last one with what is left; at least one table."""
    waiting = [schema.empty_table()]
    held = count = 0
    for block in blocks:
        waiting.append(block)
        held += block.num_rows
        while held >= rows:
            together = pa.concat_tables(waiting)
            yield together.slice(0, rows)
            waiting, held, count = [together.slice(rows)], held - rows, count + 1
    if held or not count:
        yield pa.concat_tables(waiting)
