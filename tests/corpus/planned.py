"""Inputs -> the plan of a new output -> every image that its chunks hold, as a job would go through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, ReadOptions
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.proposal import Proposal, apply, propose
from iqa_core.corpus.reading import ReadPlan, open_chunk
from iqa_core.corpus.sources import Kind
from iqa_core.records import ImageLimits, Rejection
from iqa_core.storage.storage import Storage
from iqa_core.tables.scores.columns import own_columns

DIMENSIONS = ("layout", "harmony")

WANTED = Contract(
    fingerprint="f1",
    fingerprint_parts={"weights": "w1", "rubric": "r1"},
    chunk_images=4,
    probs=False,
    dimensions=DIMENSIONS,
    fusion="equal",
    columns={},
    carried=pa.schema([]),
)

OPTIONS = ReadOptions(chunk_images=4)

LOCAL = Storage()


@dataclass(frozen=True, slots=True)
class Image:
    """One image as its reader hands it over."""

    key: str
    source: str
    data: bytes | Rejection
    carried: dict[str, Any]
    offset: int | None
    length: int | None
    row: int | None

    @property
    def reason(self) -> str | None:
        return str(self.data.reason) if isinstance(self.data, Rejection) else None


@dataclass(frozen=True, slots=True)
class Output:
    """An output's plan, with the options that it is read by."""

    folder: Path
    options: ReadOptions = OPTIONS
    storage: Storage = LOCAL

    @property
    def plan(self) -> Plan:
        return Plan(self.storage, str(self.folder))

    def proposal(self, *inputs: object, wanted: Contract = WANTED, **settings: Any) -> Proposal:
        wanted = replace(wanted, reading=self.options.reading)
        settings = {"own_columns": own_columns(wanted.dimensions), "limit": None, "on_changed": "stop", **settings}
        return propose(self.plan, wanted, [str(given) for given in inputs], self.options, **settings)

    def extend(self, *inputs: object, **settings: Any) -> Proposal:
        """Propose and apply."""
        proposal = self.proposal(*inputs, **settings)
        assert apply(self.plan, proposal)
        return proposal

    def read_plan(self) -> ReadPlan:
        contract = self.plan.contract()
        assert contract is not None
        options = replace(self.options, reading=contract.reading)
        own = own_columns(DIMENSIONS)
        return ReadPlan(self.storage, options, ImageLimits(), contract.carried, own, folder=self.plan.folder)

    def open(self, chunk: Chunk) -> Content:
        return open_chunk(chunk, self.read_plan())

    def contents(self) -> dict[str, Content]:
        """By name of the chunk."""
        return {chunk.name: self.open(chunk) for chunk in self.plan.chunks()}

    def images(self) -> list[Image]:
        """All images of all chunks."""
        return [image for content in self.contents().values() for image in images_of(content)]

    def images_of_kind(self, kind: Kind) -> list[Image]:
        return [image for chunk in self.plan.chunks() if chunk.kind is kind for image in images_of(self.open(chunk))]

    def planned_sources(self) -> list[str]:
        return [row.span.source for row in self.plan.rows()]

    def rows(self) -> list[tuple[Any, ...]]:
        """What is planned, in full: equal before and after where nothing moved."""
        return [(row.chunk, str(row.kind), row.span) for row in self.plan.rows()]


def images_of(content: Content, ordinals: Sequence[int] | None = None) -> Iterator[Image]:
    wanted = range(len(content.keys)) if ordinals is None else ordinals
    carried = content.carried.to_pylist() if content.carried.num_columns else [{}] * len(content.keys)
    assert len(carried) == len(content.keys)
    for ordinal, encoded in zip(wanted, content.images(wanted), strict=True):
        data = encoded.data if isinstance(encoded.data, Rejection) else bytes(encoded.data)
        yield Image(
            content.keys[ordinal],
            encoded.source,
            data,
            carried[ordinal],
            encoded.offset,
            encoded.length,
            encoded.row,
        )


def read(folder: Path, *inputs: object, **options: Any) -> list[Image]:
    """All images of these inputs, through a plan in a new output."""
    output = Output(folder, replace(OPTIONS, **options))
    output.extend(*inputs)
    return output.images()


def data_of(images: Iterable[Image]) -> list[bytes | Rejection]:
    return [image.data for image in images]
