"""A table that describes files -> its columns for some of these files, joined by name.

A value names a file by its path from the table's folder, or from the folder of the table's name: with the extension,
without it, or up to the first dot, which is WebDataset's key. It names a member of a tar likewise.
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
"""Rows of a Parquet table that are decoded at a time."""

Described = tuple[Metadata | None, tuple[str, ...]]
"""An image's table, and the names that it may have there, the closest first."""

Found = tuple[list[str | None], pa.Table]
"""Rows of a table: the file that each names, and all their columns."""


def names_of_file(uri: str, table: str) -> tuple[str, ...]:
    """Names that a table may have for a file below its folder, the closest first; none for a file elsewhere."""
    path = relative(uri, table.rsplit("/", 1)[0])
    if path is None:
        return ()
    own = table.rsplit("/", 1)[1].rpartition(".")[0] + "/"
    inside = _forms(path.removeprefix(own)) if path.startswith(own) else ()
    return tuple(dict.fromkeys((*_forms(path), *inside)))


def names_of_member(key: str) -> tuple[str, ...]:
    """Names that a table may have for a member of its tar; none for a second member of one name (`a.png#2`)."""
    return () if "#" in extension(key) else _forms(key)


def _forms(path: str) -> tuple[str, ...]:
    """A path as it is, without its extension, and up to the first dot of the file's name."""
    folder, separator, name = posixpath.normpath(path).rpartition("/")
    stems = (name, name.rpartition(".")[0] or name, name.partition(".")[0] or name)
    return tuple(dict.fromkeys(folder + separator + stem for stem in stems))


def named(value: Any, table: str) -> str | None:
    """The path that a cell of the table names, relative to the table's folder; None where it names none."""
    if value is None or value == "" or isinstance(value, bool | float):
        return None
    text = text_of(value)
    return posixpath.normpath(relative(text, table.rsplit("/", 1)[0]) or text)


def columns_of(storage: Storage, images: Sequence[Described], options: ReadOptions) -> pa.Table:
    """One row per image, null where its table does not name it; no columns where no image has a table.

    Raises Missing, Forbidden or FetchFailed where a table cannot be read.
    """
    indices: dict[Metadata, list[int]] = {}
    for index, (metadata, _) in enumerate(images):
        if metadata is not None:
            indices.setdefault(metadata, []).append(index)
    if not indices:
        return pa.table({})
    parts = [_joined(storage, metadata, [images[i][1] for i in found], options) for metadata, found in indices.items()]
    rows = {index: row for row, index in enumerate(index for found in indices.values() for index in found)}
    return _stacked(parts, options).take(pa.array([rows.get(index) for index in range(len(images))], pa.int64()))


def _joined(storage: Storage, metadata: Metadata, images: Sequence[tuple[str, ...]], options: ReadOptions) -> pa.Table:
    """One row per image: the first row that has the closest of the image's names; null where there is none."""
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
    """The rows that name something wanted, as a stream of at least one item, which may have columns alone."""
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
    """The wanted rows of a Parquet file, in the types that are carried: Arrow's `take` does not know all others.

    The column of names is read first; other columns are read only in row groups that name something wanted.
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
    """The files that the rows name, batch by batch."""
    for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[metadata.column]):
        yield [named(value, metadata.uri) for value in values_of(pa.chunked_array([batch.column(metadata.column)]))]


def _stacked(tables: Sequence[pa.Table], options: ReadOptions) -> pa.Table:
    """All rows; a column that a table lacks is null there, and one whose types do not fit together is text.

    Columns without a value do not count for the type.
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
    """The columns that have a value."""
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
