"""Samples -> a folder of image files with a `metadata.jsonl`, as `datasets` reads an image folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from iqa_core.selection.exports.features import dtype_of
from iqa_core.selection.exports.samples import Form, Sample, to_json


def files(chunk: str, samples: Sequence[Sample], form: Form) -> Mapping[str, bytes]:
    """One folder per chunk; its metadata come last, so they never name a file that is not there."""
    found = {f"{chunk}/{sample.name}": sample.data for sample in samples}
    names = columns(form.schema)
    lines = [
        to_json(
            {"file_name": sample.name, **{new: _flat(sample.values[name], form, name) for name, new in names.items()}},
            form.schema,
        )
        for sample in samples
    ]
    return {**found, f"{chunk}/metadata.jsonl": "".join(line + "\n" for line in lines).encode()}


def columns(schema: pa.Schema) -> dict[str, str]:
    """Column -> its name in the metadata: `datasets` would open what is called like a file name, or `image`."""
    return {
        name: f"{name}_value" if name == "image" or name.endswith(("file_name", "file_names")) else name
        for name in schema.names
    }


def front_matter(schema: pa.Schema) -> str:
    """YAML of the data set's card that fixes the columns' types: a column that begins with nulls has none else."""
    lines = ["---", "configs:", "- config_name: default", "  data_dir: .", "  features:", *_feature("image", "image")]
    for name, new in columns(schema).items():
        kind = schema.field(name).type
        lines += _feature(json.dumps(new), "string" if _is_nested(kind) else dtype_of(kind))
    return "\n".join([*lines, "---", ""])


def _feature(name: str, dtype: str) -> list[str]:
    return [f"  - name: {name}", f"    dtype: {dtype}"]


def _flat(value: Any, form: Form, name: str) -> Any:
    """Lists and structs as the text of their JSON."""
    nested = value is not None and _is_nested(form.schema.field(name).type)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))
