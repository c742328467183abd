"""Rows of a table -> images and keys: what the readers of Parquet, Arrow and lists share.

The image of a row is bytes, a Hugging Face struct `{bytes, path}`, or a URI. A relative path begins at the folder of
the table's file.
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
from iqa_core.corpus.columns import repeated
from iqa_core.corpus.fetching import fetch, fetch_all, is_inline
from iqa_core.errors import CallerError, listed
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import canonical, join

URI_NAMES = ("uri", "url", "image", "image_uri", "image_url", "image_path", "file_name", "path")
"""Names, in any case, of text columns that may hold the image's URI when no flag names one; the first found counts."""


class NoImageColumn(CallerError):
    """Raised for a table in which no column can be the image, and no flag names one."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold the image and the key."""

    image: str
    is_uri: bool
    has_path: bool
    """The image column is a struct with a `path` beside its `bytes`."""
    key: str | None
    reading: int

    def carried(self, schema: pa.Schema) -> list[str]:
        """Names of all columns but the image."""
        return [name for name in schema.names if name != self.image]


def choose_columns(schema: pa.Schema, options: ReadOptions, uri: str) -> Columns:
    """The columns that the flags name, or that hold images by their types and names.

    Raises CallerError for a named column that is absent or of another type, for two columns of one name, and where
    several can be the image; NoImageColumn where none can.
    """
    if doubled := repeated(schema.names):
        shown = ", ".join(map(repr, doubled))
        raise CallerError(f"{uri}: it has several columns named {shown}; rename all but one")
    for flag, name in [("--image-column", options.image_column), ("--uri-column", options.uri_column)]:
        if name is not None and name not in schema.names:
            raise CallerError(f"{flag} {name}: {uri} has no such column; it has {listed(schema.names)}")
    if options.id_column is not None and options.id_column not in schema.names:
        raise CallerError(f"--id-column {options.id_column}: {uri} has no such column; it has {listed(schema.names)}")
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
    """The type of a column's values, whatever its encoding; reading 1 decodes dictionaries of text alone."""
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
        f"{uri}: no column can be the image (it has {listed(schema.names)}); name it with --image-column for bytes "
        "or --uri-column for URIs"
    )


def holds_images(schema: pa.Schema, options: ReadOptions) -> bool:
    """Whether a table has a column of encoded images, and not of URIs alone."""
    kinds = [_seen(field.type, options.reading) for field in schema]
    return any(_is_bytes(kind) or _is_image_struct(kind, options.reading) for kind in kinds)


def paths_of(table: pa.Table, columns: Columns) -> pa.ChunkedArray | None:
    """The URIs, or the paths beside the bytes, as text; None where the image column has bytes alone."""
    if columns.is_uri:
        return converted(table.column(columns.image), pa.string())
    return converted(pc.struct_field(table.column(columns.image), "path"), pa.string()) if columns.has_path else None


def keys_of(
    table: pa.Table, columns: Columns, paths: pa.ChunkedArray | None, positions: Iterable[int]
) -> tuple[str, ...]:
    """Key of each row: its id if an id column is named, else its path or URI, else its position in the source.

    A data URI is no key, since it is the image itself; in reading 1 it is one.
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
    """Whether a value is an id or path; empty text and NaN, which pandas writes for missing values, are none."""
    return value is not None and (reading == 1 or (value != "" and value == value))


def images_from_bytes(
    storage: Storage, span: Span, batches: Iterable[pa.Array], ordinals: Sequence[int], limits: ImageLimits
) -> Iterator[Encoded]:
    """Images with these ordinals; batches: of the image column, from row `span.begin` on."""
    wanted = frozenset(ordinals)
    for ordinal, scalar in enumerate(chain.from_iterable(batches)):
        if ordinal in wanted:
            yield _from_scalar(storage, span, span.begin + ordinal, scalar, limits)


def images_from_uris(
    storage: Storage, table: str, uris: Sequence[str | None], ordinals: Sequence[int], limits: ImageLimits
) -> Iterator[Encoded]:
    """Images with these ordinals, fetched from their URIs; one without a URI is a rejection, `missing`."""
    resolved = [None if (uri := uris[ordinal]) is None else resolve(uri, table) for ordinal in ordinals]
    fetched = fetch_all(storage, ((uri, None) for uri in resolved if uri is not None), limits)
    for uri in resolved:
        if uri is None:
            yield Encoded(table, Rejection(Reason.MISSING, "this row names no image"))
        else:
            yield Encoded(uri, next(fetched))


def resolve(uri: str, table: str) -> str:
    """The canonical form of a URI or path; a relative one begins at the folder of the table's file."""
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
    """The value behind a dictionary code, a run or an extension."""
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
    """Whether a type is a struct with a text field of that name."""
    is_struct = pa.types.is_struct(kind)
    return is_struct and any(field.name == name and _is_text(_seen(field.type, reading)) for field in kind)
