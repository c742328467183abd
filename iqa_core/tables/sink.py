"""Rows of many chunks, in any order and perhaps twice -> chunks that are complete, each exactly once.

The job commits a chunk only when its ordinals are exactly 0..n-1. Results of two readings of a chunk are put together
only if both found the same images in the same order (`layout`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from iqa_core.corpus.chunks import Origin
from iqa_core.errors import RunError


@dataclass(frozen=True, slots=True)
class AssessedBatch:
    """What came back from the assessor for one ready batch; `rows` has the table's columns, a row per ordinal."""

    origin: Origin
    ordinals: tuple[int, ...]
    rows: pa.Table
    versions: str
    """Device and libraries of the process that assessed it, as JSON."""
    answers: tuple[Mapping[str, int], ...] = ()
    """Of each image: what came of the answers written about it -> their number. Empty for closed sets."""


@dataclass(slots=True)
class OpenChunk:
    """A chunk of which some rows have come, all of one layout."""

    origin: Origin
    ordinals: list[int] = field(default_factory=list)
    pieces: list[pa.Table] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    """How the written answers about its images were parsed."""

    def add(self, batch: AssessedBatch) -> None:
        """Take the rows that are not there yet. Raises RunError for an ordinal that the chunk cannot have."""
        images = self.origin.images
        if any(not 0 <= ordinal < images for ordinal in batch.ordinals):
            raise RunError(f"chunk {self.origin.chunk}: a row came back that its {images} images do not have")
        self.versions.add(batch.versions)
        known = set(self.ordinals)
        new = [i for i, ordinal in enumerate(batch.ordinals) if ordinal not in known]
        for i in new if batch.answers else ():
            self.answers.update(batch.answers[i])
        self.ordinals += [batch.ordinals[i] for i in new]
        self.pieces.append(
            batch.rows if len(new) == len(batch.ordinals) else batch.rows.take(pa.array(new, pa.int64()))
        )

    @property
    def missing(self) -> frozenset[int]:
        """Ordinals whose rows have not come."""
        return frozenset(range(self.origin.images)) - frozenset(self.ordinals)

    def rows(self) -> pa.Table:
        """All rows in ordinal order."""
        return pa.concat_tables(self.pieces).take(pa.array(np.argsort(self.ordinals)))


@dataclass(slots=True)
class Sink:
    """Gathers batches by chunk and hands out each chunk when its last row has come."""

    open: dict[str, list[OpenChunk]] = field(default_factory=dict)
    """By name; more than one entry where a chunk was read twice with different content."""

    def add(self, batch: AssessedBatch) -> OpenChunk | None:
        """The chunk, if this batch completes it. Raises RunError for an ordinal that the chunk cannot have."""
        name = batch.origin.chunk
        chunk = self.partial(name, batch.origin.layout)
        if chunk is None:
            chunk = OpenChunk(batch.origin)
            self.open.setdefault(name, []).append(chunk)
        chunk.add(batch)
        if chunk.missing:
            return None
        del self.open[name]
        return chunk

    def partial(self, chunk: str, layout: str) -> OpenChunk | None:
        """What has come of a chunk in this layout; None if nothing has."""
        return next((known for known in self.open.get(chunk, []) if known.origin.layout == layout), None)
