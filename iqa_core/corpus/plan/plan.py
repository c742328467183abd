"""Sources -> an immutable plan of chunks, in numbered segments: new input is a new segment, boundaries never move.

    plan/000000.json       what may not change during the life of an output (`Contract`), created first
    plan/NNNNNN.parquet    one row per span of a source, sorted by source; chunk i of segment N is named NNNNNN-i
    plan/rows-….parquet    rows of score tables that are an input (see selected); what no segment names does not count

All are put by create-if-absent: of two drivers that plan at once, one loses, reads what the other wrote and plans
again. A proposal may retire chunks of earlier ones whose sources changed; the metadata of its first segment names them.
A proposal too large for one segment goes into several, which count once the last of them exists (see segments): so
chunks are never retired before the chunks in their place are planned.
"""

from __future__ import annotations

import base64
import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.addresses import SCORES
from iqa_core.corpus.carried_types import carried_type, is_scorable, settled
from iqa_core.corpus.chunks import READING, Chunk, ReadOptions, Span, chunk_name
from iqa_core.corpus.plan.segments import (
    SegmentHead,
    as_segment,
    complete_segments,
    segment_faults,
    segment_file,
    segment_head,
    spans_by_chunk,
    spans_in,
)
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.corpus.sources import Kind
from iqa_core.differences import ABSENT, differences, shortened
from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights
from iqa_core.questions import LEVELS, ColumnScale, scales_json
from iqa_core.rubrics.load import shipped_name
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of
from iqa_core.written.columns import WrittenColumns

_SEGMENT = re.compile(r"(\d{6})\.parquet")


@dataclass(frozen=True, slots=True)
class Contract:
    """Settings that all chunks of one output share. A run with other settings does not start."""

    fingerprint: str
    fingerprint_parts: Mapping[str, str]
    chunk_images: int
    probs: bool
    dimensions: tuple[str, ...]
    fusion: str
    """Digest of the fusion weights of `reward`; other weights can be applied when reading."""
    columns: Mapping[str, str]
    """Flags that name input columns: meaning -> column."""
    carried: pa.Schema
    rubric: str = ""
    """Id and origin of the rubric, for people; empty in plans of versions that did not write it."""
    reading: int = READING
    """Version of the rules by which sources are read (`ReadOptions.reading`); a run keeps to the one that it finds."""
    scales: Mapping[str, ColumnScale] = field(default_factory=dict)
    """Of the dimensions that are not five levels worth 1 to 5."""
    slots: SlotColumns = NO_SLOTS
    written: WrittenColumns | None = None
    """What is kept of written answers; None where they are closed sets."""
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Score table of which rows are an input -> its `fingerprint`, and the condition `where` if there is one."""
    grounding: Mapping[str, Any] = field(default_factory=dict)
    """Of an output with tables of parts of images: how many `cells` along a side, the digest of the user's `boxes`, and
    the `calibration`, where there are some. Beside a score table also the `dimensions` of which parts are scored, and
    what was `asked`: settings that are parts of the fingerprint elsewhere. Empty where there are no such tables."""

    @property
    def has_scores(self) -> bool:
        """Whether the output has a score table, and not parts of images alone."""
        return not self.grounding or "dimensions" in self.grounding

    @property
    def grounded(self) -> tuple[str, ...]:
        """Dimensions of which parts of images are scored."""
        return tuple(self.grounding.get("dimensions", self.dimensions)) if self.grounding else ()

    def scale_of(self, dimension: str) -> ColumnScale:
        """What the scores of a dimension can be."""
        return self.scales.get(dimension, LEVELS)

    def to_json(self) -> bytes:
        """Content of `000000.json`."""
        content = {
            "fingerprint": self.fingerprint,
            "fingerprint_parts": dict(self.fingerprint_parts),
            "chunk_images": self.chunk_images,
            "probs": self.probs,
            "dimensions": list(self.dimensions),
            "fusion": self.fusion,
            "columns": dict(self.columns),
            "reading": self.reading,
            "rubric": self.rubric,
            "carried": {field.name: str(field.type) for field in self.carried},
            "carried_schema": base64.b64encode(self.carried.serialize()).decode(),
        }
        if self.scales:
            content["scales"] = scales_json(self.scales)
        if self.slots.columns:
            content["slots"] = self.slots.to_json()
        if self.written is not None:
            content["written"] = self.written.to_json()
        if self.tables:
            content["tables"] = {uri: dict(said) for uri, said in self.tables.items()}
        if self.grounding:
            content["grounding"] = dict(self.grounding)
        return json.dumps(content, indent=2, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Contract:
        """The contract in `000000.json`. Raises CallerError for one of a later version, or with other fields."""
        content = {"reading": 1, **json.loads(data)}  # plans before reading 2 do not say it
        _check_fields(content)
        planned = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(content.pop("carried_schema"))))
        schema = pa.schema([field if is_scorable(field.type) else _replanned(field) for field in planned])
        scales = {name: ColumnScale.from_json(scale) for name, scale in content.pop("scales", {}).items()}
        slots = SlotColumns.from_json(content.pop("slots", {}))
        written = WrittenColumns.from_json(content.pop("written", None))
        typed = {"dimensions": tuple(content["dimensions"]), "carried": schema, "scales": scales, "slots": slots}
        return cls(**{**content, **typed, "written": written})

    def locating(self) -> ReadOptions:
        """The options that are needed to read the images of its rows again."""
        return ReadOptions(
            image_column=self.columns.get("image"), uri_column=self.columns.get("uri"), reading=self.reading
        )

    def differences(self, other: Contract, places: tuple[str, str] = ("there", "now")) -> list[str]:
        """One sentence for each thing that a run with `other` would do differently; carried columns may differ."""
        found = differences(self._compared(), other._compared(), places)
        rubrics = [contract.fingerprint_parts.get("rubric", "") for contract in (self, other)]
        if rubrics[0] != rubrics[1]:
            found.insert(0, f"rubric: {self._rubric_named()} {places[0]}, {other._rubric_named()} {places[1]}")
        # a run need not name all tables that others named
        there, here = (
            {f"{SCORES}{uri}": tables.get(uri, {}) for uri in other.tables} for tables in (self.tables, other.tables)
        )
        return [*found, *differences(there, here, places)]

    def _compared(self) -> dict[str, Any]:
        names = ("chunk_images", "probs", "dimensions", "columns")
        parts = {name: value for name, value in self.fingerprint_parts.items() if name != "rubric"}
        is_equal = self.fusion == FusionWeights.equal(self.dimensions).within(self.scales).digest
        fusion = "equal weights" if is_equal else f"weights {shortened(self.fusion)}"
        return {
            **parts,
            **{name: getattr(self, name) for name in names},
            "fusion": fusion,
            "slots": self.slots.to_json(),
            **(self.written.to_json() if self.written else {}),
            **({"boxes": boxes} if (boxes := self.grounding.get("boxes")) else {}),
            **self.grounding.get("asked", {}),
        }

    def _rubric_named(self) -> str:
        """Name, origin and digest: two rubrics may share an id and differ in their words."""
        digest = self.fingerprint_parts.get("rubric", "")
        return f"{self.rubric or shipped_name(digest) or 'one without a name'} ({shortened(digest) or ABSENT})"


def _replanned(field: pa.Field) -> pa.Field:
    """A column of a type that could never be scored, in the type that it would be planned in now."""
    try:
        return field.with_type(settled(carried_type(field.type)))
    except ValueError:  # it cannot be planned now either
        return field


_KINDS: Mapping[str, type] = {
    **dict.fromkeys(["fingerprint", "fusion", "rubric"], str),
    **dict.fromkeys(["fingerprint_parts", "columns", "scales", "slots", "written", "tables", "grounding"], dict),
}
"""Kinds of fields that are checked here: another kind would end in a traceback where it is first used."""


def _check_fields(content: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(Contract)} | {"carried_schema"}
    defaults = {one.name: (one.default, one.default_factory) for one in fields(Contract)}
    needed = {name for name, default in defaults.items() if default == (MISSING, MISSING)} | {"carried_schema"}
    found = [f"{name}: {content[name]}" for name in sorted(content.keys() - known)]
    found += [f"no {name}" for name in sorted(needed - content.keys())]
    found += [
        f"{name}: {content[name]}" for name, kind in _KINDS.items() if not isinstance(content.get(name, kind()), kind)
    ]
    if content["reading"] not in range(1, READING + 1):
        found.append(f"reading: {content['reading']} there, up to {READING} known")
    if found:
        raise CallerError(
            f"the plan of this output was laid down by another version of the program, whose rules this one does not "
            f"know ({'; '.join(found)}); go on with that version, or give another --output"
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """One row of a segment: a span and the chunk that it belongs to."""

    chunk: str
    kind: Kind
    span: Span


@dataclass(frozen=True, slots=True)
class Plan:
    """The folder `<output>/plan`."""

    storage: Storage
    output: str

    def contract(self) -> Contract | None:
        """The contract; None where nothing was planned. Raises CallerError for a file that is none of this version."""
        uri = self._contract_uri
        if self.storage.stat(uri) is None:
            return None
        data = self.storage.read(uri)
        try:
            return Contract.from_json(data)
        except (ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
            raise CallerError(
                f"{uri}: it is no plan that this version can read ({error!r}); give another folder"
            ) from error

    def create(self, contract: Contract) -> Contract:
        """The contract that counts, after this one was put unless another driver's was there first.

        Raises CallerError where the store cannot tell one of two drivers that the other was first.
        """
        self.storage.begin(self._contract_uri, contract.to_json(), scratch=scratch_of(self.output))
        found = self.contract()
        assert found is not None
        return found

    def segments(self) -> list[int]:
        """Numbers that are taken, also by segments that do not count; other files are ignored."""
        return [int(found[1]) for name in self.storage.names(self.folder) if (found := _SEGMENT.fullmatch(name))]

    def retired(self) -> frozenset[str]:
        """Names of chunks that a later segment replaces. Raises CallerError for a damaged segment."""
        return _retired(self._heads())

    def rows(self) -> Iterator[Planned]:
        """Planned spans, not retired, sorted by source, as a stream. Raises CallerError for a damaged segment."""
        heads = self._heads()
        retired = _retired(heads)
        # an open segment takes some 20 MB: each is opened when its first source is due
        due: list[tuple[str, int, Planned | None]] = [
            (head.first_source, segment, None) for segment, head in heads if head.first_source is not None
        ]
        heapq.heapify(due)
        streams: dict[int, Iterator[Planned]] = {}
        while due:
            _, segment, planned = due[0]
            if planned is None:
                streams[segment] = self._segment_rows(segment)
            elif planned.chunk not in retired:
                yield planned
            following = next(streams[segment], None)
            if following is None:
                heapq.heappop(due)
                del streams[segment]
            else:
                heapq.heapreplace(due, (following.span.source, segment, following))

    def chunks(self) -> Iterator[Chunk]:
        """Chunks that are not retired, in order of names, as a stream. Raises CallerError for a damaged segment."""
        heads = self._heads()
        retired = _retired(heads)
        for segment, _ in heads:
            with segment_faults(self._uri(segment)):
                for index, kind, spans in spans_by_chunk(self._file(segment)):
                    name = chunk_name(segment, index)
                    if name not in retired:
                        yield Chunk(name, kind, spans)

    def next_segment(self) -> int:
        """Number of the next segment; to be asked for before the plan is read, see `add_segment`."""
        return max(self.segments(), default=-1) + 1

    def add_segment(self, segment: int, data: bytes) -> bool:
        """Append a segment file; False if another driver did so first (read again, plan again).

        The number must be from before the plan was read: else sources that another driver has added since would be
        planned twice.
        """
        return self.storage.create(self._uri(segment), data, scratch=scratch_of(self.output))

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return join(self.output, "plan")

    @property
    def _contract_uri(self) -> str:
        return join(self.folder, "000000.json")

    def _uri(self, segment: int) -> str:
        return join(self.folder, f"{segment:06d}.parquet")

    def _file(self, segment: int) -> pq.ParquetFile:
        return segment_file(self.storage.read(self._uri(segment)))

    def _heads(self) -> list[tuple[int, SegmentHead]]:
        """Numbers and heads of the segments that count, in order."""
        return list(complete_segments({segment: self._head(segment) for segment in self.segments()}))

    def _head(self, segment: int) -> SegmentHead:
        uri = self._uri(segment)
        entry = self.storage.stat(uri)
        assert entry is not None, "segments are never deleted"
        assert entry.size is not None
        with segment_faults(uri):
            return segment_head(as_segment(RangeFile(self.storage, uri, entry.size)))

    def _segment_rows(self, segment: int) -> Iterator[Planned]:
        with segment_faults(self._uri(segment)):
            for index, kind, span in spans_in(self._file(segment)):
                yield Planned(chunk_name(segment, index), kind, span)


def _retired(heads: Iterable[tuple[int, SegmentHead]]) -> frozenset[str]:
    return frozenset(name for _, head in heads for name in head.retired)
