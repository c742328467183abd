"""A CSV or JSONL list of image URIs, with further columns -> images fetched from where they lie.

CSV columns are carried as text, exactly as they were (`--carry name:type` gives one a type); JSONL columns have the
type that all their values have, or the JSON text where they differ.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa

from iqa_core.corpus.carried_types import Bounds
from iqa_core.corpus.chunks import Chunk, Content, ReadOptions, Span, Survey
from iqa_core.corpus.column_values import utf8
from iqa_core.corpus.columns import TYPE_NAMES, cast_value, repeated
from iqa_core.corpus.fetching import is_inline
from iqa_core.corpus.readers.tabular import choose_columns, images_from_uris, keys_of, resolve
from iqa_core.corpus.sources import Source, extension
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage

READ_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class _Record:
    """One row of a list."""

    values: Mapping[str, Any]
    begin: int
    """Offset of its first byte, or of the blank lines before it."""
    end: int


WIDE = pa.decimal128(19)
"""`_type_of` an int64 that float64 does not hold exactly: a column that has fractions as well is text."""


@dataclass(slots=True)
class _Seen:
    """Types and bounds of a list's columns, collected record by record; a part of the list becomes a chunk."""

    options: ReadOptions
    names: dict[str, None]
    """All column names, in order."""
    parts: list[set[tuple[str, pa.DataType]]] = field(default_factory=lambda: [set()])
    bounds: dict[str, Bounds] = field(default_factory=dict)
    unfit: Counter[str] = field(default_factory=Counter)

    def add(self, values: Mapping[str, Any]) -> None:
        """Take a record of the last part."""
        for name, value in values.items():
            self.names.setdefault(name)
            self.parts[-1].add((name, _type_of(value)))
            if isinstance(value, int):
                low, high = self.bounds.get(name, (0, 0))
                self.bounds[name] = min(low, value), max(high, value)
        for name in self.options.carry:
            value = values.get(name)
            if value is not None and cast_value(value, TYPE_NAMES[self.options.carry[name]]) is None:
                self.unfit[name] += 1

    def schema(self) -> pa.Schema:
        """The type of each column in the whole list."""
        found = _by_name(self.names, set().union(*self.parts))
        return pa.schema([(name, _one_type(name, kinds, self.options)) for name, kinds in found.items()])

    def check_image(self, image: str, uri: str) -> None:
        """Raises CallerError unless each part, read alone, has its images in the same column."""
        for part in {frozenset(part) for part in self.parts} if self.options.reading > 1 else ():
            schema = _schema_of_part(_by_name([], part), self.options)
            try:
                found = choose_columns(schema, self.options, uri).image
            except CallerError:
                found = "none"
            if found != image:
                raise CallerError(
                    f"{uri}: the image is in {image} in one part of the list and in {found} in another; name the "
                    "column with --uri-column, and give it text alone"
                )


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    """Spans of `chunk_images` records, and the columns; the list is read whole.

    Raises CallerError for what is no list, and where the image is not in the same column throughout.
    """
    size = source.size or 0
    header, begin, records = opened(storage, source.uri, size)
    edges, counts = [begin], [0]
    seen = _Seen(options, dict.fromkeys(header))
    for record in records:
        if counts[-1] == options.chunk_images:
            counts.append(0)
            seen.parts.append(set())
        seen.add(record.values)
        counts[-1] += 1
        edges[len(counts) :] = [record.end]
    schema = seen.schema()
    if counts == [0]:
        return Survey((), schema)
    columns = choose_columns(schema, options, source.uri)
    seen.check_image(columns.image, source.uri)
    spans = tuple(
        Span(source.uri, source.key, source.size, source.etag, first, last, count)
        for (first, last), count in zip(pairwise(edges), counts, strict=True)
    )
    carried = pa.schema([schema.field(name) for name in columns.carried(schema)])
    return Survey(spans, carried, seen.bounds, seen.unfit)


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """Images of the chunk's records, fetched from their URIs."""
    (span,) = chunk.spans
    header, first = _header(storage, span.source, span.size or 0)
    begin = max(span.begin, first)
    data = storage.read_large(span.source, begin, span.end)
    records = list(_records(io.BytesIO(data), span.source, header, begin))
    table = as_table([record.values for record in records], header or (), options)
    columns = choose_columns(table.schema, options, span.source)
    uris = table.column(columns.image)
    locations = uris.to_pylist()
    return Content(
        keys=keys_of(table, columns, uris, (record.begin for record in records)),
        carried=table.select(columns.carried(table.schema)),
        images=lambda ordinals: images_from_uris(storage, span.source, locations, ordinals, limits),
    )


def opened(storage: Storage, uri: str, size: int) -> tuple[list[str], int, Iterator[_Record]]:
    """Names in a CSV file's header, the offset of the first record, and all records as a stream.

    Raises CallerError for what is no list; the stream does as well.
    """
    header, begin = _header(storage, uri, size)
    file = io.BufferedReader(RangeFile(storage, uri, size), READ_BYTES)
    file.seek(begin)
    return header or [], begin, _records(file, uri, header, begin)


def image_uris(storage: Storage, uri: str, size: int, options: ReadOptions) -> Iterator[str]:
    """Absolute URIs of all images of a list but those that it holds itself, as data URIs.

    Raises CallerError for what is no list, or has no column that can be the image.
    """
    header, _, records = opened(storage, uri, size)
    seen = _Seen(options, dict.fromkeys(header))
    for record in records:
        seen.add(record.values)
    if not any(seen.parts):
        return
    image = choose_columns(seen.schema(), options, uri).image
    for record in opened(storage, uri, size)[2]:
        value = record.values.get(image)
        if isinstance(value, str) and not is_inline(value):
            yield resolve(utf8(value), uri)


def columns_of(
    storage: Storage, uri: str, size: int, options: ReadOptions, note: Callable[[Mapping[str, Any]], None]
) -> Survey:
    """All columns of a list that describes files; `note` is called with each record.

    A column without a value has the type null, so that other lists decide. Raises CallerError for what is no list.
    """
    header, _, records = opened(storage, uri, size)
    seen = _Seen(options, dict.fromkeys(header))
    for record in records:
        seen.add(record.values)
        note(record.values)
    valued = {name for part in seen.parts for name, kind in part if not pa.types.is_null(kind)}
    fields = [field if field.name in valued else field.with_type(pa.null()) for field in seen.schema()]
    return Survey((), pa.schema(fields), seen.bounds, seen.unfit)


def as_table(records: Sequence[Mapping[str, Any]], header: Iterable[str], options: ReadOptions) -> pa.Table:
    """Records as a table, in the types that these records alone have."""
    names = dict.fromkeys([*header, *(name for record in records for name in record)])
    types = {name: {_type_of(record.get(name)) for record in records} for name in names}
    schema = _schema_of_part(types, options)
    return pa.table(
        {
            field.name: pa.array([cast_value(record.get(field.name), field.type) for record in records], field.type)
            for field in schema
        },
        schema=schema,
    )


def _header(storage: Storage, uri: str, size: int) -> tuple[list[str] | None, int]:
    """Names of a CSV file's columns, None for JSON lines; and the offset of the first record."""
    if extension(uri) != "csv":
        return None, 0
    position = [0]
    lines = _text_lines(io.BufferedReader(RangeFile(storage, uri, size)), uri, position)
    names = next(_rows(lines, uri, position), [])
    if doubled := repeated(names):
        shown = ", ".join(map(repr, doubled))
        raise CallerError(f"{uri}: its header has {shown} more than once; rename all but one")
    return names, position[0]


def _records(file: Iterable[bytes], uri: str, header: list[str] | None, begin: int) -> Iterator[_Record]:
    """All records from byte `begin` of the list on."""
    position = [begin]
    lines = _text_lines(file, uri, position)
    found = _json_objects(lines, uri, position) if header is None else _csv_objects(lines, uri, header, position)
    for values in found:
        yield _Record(values, begin, position[0])
        begin = position[0]


def _csv_objects(
    lines: Iterator[str], uri: str, header: list[str], position: list[int]
) -> Iterator[Mapping[str, str | None]]:
    for values in _rows(lines, uri, position):
        if len(values) != len(header):
            raise CallerError(
                f"{uri}: the record before byte {position[0]} has {len(values)} fields, the header {len(header)}"
            )
        yield {name: value or None for name, value in zip(header, values, strict=True)}


def _rows(lines: Iterator[str], uri: str, position: list[int]) -> Iterator[list[str]]:
    """Rows that are not blank. The reader is strict: an unclosed quote would else swallow the rest of the file."""
    try:
        yield from filter(None, csv.reader(lines, strict=True))
    except csv.Error as error:
        raise CallerError(f"{uri}: the record before byte {position[0]} is no CSV ({error})") from error


def _json_objects(lines: Iterator[str], uri: str, position: list[int]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line.removeprefix("\ufeff"))  # files that were concatenated each bring one
        except (ValueError, RecursionError) as error:
            raise CallerError(f"{uri}: the line before byte {position[0]} is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise CallerError(f"{uri}: the line before byte {position[0]} is no JSON object")
        yield {utf8(name): value for name, value in values.items()}


def _text_lines(file: Iterable[bytes], uri: str, position: list[int]) -> Iterator[str]:
    """Decoded lines; `position[0]` is the offset behind the last one: csv takes as many lines as a quoted field has."""
    for line in file:
        is_first = position[0] == 0
        position[0] += len(line)
        try:
            yield line.decode("utf-8-sig" if is_first else "utf-8")
        except UnicodeDecodeError as error:
            what = (
                "UTF-16" if is_first and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else error.reason
            )
            raise CallerError(f"{uri}: the line before byte {position[0]} is not UTF-8 ({what})") from error


def _by_name(names: Iterable[str], pairs: Iterable[tuple[str, pa.DataType]]) -> dict[str, set[pa.DataType]]:
    """Name -> its types in the pairs, for these names first."""
    found: dict[str, set[pa.DataType]] = {name: set() for name in names}
    for name, kind in pairs:
        found.setdefault(name, set()).add(kind)
    return found


def _type_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and -(2**63) <= value < 2**63:  # a wider one is carried as its text, not lost
        return pa.int64() if abs(value) <= 2**53 else WIDE
    return pa.float64() if isinstance(value, float) else pa.string()


def _one_type(name: str, found: set[pa.DataType], options: ReadOptions) -> pa.DataType:
    if name in options.carry:
        return TYPE_NAMES[options.carry[name]]
    known = found - {pa.null()}
    if known and known <= {pa.int64(), WIDE}:
        return pa.int64()
    if known == {pa.int64(), pa.float64()}:
        return pa.float64()
    if options.reading == 1 and known - {pa.int64()} == {WIDE, pa.float64()}:
        return pa.float64()
    return known.pop() if len(known) == 1 else pa.string()


def _schema_of_part(types: Mapping[str, set[pa.DataType]], options: ReadOptions) -> pa.Schema:
    """Types in which a part's values stay as written: a column of 1 and 1.5 is text, so that 1 does not become 1.0.

    A column that a flag names, and that this part lacks, is null.
    """
    named: dict[str, set[pa.DataType]] = {
        name: set() for name in (options.uri_column, options.id_column) if name is not None
    }
    return pa.schema([(name, _type_in_part(name, found, options)) for name, found in {**named, **types}.items()])


def _type_in_part(name: str, found: set[pa.DataType], options: ReadOptions) -> pa.DataType:
    is_mixed = len(found - {pa.null(), WIDE}) > 1 and name not in options.carry
    return pa.string() if is_mixed and options.reading > 1 else _one_type(name, found, options)
