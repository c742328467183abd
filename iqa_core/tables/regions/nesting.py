"""Rows of images with what is said of their parts in lists <-> rows of the tables `grounding` and `regions`.

A chunk travels with one row per image, as every chunk does, and lies in files with a row per dimension or box.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.chunks import LOCATION
from iqa_core.tables.regions.columns import GROUNDED, GROUNDING_TABLE, IMAGE, REGION, REGIONS_TABLE, Status
from iqa_core.tables.scores.columns import REJECTED, SCORED, STATUS

GROUNDING, REGIONS = "grounding", "regions"
"""Columns with what is said of an image's parts; and the folders of the two tables."""

Place: TypeAlias = tuple[Any, ...]
"""Values of IMAGE: by what an image is found in both tables."""

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
        REGIONS: pa.array(_by_image(first, grounding, regions), NESTED.field(REGIONS).type),
    }
    rows = pa.table({name: columns[name] for name in NESTED.names}, schema=NESTED)
    return rows.replace_schema_metadata(grounding.schema.metadata)


def _by_image(images: pa.Table, grounding: pa.Table, regions: pa.Table) -> list[list[dict[str, Any]]]:
    """Regions of each image. images: the first row of each in `grounding`."""
    places: Sequence[Place] = [*zip(*(images.column(name).to_pylist() for name in IMAGE.names), strict=True)]
    found: dict[Place, list[dict[str, Any]]] = {place: [] for place in places}
    for row in regions.to_pylist():
        place = tuple(row.pop(name) for name in IMAGE.names)
        if place not in found:
            raise ValueError(f"it has regions of an image that is not among its images: {place[1]}")
        found[place].append(row)
    if len(found) == len(places) or not regions.num_rows:
        return [found[place] for place in places]
    return _shared_out(places, grounding, found)


def _shared_out(
    places: Sequence[Place], grounding: pa.Table, found: Mapping[Place, Sequence[dict[str, Any]]]
) -> list[list[dict[str, Any]]]:
    """The same where images lie in one place, as those that a list names twice: each has its own share of the rows.

    They have the user's boxes of that place in common, and a worst cell where they are located.
    """
    num_images = Counter(places)
    statuses = np.array(grounding.column("status").to_pylist(), object).reshape(len(places), -1)
    names = grounding.column("dimension").to_pylist()[: statuses.shape[1]]
    located: dict[tuple[Place, str], int] = Counter()
    waiting: dict[tuple[Place, str], deque[dict[str, Any]]] = defaultdict(deque)
    for place, own in zip(places, statuses, strict=True):
        located.update((place, name) for name, status in zip(names, own, strict=True) if status == Status.LOCATED)
    for place, rows in found.items():
        for row in rows:
            waiting[place, row["dimension"]].append(row)
    boxes = {key: divmod(len(rows) - located[key], num_images[key[0]]) for key, rows in waiting.items()}
    for (place, name), (least, left) in boxes.items():
        if least < 0 or left or name not in names:
            raise ValueError(f"its regions in {name} are not those of the {num_images[place]} images {place[1]}")
    return [
        [
            waiting[place, name].popleft()
            for name, status in zip(names, own, strict=True)
            for _ in range(boxes.get((place, name), (0, 0))[0] + (status == Status.LOCATED))
        ]
        for place, own in zip(places, statuses, strict=True)
    ]


def _whole(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
