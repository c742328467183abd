"""Samples -> a Parquet file with the original bytes in a column `image`, as `datasets` reads it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.selection.exports.features import schema_metadata
from iqa_core.selection.exports.samples import Form, Sample

ROWS_PER_GROUP = 100
"""What a reader holds at once: with images of a megabyte, about 100 MB."""

IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def files(chunk: str, samples: Sequence[Sample], form: Form) -> Mapping[str, bytes]:
    """One file; columns of the values keep their names, but for one called `image`, which becomes `input_image`."""
    names = {name: "input_image" if name == "image" else name for name in form.schema.names}
    values = [form.schema.field(name).with_name(new) for name, new in names.items()]
    schema = pa.schema([pa.field("image", IMAGE_TYPE), *values])
    rows = [
        {
            "image": {"bytes": sample.data, "path": sample.name},
            **{new: sample.values[name] for name, new in names.items()},
        }
        for sample in samples
    ]
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema.with_metadata(schema_metadata(schema)))
    # images do not compress, and trying costs time
    compression = dict.fromkeys(_leaves(schema), "zstd") | {"image.bytes": "none"}
    pq.write_table(table, buffer, compression=compression, row_group_size=ROWS_PER_GROUP, use_dictionary=False)
    return {f"{chunk}.parquet": buffer.getvalue()}


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as Parquet stores them."""
    buffer = io.BytesIO()
    pq.write_table(schema.empty_table(), buffer)
    stored = pq.ParquetFile(buffer).schema
    return [stored.column(i).path for i in range(len(stored))]
