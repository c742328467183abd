"""Rows of a table -> images: what Parquet, Arrow and lists have in common.

The image of a row is its bytes, a Hugging Face struct `{bytes, path}`, or a URI. A relative path is relative to the
folder of the table's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.chunks import Encoded, ReadOptions, Stretch
from iqa_core.corpus.columns import utf8, value_of, values_of
from iqa_core.corpus.fetching import fetch, fetch_all, is_inline
from iqa_core.corpus.storage import Storage, canonical, join
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits, Reason, Rejection

URI_NAMES = ("uri", "url", "image", "image_uri", "image_url", "image_path", "file_name", "path")
"""String columns that are taken for the image's URI when no flag names one; the first that is there."""


class NoImageColumn(CallerError):
    """A table in which no column can be the image, and none was named."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what."""

    image: str
    is_uri: bool
    has_path: bool
    """The image column is a struct with a `path` beside its `bytes`."""
    key: str | None

    def carried(self, schema: pa.Schema) -> list[str]:
        return [name for name in schema.names if name != self.image]


def choose_columns(schema: pa.Schema, options: ReadOptions, uri: str) -> Columns:
    """Raises CallerError for a column that was named and is not there or of no use, NoImageColumn if none fits."""
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if doubled:
        raise CallerError(f"{uri}: it has several columns named {', '.join(doubled)}; rename all but one")
    for flag, name in [("--image-column", options.image_column), ("--uri-column", options.uri_column)]:
        if name is not None and name not in schema.names:
            raise CallerError(f"{flag} {name}: {uri} has no such column; it has {', '.join(schema.names)}")
    if options.id_column is not None and options.id_column not in schema.names:
        raise CallerError(
            f"--id-column {options.id_column}: {uri} has no such column; it has {', '.join(schema.names)}"
        )
    name, is_uri = _image_column(schema, options, uri)
    kind = schema.field(name).type
    has_path = pa.types.is_struct(kind) and any(field.name == "path" and _is_text(field.type) for field in kind)
    return Columns(name, is_uri, has_path, options.id_column)


def _image_column(schema: pa.Schema, options: ReadOptions, uri: str) -> tuple[str, bool]:
    if options.uri_column is not None:
        if not _is_text(schema.field(options.uri_column).type):
            raise CallerError(
                f"--uri-column {options.uri_column}: it is {schema.field(options.uri_column).type} in {uri}"
            )
        return options.uri_column, True
    if options.image_column is not None:
        kind = schema.field(options.image_column).type
        if not (_is_bytes(kind) or _is_image_struct(kind)):
            raise CallerError(
                f"--image-column {options.image_column}: it is {kind} in {uri}; bytes or a struct of bytes and path "
                "is wanted (--uri-column names a column of URIs)"
            )
        return options.image_column, False
    for is_wanted in (_is_image_struct, _is_bytes):
        found = [field.name for field in schema if is_wanted(field.type)]
        if len(found) == 1:
            return found[0], False
        if len(found) > 1:
            raise CallerError(f"{uri}: {', '.join(found)} can all be the image; say which with --image-column")
    for name in URI_NAMES:
        if name in schema.names and _is_text(schema.field(name).type):
            return name, True
    raise NoImageColumn(
        f"{uri}: no column can be the image (it has {', '.join(schema.names)}); name it with --image-column for bytes "
        "or --uri-column for URIs"
    )


def paths_of(table: pa.Table, columns: Columns) -> pa.ChunkedArray | None:
    """URIs, or the paths beside the bytes; None where the image column is bytes alone."""
    if columns.is_uri:
        return table.column(columns.image)
    return pc.struct_field(table.column(columns.image), "path") if columns.has_path else None


def keys_of(
    table: pa.Table, columns: Columns, paths: pa.ChunkedArray | None, positions: Iterable[int]
) -> tuple[str, ...]:
    """The id column if one was named, else the path or URI, else the row's position in its source: what there is."""
    sources = [] if columns.key is None else [values_of(table.column(columns.key))]
    if paths is not None:  # a data URI is no name
        sources.append([None if path is None or is_inline(path) else path for path in values_of(paths)])
    return tuple(
        utf8(next((str(column[i]) for column in sources if column[i] is not None), str(position)))
        for i, position in enumerate(positions)
    )


def images_from_bytes(
    storage: Storage, stretch: Stretch, batches: Iterable[pa.Array], ordinals: Sequence[int], limits: ImageLimits
) -> Iterator[Encoded]:
    """Images of these ordinals, from the batches of an image column of which the first row is `stretch.begin`."""
    wanted = frozenset(ordinals)
    for ordinal, scalar in enumerate(chain.from_iterable(batches)):
        if ordinal in wanted:
            yield _from_scalar(storage, stretch, stretch.begin + ordinal, scalar, limits)


def images_from_uris(
    storage: Storage, table: str, uris: Sequence[str | None], ordinals: Sequence[int], limits: ImageLimits
) -> Iterator[Encoded]:
    """One image per ordinal, from its URI; a null is `missing`."""
    resolved = [None if (uri := uris[ordinal]) is None else resolve(uri, table) for ordinal in ordinals]
    fetched = fetch_all(storage, ((uri, None) for uri in resolved if uri is not None), limits)
    for uri in resolved:
        if uri is None:
            yield Encoded(table, Rejection(Reason.MISSING, "this row names no image"))
        else:
            yield Encoded(uri, next(fetched))


def resolve(uri: str, table: str) -> str:
    """An absolute URI or path, canonical; a relative one from the folder of the table's file."""
    uri = canonical(uri)
    if "://" in uri or uri.startswith("/") or is_inline(uri):
        return uri
    return join(table.rsplit("/", 1)[0], quote(uri) if table.startswith("file://") else uri)


def _from_scalar(storage: Storage, stretch: Stretch, row: int, scalar: pa.Scalar, limits: ImageLimits) -> Encoded:
    path = None
    if isinstance(scalar, pa.StructScalar):
        path = value_of(scalar["path"]) if scalar.is_valid and "path" in scalar else None
        scalar = scalar["bytes"] if scalar.is_valid else pa.scalar(None)
    if scalar.is_valid:
        return Encoded(stretch.source, memoryview(scalar.as_buffer()), row=row)
    if path is None:
        return Encoded(stretch.source, Rejection(Reason.MISSING, "this row holds no image"), row=row)
    return Encoded(stretch.source, fetch(storage, resolve(path, stretch.source), None, limits), row=row)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_image_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
