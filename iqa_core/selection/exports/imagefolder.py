"""Samples -> a folder of image files with a `metadata.jsonl`, as `datasets` reads an image folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as is_a

from iqa_core.selection.exports.features import dtype_of
from iqa_core.selection.exports.samples import Samples, renamed
from iqa_core.selection.exports.values import is_text, json_texts, json_values, to_json

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}(:?\d{2}){0,2}(Z|[+-]\d{2}(:?\d{2})?)?)?")
"""Text that the JSON reader of `datasets` takes for a date and time."""


def files(chunk: str, samples: Samples) -> Mapping[str, bytes]:
    """One folder per chunk; its metadata come last, so they never name a file that is not there."""
    found = {f"{chunk}/{sample.name}": sample.data for sample in samples.images}
    values = samples.values
    names = ["file_name", *columns(values.column_names).values()]
    told = [[sample.name for sample in samples.images], *(_flat(column) for column in values.columns)]
    lines = [to_json(dict(zip(names, row, strict=True))) for row in zip(*told, strict=True)]
    return {**found, f"{chunk}/metadata.jsonl": "".join(line + "\n" for line in lines).encode()}


def columns(names: Sequence[str]) -> dict[str, str]:
    """Column -> its name in the metadata: `datasets` would open what is called like a file name, or `image`."""
    return renamed(
        names, lambda name: f"{name}_value" if name == "image" or name.endswith(("file_name", "file_names")) else name
    )


def front_matter(schema: pa.Schema, digest: str) -> str:
    """YAML of the data set's card that fixes the columns' types: a column that begins with nulls has none else.

    digest: that of the decisions. `datasets` takes two folders with equal cards for one, and reads the cached one.
    """
    lines = ["---", "configs:", "- config_name: default", "  data_dir: .", f"  description: selection {digest}"]
    lines += ["  features:", *_feature("image", "image")]
    for name, new in columns(schema.names).items():
        lines += _feature(json.dumps(new, ensure_ascii=False), _dtype(schema.field(name).type))
    return "\n".join([*lines, "---", ""])


def taken_for_times(values: pa.Table) -> list[str]:
    """Columns of text in which every value of a shard looks like a date: `datasets` gives them back with a time."""
    found = []
    for name, column in zip(values.column_names, values.columns, strict=True):
        texts = column.drop_null().to_pylist() if is_text(column.type) else []
        if texts and all(_TIME.fullmatch(text) for text in texts):
            found.append(name)
    return found


def _feature(name: str, dtype: str) -> list[str]:
    return [f"  - name: {name}", f"    dtype: {dtype}"]


def _dtype(kind: pa.DataType) -> str:
    if is_a.is_date(kind):
        return "date32"
    if is_a.is_float16(kind):
        return "float32"
    is_own = is_a.is_boolean(kind) or is_a.is_floating(kind) or is_a.is_duration(kind)
    return dtype_of(kind) if is_own or (is_a.is_integer(kind) and kind != pa.uint64()) else "string"


def _flat(column: pa.ChunkedArray) -> list[Any]:
    """Values as JSON; lists, structs and whole numbers beyond int64 become the text of their JSON."""
    is_plain = not is_a.is_nested(column.type) and column.type != pa.uint64()
    is_plain = is_plain and not isinstance(column.type, pa.BaseExtensionType)
    return json_values(column) if is_plain else json_texts(column)
