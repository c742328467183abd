"""Arrow columns -> the same columns as Hugging Face `datasets` describes them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}
"""Arrow types that `datasets` calls otherwise."""

IMAGE = {"_type": "Image"}


def feature_of(kind: pa.DataType) -> Any:
    """A `Value`, a list or a mapping of them."""
    if pa.types.is_struct(kind):
        return {field.name: feature_of(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "List"}
    return {"dtype": dtype_of(kind), "_type": "Value"}


def dtype_of(kind: pa.DataType) -> str:
    """Name of a type that is neither list nor struct."""
    return _NAMES.get(str(kind), str(kind))


def schema_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Of a Parquet file with an image in the column `image`: makes `load_dataset` decode it."""
    features = {field.name: IMAGE if field.name == "image" else feature_of(field.type) for field in schema}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
