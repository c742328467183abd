"""A CSV or JSONL list of image URIs, with further columns -> images fetched from where they lie.

CSV columns are carried as text, exactly as they were (`--carry name:type` gives one a type); JSONL columns have the
type that all their values have, or the JSON text where they differ.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, ReadOptions, Stretch, Survey
from iqa_core.corpus.columns import TYPE_NAMES, cast_value
from iqa_core.corpus.range_file import RangeFile
from iqa_core.corpus.readers.tabular import choose_columns, images_from_uris, keys_of
from iqa_core.corpus.sources import Source, extension
from iqa_core.corpus.storage import Storage
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits

READ_BYTES = 8 * 2**20


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    edges = [_header_end(storage, source.uri, source.size or 0)]
    images = [0]
    types: dict[str, set[pa.DataType]] = {}
    for record, end in _records(storage, source.uri, source.size or 0, 0, source.size or 0):
        for name, value in record.items():
            types.setdefault(name, set()).add(_type_of(value))
        if images[-1] == options.chunk_images:
            images.append(0)
        images[-1] += 1
        edges[len(images) :] = [end]
    schema = pa.schema([(name, _one_type(name, found, options)) for name, found in types.items()])
    if images == [0]:
        return Survey((), schema)
    columns = choose_columns(schema, options, source.uri)
    stretches = tuple(
        Stretch(source.uri, source.key, source.size, source.etag, begin, end, count)
        for begin, end, count in zip(edges, edges[1:], images, strict=True)
    )
    return Survey(stretches, pa.schema([schema.field(name) for name in columns.carried(schema)]))


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    (stretch,) = chunk.stretches
    records = [record for record, _ in _records(storage, stretch.source, stretch.size or 0, stretch.begin, stretch.end)]
    named = [name for name in (options.uri_column, options.id_column) if name is not None]
    names = list(dict.fromkeys([*named, *(name for record in records for name in record)]))
    schema = pa.schema(
        [(name, _one_type(name, {_type_of(record.get(name)) for record in records}, options)) for name in names]
    )
    columns = choose_columns(schema, options, stretch.source)
    table = pa.table(
        {
            field.name: pa.array([cast_value(record.get(field.name), field.type) for record in records], field.type)
            for field in schema
        }
    )
    uris = table.column(columns.image)
    locations = uris.to_pylist()
    ids = table.column(columns.key) if columns.key is not None else None
    return Content(
        keys=keys_of(ids, uris, 0, len(records)),
        carried=table.select(columns.carried(schema)),
        images=lambda ordinals: images_from_uris(storage, stretch.source, locations, ordinals, limits),
    )


def _records(storage: Storage, uri: str, size: int, begin: int, end: int) -> Iterator[tuple[dict[str, Any], int]]:
    """(record, offset of the byte behind it) for each record between two byte offsets that lie between records."""
    file = io.BufferedReader(RangeFile(storage, uri, end), READ_BYTES)
    if extension(uri) != "csv":
        file.seek(begin)
        yield from _json_records(file, uri, begin)
        return
    header_end = _header_end(storage, uri, size)
    names = next(csv.reader(_text_lines(file, uri, [0])), [])
    file.seek(max(begin, header_end))
    yield from _csv_records(file, uri, names, max(begin, header_end))


def _header_end(storage: Storage, uri: str, size: int) -> int:
    """Offset of the first record: behind the header of a CSV file."""
    if extension(uri) != "csv":
        return 0
    position = [0]
    next(csv.reader(_text_lines(io.BufferedReader(RangeFile(storage, uri, size), READ_BYTES), uri, position)), None)
    return position[0]


def _csv_records(
    file: io.BufferedReader, uri: str, names: list[str], begin: int
) -> Iterator[tuple[dict[str, Any], int]]:
    position = [begin]
    for number, values in enumerate(csv.reader(_text_lines(file, uri, position)), start=1):
        if not values:
            continue
        if len(values) != len(names):
            raise CallerError(
                f"{uri}: record {number} behind byte {begin} has {len(values)} fields, the header {len(names)}"
            )
        yield {name: value or None for name, value in zip(names, values, strict=True)}, position[0]


def _json_records(file: io.BufferedReader, uri: str, begin: int) -> Iterator[tuple[dict[str, Any], int]]:
    position = [begin]
    for line in _text_lines(file, uri, position):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CallerError(f"{uri}: the line before byte {position[0]} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise CallerError(f"{uri}: the line before byte {position[0]} is no JSON object")
        yield record, position[0]


def _text_lines(file: Iterable[bytes], uri: str, position: list[int]) -> Iterator[str]:
    """Decoded lines; `position[0]` counts the bytes handed out (csv takes as many lines as a quoted field spans)."""
    for line in file:
        is_first = position[0] == 0
        position[0] += len(line)
        try:
            yield line.decode("utf-8-sig" if is_first else "utf-8")
        except UnicodeDecodeError as error:
            raise CallerError(f"{uri}: the line before byte {position[0]} is not UTF-8 ({error.reason})") from error


def _type_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if isinstance(value, kind):
            return arrow
    return pa.string()


def _one_type(name: str, found: set[pa.DataType], options: ReadOptions) -> pa.DataType:
    if name in options.carry:
        return TYPE_NAMES[options.carry[name]]
    known = found - {pa.null()}
    if known == {pa.int64(), pa.float64()}:
        return pa.float64()
    return known.pop() if len(known) == 1 else pa.string()
