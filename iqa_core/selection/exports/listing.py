"""Kept rows -> a plain list of what is kept, for trainers that find the images themselves; no image is touched.

`selected.parquet` has the columns that SimpleTuner's Parquet metadata backend looks for: `filename` (the image's key: a
path relative to the folder that was scored), `caption`, `width`, `height`; and weight, scores and locators behind them.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

NAMED = {"filename": "key", "width": "width", "height": "height"}
"""Column of the list -> column of the rows."""


def list_schema(score_names: tuple[str, ...]) -> pa.Schema:
    """Columns of `selected.parquet`."""
    fields = [("filename", pa.string()), ("caption", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
    fields += [("source", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("row", pa.int64())]
    fields += [("sha256", pa.string()), ("format", pa.string()), ("weight", pa.float64())]
    return pa.schema([*fields, *((name, pa.float32()) for name in score_names)])


def list_bytes(blocks: Iterable[pa.Table], caption: str | None, score_names: tuple[str, ...]) -> tuple[bytes, bytes]:
    """`selected.parquet` and `selected.txt`, compressed as the rows come."""
    schema = list_schema(score_names)
    table, text = io.BytesIO(), io.StringIO()
    with pq.ParquetWriter(table, schema, compression="zstd") as writer:
        for block in blocks:
            writer.write_table(_listed(block, caption, schema))
            text.writelines(_lines(block))
    return table.getvalue(), text.getvalue().encode()


def _listed(block: pa.Table, caption_column: str | None, schema: pa.Schema) -> pa.Table:
    caption = pa.nulls(block.num_rows, pa.string()) if caption_column is None else block.column(caption_column)
    columns = {name: caption if name == "caption" else block.column(NAMED.get(name, name)) for name in schema.names}
    return pa.table(columns).cast(schema)


def _lines(block: pa.Table) -> Iterator[str]:
    """A line per image: its URI; for an image inside of a tar or table, that file's URI, a tab, and its key."""
    rows = zip(*(block.column(name).to_pylist() for name in ("source", "key", "offset", "row")), strict=True)
    for source, key, offset, row in rows:
        line = source if offset is None and row is None else f"{source}\t{key}"
        yield line.replace("\n", "%0A") + "\n"
