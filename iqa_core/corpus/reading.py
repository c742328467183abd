"""A planned chunk -> its content in the plan's schema, by the reader of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, ReadOptions, Survey
from iqa_core.corpus.columns import TYPE_NAMES, InputColumn, conformed, table_names
from iqa_core.corpus.readers import arrow, lists, loose, parquet, selected, webdataset
from iqa_core.corpus.readers.webdataset import beside_sidecars
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.corpus.sources import Kind, Source
from iqa_core.records import ImageLimits
from iqa_core.storage.failures import FetchFailed, Missing
from iqa_core.storage.storage import Storage

READERS: Mapping[Kind, ModuleType] = {
    Kind.IMAGE: loose,
    Kind.WEBDATASET: webdataset,
    Kind.PARQUET: parquet,
    Kind.ARROW: arrow,
    Kind.LIST: lists,
    Kind.SCORES: selected,
}
"""Kind of source -> its reader, see `iqa_core.corpus.readers`."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What all readers of one output share; picklable."""

    storage: Storage
    options: ReadOptions
    limits: ImageLimits
    carried: pa.Schema
    """Schema of the carried columns, under their names in the score table."""
    own_columns: frozenset[str]
    """Names of the score table's own columns."""
    slots: SlotColumns = NO_SLOTS
    folder: str = ""
    """Where the plan lies, and with it the files of rows of score tables."""


def survey_source(
    storage: Storage, source: Source, options: ReadOptions, exact: bool, described: Survey | None = None
) -> Survey:
    """How a source is cut, and its columns.

    exact: count the images of every tar, whatever it costs; described: columns of the table that describes the source.
    Raises Missing, Forbidden or FetchFailed when the source cannot be read, CallerError when no column can be the image
    or `--carry` gives one a type that does not hold its values.
    """
    _check_size(source.uri, source.kind, source.size)
    found: Survey = READERS[source.kind].survey(storage, source, options, exact)
    if source.metadata is not None:
        spans = tuple(replace(span, metadata=source.metadata) for span in found.spans)
        found = _together(replace(found, spans=spans), described, options)
    return with_given_types(source, found, options)


def with_given_types(source: Source, found: Survey, options: ReadOptions) -> Survey:
    """The survey with the types that `--carry` gives. Raises CallerError where one does not hold a column's values."""
    if not found.carried.names:
        return found
    typed = [
        field if field.name not in options.carry else field.with_type(_given_type(source, field, found, options))
        for field in found.carried
    ]
    return replace(found, carried=pa.schema(typed))


def _together(found: Survey, described: Survey | None, options: ReadOptions) -> Survey:
    """The survey of a source with the columns of the table that describes it behind its own.

    The bounds of both are kept; values that `--carry` makes null are counted with the table, not here.
    """
    if described is None:
        return found
    given = described.carried.names
    names = beside_sidecars(given, options) if found.carried.names else given
    fields = [field.with_name(name) for field, name in zip(described.carried, names, strict=True)]
    bounds = {new: described.bounds[old] for old, new in zip(given, names, strict=True) if old in described.bounds}
    return replace(found, carried=pa.schema([*found.carried, *fields]), bounds={**found.bounds, **bounds})


def _given_type(source: Source, field: pa.Field, found: Survey, options: ReadOptions) -> pa.DataType:
    """The type that `--carry` gives a column. Raises CallerError unless it is text or holds all its values."""
    wanted = TYPE_NAMES[options.carry[field.name]]
    if options.reading > 1 and not pa.types.is_string(wanted):
        column = InputColumn(source.uri, field.name, field.name, field.type, found.bounds.get(field.name))
        column.check_held(wanted)
    return wanted


def open_chunk(chunk: Chunk, plan: ReadPlan) -> Content:
    """The chunk's keys, its carried columns in the plan's schema, its texts, and a way to fetch its images.

    Raises Missing, Forbidden or FetchFailed when its source as a whole cannot be read or changed since it was planned,
    RunError where credentials are at fault.
    """
    for span in chunk.spans:
        _check_size(span.source, chunk.kind, span.size)
    if chunk.kind is Kind.SCORES:
        chunk = selected.located(chunk, plan.folder)
    content: Content = READERS[chunk.kind].read(plan.storage, chunk, plan.options, plan.limits)
    if chunk.images is not None and chunk.images != len(content.keys):
        raise FetchFailed(
            f"{chunk.spans[0].source}: {chunk.images} images were planned there, {len(content.keys)} are found; it "
            "was replaced since (--on-changed rescore plans it anew)"
        )
    reading = plan.options.reading
    renamed = content.carried.rename_columns(table_names(content.carried.column_names, plan.own_columns, reading))
    try:
        carried = conformed(renamed, plan.carried, len(content.keys), reading)
    except ValueError as error:
        raise FetchFailed(f"{chunk.spans[0].source}: {error}; score it into an output of its own") from error
    return replace(content, carried=carried, texts=plan.slots.texts(carried))


def _check_size(uri: str, kind: Kind, size: int | None) -> None:
    if size is None and kind is not Kind.IMAGE:
        raise Missing(f"{uri}: a link to nothing when it was listed")
