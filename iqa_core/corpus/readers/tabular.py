"""Rows of a table -> images: what Parquet, Arrow and lists have in common.

The image of a row is its bytes, a Hugging Face struct `{bytes, path}`, or a URI. A relative path is relative to the
folder of the table's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.carried_types import is_list, unwrapped
from iqa_core.corpus.chunks import Encoded, ReadOptions, Span
from iqa_core.corpus.column_values import converted, text_of, utf8, value_of, values_of
from iqa_core.corpus.fetching import fetch, fetch_all, is_inline
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import canonical, join

URI_NAMES = ("uri", "url", "image", "image_uri", "image_url", "image_path", "file_name", "path")
"""Text columns that are taken for the image's URI when no flag names one, in any case; the first that is there."""


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
    reading: int

    def carried(self, schema: pa.Schema) -> list[str]:
        return [name for name in schema.names if name != self.image]


def choose_columns(schema: pa.Schema, options: ReadOptions, uri: str) -> Columns:
    """Raises CallerError for a column that was named and is not there or of no use, NoImageColumn if none fits."""
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if doubled:
        shown = ", ".join(map(repr, doubled))
        raise CallerError(f"{uri}: it has several columns named {shown}; rename all but one")
    for flag, name in [("--image-column", options.image_column), ("--uri-column", options.uri_column)]:
        if name is not None and name not in schema.names:
            raise CallerError(f"{flag} {name}: {uri} has no such column; it has {', '.join(schema.names)}")
    if options.id_column is not None and options.id_column not in schema.names:
        raise CallerError(
            f"--id-column {options.id_column}: {uri} has no such column; it has {', '.join(schema.names)}"
        )
    if options.id_column is not None and options.reading > 1:
        _check_key(schema.field(options.id_column), uri)
    name, is_uri = _image_column(schema, options, uri)
    has_path = _is_text_field("path", _seen(schema.field(name).type, options.reading), options.reading)
    return Columns(name, is_uri, has_path, options.id_column, options.reading)


def _check_key(field: pa.Field, uri: str) -> None:
    kind = unwrapped(field.type)
    if is_list(kind) or kind.num_fields:
        raise CallerError(f"--id-column {field.name}: it is {kind} in {uri}; a key is text, bytes, a number or a time")


def _seen(kind: pa.DataType, reading: int) -> pa.DataType:
    """What a column stands for, whatever its encoding; the first reading knows dictionaries of text alone."""
    if reading > 1:
        return unwrapped(kind)
    is_text_by_codes = pa.types.is_dictionary(kind) and _is_text(kind.value_type)
    return kind.value_type if is_text_by_codes else kind


def _image_column(schema: pa.Schema, options: ReadOptions, uri: str) -> tuple[str, bool]:
    reading = options.reading
    seen = {field.name: _seen(field.type, reading) for field in schema}
    if options.uri_column is not None:
        if not _is_text(seen[options.uri_column]):
            raise CallerError(
                f"--uri-column {options.uri_column}: it is {schema.field(options.uri_column).type} in {uri}"
            )
        return options.uri_column, True
    if options.image_column is not None:
        kind = seen[options.image_column]
        if not (_is_bytes(kind) or _is_image_struct(kind, reading)):
            raise CallerError(
                f"--image-column {options.image_column}: it is {kind} in {uri}; bytes or a struct of bytes and path "
                "is wanted (--uri-column names a column of URIs)"
            )
        return options.image_column, False
    as_given = {field.name: field.type for field in schema}
    for found in (
        [name for name, kind in seen.items() if _is_image_struct(kind, reading)],
        [name for name, kind in as_given.items() if _is_bytes(kind)],
        [name for name, kind in seen.items() if _is_bytes(kind)],
    ):
        if len(found) == 1:
            return found[0], False
        if len(found) > 1:
            raise CallerError(f"{uri}: {', '.join(found)} can all be the image; say which with --image-column")
    names = sorted(schema.names, key=str.islower, reverse=True) if reading > 1 else schema.names
    for wanted in URI_NAMES:
        for name in names:
            if wanted == (name.lower() if reading > 1 else name) and _is_text(seen[name]):
                return name, True
    raise NoImageColumn(
        f"{uri}: no column can be the image (it has {', '.join(schema.names)}); name it with --image-column for bytes "
        "or --uri-column for URIs"
    )


def holds_images(schema: pa.Schema, options: ReadOptions) -> bool:
    """Whether a table has images themselves in it, and not only what names them."""
    kinds = [_seen(field.type, options.reading) for field in schema]
    return any(_is_bytes(kind) or _is_image_struct(kind, options.reading) for kind in kinds)


def paths_of(table: pa.Table, columns: Columns) -> pa.ChunkedArray | None:
    """URIs, or the paths beside the bytes, as strings; None where the image column is bytes alone."""
    if columns.is_uri:
        return converted(table.column(columns.image), pa.string())
    return converted(pc.struct_field(table.column(columns.image), "path"), pa.string()) if columns.has_path else None


def keys_of(
    table: pa.Table, columns: Columns, paths: pa.ChunkedArray | None, positions: Iterable[int]
) -> tuple[str, ...]:
    """The id column if one was named, else the path or URI, else the row's position in its source: what there is.

    A data URI, which is the image and no name, counts as one in the first reading alone.
    """
    sources = [] if columns.key is None else [values_of(table.column(columns.key))]
    if paths is not None:
        names = values_of(paths)
        sources.append(
            names if columns.reading == 1 else [None if path is None or is_inline(path) else path for path in names]
        )
    text = str if columns.reading == 1 else text_of
    return tuple(
        utf8(next((text(column[i]) for column in sources if _is_there(column[i], columns.reading)), str(position)))
        for i, position in enumerate(positions)
    )


def _is_there(value: Any, reading: int) -> bool:
    """Whether a row has an id or path; empty text and NaN, as pandas writes what is missing, are none."""
    return value is not None and (reading == 1 or (value != "" and value == value))


def images_from_bytes(
    storage: Storage, span: Span, batches: Iterable[pa.Array], ordinals: Sequence[int], limits: ImageLimits
) -> Iterator[Encoded]:
    """Images of these ordinals, from the batches of an image column of which the first row is `span.begin`."""
    wanted = frozenset(ordinals)
    for ordinal, scalar in enumerate(chain.from_iterable(batches)):
        if ordinal in wanted:
            yield _from_scalar(storage, span, span.begin + ordinal, scalar, limits)


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


def _from_scalar(storage: Storage, span: Span, row: int, scalar: pa.Scalar, limits: ImageLimits) -> Encoded:
    path = None
    scalar = _seen_scalar(scalar)
    if isinstance(scalar, pa.StructScalar):
        path = value_of(scalar["path"]) if scalar.is_valid and "path" in scalar else None
        scalar = _seen_scalar(scalar["bytes"]) if scalar.is_valid else pa.scalar(None)
    if scalar.is_valid:
        return Encoded(span.source, memoryview(scalar.as_buffer()), row=row)
    if path is None:
        return Encoded(span.source, Rejection(Reason.MISSING, "this row holds no image"), row=row)
    return Encoded(span.source, fetch(storage, resolve(path, span.source), None, limits), row=row)


def _seen_scalar(scalar: pa.Scalar) -> pa.Scalar:
    """The value itself, of a code, a run or an extension."""
    while isinstance(scalar, pa.DictionaryScalar | pa.RunEndEncodedScalar | pa.ExtensionScalar):
        if not scalar.is_valid:
            return pa.scalar(None)
        scalar = scalar.value
    return scalar


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_image_struct(kind: pa.DataType, reading: int) -> bool:
    is_struct = pa.types.is_struct(kind)
    return is_struct and any(field.name == "bytes" and _is_bytes(_seen(field.type, reading)) for field in kind)


def _is_text_field(name: str, kind: pa.DataType, reading: int) -> bool:
    """Whether it is a struct with text of that name."""
    is_struct = pa.types.is_struct(kind)
    return is_struct and any(field.name == name and _is_text(_seen(field.type, reading)) for field in kind)
