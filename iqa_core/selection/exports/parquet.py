"""Samples -> a Parquet file with the original bytes in a column `image`, as `datasets` reads it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.selection.exports.features import portable_table, schema_metadata
from iqa_core.selection.exports.samples import Samples, renamed

ROWS_PER_GROUP = 100
"""What a reader holds at once: with images of a megabyte, about 100 MB."""

IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def files(chunk: str, samples: Samples) -> Mapping[str, bytes]:
    """One file; columns of the values keep their names, but for one called `image`, which becomes `input_image`."""
    values = portable_table(samples.values)
    images = pa.array([{"bytes": sample.data, "path": sample.name} for sample in samples.images], IMAGE_TYPE)
    table = pa.table([images, *values.columns], ["image", *columns(values.column_names).values()])
    schema = table.schema
    buffer = io.BytesIO()
    # images do not compress, and trying costs time
    compression = dict.fromkeys(_leaves(schema), "zstd") | {"image.bytes": "none"}
    pq.write_table(
        table.replace_schema_metadata(schema_metadata(schema)),
        buffer,
        compression=compression,
        row_group_size=ROWS_PER_GROUP,
        use_dictionary=False,
    )
    return {f"{chunk}.parquet": buffer.getvalue()}


def columns(names: Sequence[str]) -> dict[str, str]:
    """Column -> its name in the file."""
    return renamed(names, lambda name: "input_image" if name == "image" else name)


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as Parquet stores them."""
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    stored = pq.ParquetFile(buffer).schema
    return [stored.column(i).path for i in range(len(stored))]
