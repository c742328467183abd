"""Rows of images with what is said of their parts in lists <-> rows of the tables `grounding` and `regions`.

A chunk travels with one row per image, as every chunk does, and lies in files with a row per dimension or box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.chunks import LOCATION
from iqa_core.tables.regions.columns import GROUNDED, GROUNDING_TABLE, IMAGE, REGION, REGIONS_TABLE
from iqa_core.tables.scores.columns import REJECTED, SCORED, STATUS

GROUNDING, REGIONS = "grounding", "regions"
"""Columns with what is said of an image's parts; and the folders of the two tables."""

NESTED = pa.schema(
    [*LOCATION, *STATUS, (GROUNDING, pa.list_(pa.struct(list(GROUNDED)))), (REGIONS, pa.list_(pa.struct(list(REGION))))]
)
"""One row per image: where it lies, whether it was assessed, and what is said of its parts."""


def exploded(images: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of `grounding` and of `regions`, in the order of the images."""
    return _exploded(images, GROUNDING, GROUNDING_TABLE), _exploded(images, REGIONS, REGIONS_TABLE)


def _exploded(images: pa.Table, column: str, schema: pa.Schema) -> pa.Table:
    chunks = images.column(column).chunks
    nested = pa.concat_arrays(chunks) if chunks else pa.array([], NESTED.field(column).type)
    own = dict(zip([field.name for field in nested.type.value_type], pc.list_flatten(nested).flatten(), strict=True))
    parents = pc.list_parent_indices(nested)
    arrays = [own[name] if name in own else images.column(name).take(parents) for name in schema.names]
    return pa.table(arrays, schema=schema)


def imploded(grounding: pa.Table, regions: pa.Table, num_dimensions: int) -> pa.Table:
    """Rows of images from those of both tables; an image has so many rows in `grounding`. Metadata are those of it.

    Raises ValueError where rows are missing, and where `regions` has rows of no image.
    """
    num_images, left = divmod(grounding.num_rows, num_dimensions)
    if left:
        raise ValueError(f"it has {grounding.num_rows} rows, and {num_dimensions} for each image")
    first = grounding.take(pa.array(np.arange(num_images) * num_dimensions, pa.int64()))
    offsets = pa.array(np.arange(num_images + 1) * num_dimensions, pa.int32())
    fields = [_whole(grounding.column(name), GROUNDED.field(name).type) for name in GROUNDED.names]
    said = pa.StructArray.from_arrays(fields, fields=list(GROUNDED))
    is_failed = first.column("reason").is_valid()
    columns: dict[str, Any] = {
        **{name: first.column(name) for name in LOCATION.names},
        "status": pc.if_else(is_failed, REJECTED, SCORED),
        "reason": first.column("reason"),
        "detail": first.column("detail"),
        GROUNDING: pa.ListArray.from_arrays(offsets, said, type=NESTED.field(GROUNDING).type),
        REGIONS: pa.array(_by_image(first, regions), NESTED.field(REGIONS).type),
    }
    rows = pa.table({name: columns[name] for name in NESTED.names}, schema=NESTED)
    return rows.replace_schema_metadata(grounding.schema.metadata)


def _by_image(images: pa.Table, regions: pa.Table) -> list[list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in regions.to_pylist():
        found[tuple(row.pop(name) for name in IMAGE.names)].append(row)
    places: Sequence[tuple[Any, ...]] = [*zip(*(images.column(name).to_pylist() for name in IMAGE.names), strict=True)]
    if strange := found.keys() - {*places}:
        raise ValueError(f"it has regions of an image that is not among its images: {min(strange)[1]}")
    return [found[place] for place in places]


def _whole(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
