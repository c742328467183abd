"""A table that describes files -> its columns for some of them, joined by their names.

A value names a file by its path from the table's folder, or from the folder that has the table's name: with its
extension, without it, or up to the first dot, which is WebDataset's key. It names a member of a tar in the same ways.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.carried_types import carried_type
from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.column_values import text_of, values_of
from iqa_core.corpus.columns import conformed, promoted
from iqa_core.corpus.readers import lists, parquet
from iqa_core.corpus.sources import Metadata, extension, relative
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage

BATCH_ROWS = 8192
"""Of a Parquet table decoded at a time."""

Described = tuple[Metadata | None, tuple[str, ...]]
"""An image's table, and what that may call the image, the closest name first."""

Found = tuple[list[str | None], pa.Table]
"""What some rows of a table name, and all columns of these rows."""


def names_of_file(uri: str, table: str) -> tuple[str, ...]:
    """What a table may call a file under its folder."""
    path = relative(uri, table.rsplit("/", 1)[0])
    if path is None:
        return ()
    own = table.rsplit("/", 1)[1].rpartition(".")[0] + "/"
    inside = _forms(path.removeprefix(own)) if path.startswith(own) else ()
    return tuple(dict.fromkeys((*_forms(path), *inside)))


def names_of_member(key: str) -> tuple[str, ...]:
    """What a table beside a tar may call a member; nothing for the second one of a name (`a.png#2`)."""
    return () if "#" in extension(key) else _forms(key)


def _forms(path: str) -> tuple[str, ...]:
    folder, separator, name = posixpath.normpath(path).rpartition("/")
    stems = (name, name.rpartition(".")[0] or name, name.partition(".")[0] or name)
    return tuple(dict.fromkeys(folder + separator + stem for stem in stems))


def named(value: Any, table: str) -> str | None:
    """What a cell of the table names; None where it names nothing."""
    if value is None or value == "" or isinstance(value, bool | float):
        return None
    text = text_of(value)
    return posixpath.normpath(relative(text, table.rsplit("/", 1)[0]) or text)


def columns_of(storage: Storage, images: Sequence[Described], options: ReadOptions) -> pa.Table:
    """One row per image, null where no row names it; no columns where no image has a table.

    Raises Missing, Forbidden or FetchFailed where a table cannot be read.
    """
    places: dict[Metadata, list[int]] = {}
    for place, (metadata, _) in enumerate(images):
        if metadata is not None:
            places.setdefault(metadata, []).append(place)
    if not places:
        return pa.table({})
    parts = [
        _joined(storage, metadata, [images[place][1] for place in found], options) for metadata, found in places.items()
    ]
    rows = {place: row for row, place in enumerate(place for found in places.values() for place in found)}
    return _stacked(parts, options).take(pa.array([rows.get(place) for place in range(len(images))], pa.int64()))


def _joined(storage: Storage, metadata: Metadata, images: Sequence[tuple[str, ...]], options: ReadOptions) -> pa.Table:
    """Of an image's names the closest counts, of several rows with one name the first."""
    wanted: dict[str, list[tuple[int, int]]] = {}
    for image, names in enumerate(images):
        for distance, name in enumerate(names):
            wanted.setdefault(name, []).append((image, distance))
    best: dict[int, tuple[int, int]] = {}
    parts: list[pa.Table] = []
    position = 0
    for found, table in _rows(storage, metadata, options, frozenset(wanted)):
        for row, said in enumerate(found, start=position):
            for image, distance in wanted.get(said or "", ()):
                best[image] = min(best.get(image, (distance, row)), (distance, row))
        parts.append(table)
        position += table.num_rows
    rows = [best[image][1] if image in best else None for image in range(len(images))]
    return _stacked(parts, options).take(pa.array(rows, pa.int64()))


def _rows(storage: Storage, metadata: Metadata, options: ReadOptions, wanted: frozenset[str]) -> Iterator[Found]:
    """Those that name something wanted, as a stream; at least one item, which has the columns."""
    entry = storage.stat(metadata.uri)
    if entry is None or entry.size is None:
        raise Missing(
            f"{metadata.uri}: the table that describes planned images is gone (--on-changed rescore plans them anew)"
        )
    if extension(metadata.uri) == "parquet":
        with parquet.faults_named(metadata.uri):
            yield from _parquet_rows(parquet.opened(storage, metadata.uri, entry.size), metadata, wanted, options)
        return
    header, _, records = lists.opened(storage, metadata.uri, entry.size)
    kept = [record.values for record in records if named(record.values.get(metadata.column), metadata.uri) in wanted]
    names = [named(values.get(metadata.column), metadata.uri) for values in kept]
    yield names, lists.as_table(kept, [*header, metadata.column], options)


def _parquet_rows(
    file: pq.ParquetFile, metadata: Metadata, wanted: frozenset[str], options: ReadOptions
) -> Iterator[Found]:
    """The column of names is read first, and what else there is only where it has something wanted.

    In the types that are carried: Arrow takes no rows of others.
    """
    schema = pa.schema([(field.name, carried_type(field.type)) for field in file.schema_arrow])
    yield [], schema.empty_table()
    for group in range(file.num_row_groups):
        found = list(column_names(file, metadata, [group]))
        hits = [[row for row, name in enumerate(names) if name in wanted] for names in found]
        if not any(hits):
            continue
        batches = file.iter_batches(BATCH_ROWS, row_groups=[group])
        for names, rows, batch in zip(found, hits, batches, strict=True):
            if rows:
                table = conformed(pa.Table.from_batches([batch]), schema, batch.num_rows, options.reading)
                yield [names[row] for row in rows], table.take(pa.array(rows, pa.int64()))


def column_names(
    file: pq.ParquetFile, metadata: Metadata, groups: Sequence[int] | None = None
) -> Iterator[list[str | None]]:
    """What the rows name, by batches."""
    for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[metadata.column]):
        yield [named(value, metadata.uri) for value in values_of(pa.chunked_array([batch.column(metadata.column)]))]


def _stacked(tables: Sequence[pa.Table], options: ReadOptions) -> pa.Table:
    """All rows, a column that one lacks null; text where two types do not go together, as the plan has it then.

    A column without a value has no say in its type.
    """
    types = {field.name: field.type for table in tables for field in table.schema}
    valued = [_without_empty(table) for table in tables]
    seen: dict[str, pa.DataType] = {}
    for field in (field for table in valued for field in table.schema):
        seen[field.name] = _wider(seen.get(field.name, field.type), field.type)
    schema = pa.schema(types | seen)
    parts = zip(valued, tables, strict=True)
    return pa.concat_tables([conformed(kept, schema, table.num_rows, options.reading) for kept, table in parts])


def _without_empty(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if table.column(name).null_count < table.num_rows])


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first == second:
        return first
    if pa.types.is_integer(first) != pa.types.is_integer(second):
        return pa.string()  # as text an integer beside a fraction loses nothing
    try:
        return promoted(first, second)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
