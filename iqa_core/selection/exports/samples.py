"""Kept rows and their bytes -> samples: what every export format writes, and the names and values that it writes.

Names are made of chunk and ordinal, so they are unique and the same in every run; the original's key stands beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}
"""Of formats whose usual extension is not their name."""

HIDDEN = ("status", "reason", "detail", "frames", "offset", "length", "row", "kept")
"""Columns of the rows that say nothing of an exported image."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of an export."""

    stem: str
    data: bytes
    """As they were scored; never decoded, never encoded again."""
    extension: str
    values: Mapping[str, Any]
    """Column -> value: key, source, sha256, size, weight, scores, carried columns."""

    @property
    def name(self) -> str:
        return f"{self.stem}.{self.extension}"


@dataclass(frozen=True, slots=True)
class Form:
    """What the files of one export have in common."""

    schema: pa.Schema
    """Of the values of its samples."""
    caption: str | None
    """The column that is the caption."""


def value_schema(rows: pa.Schema) -> pa.Schema:
    """Columns of kept rows that go into an export."""
    return pa.schema([field for field in rows if field.name not in HIDDEN])


def samples_of(chunk: str, rows: pa.Table, data: Sequence[bytes]) -> list[Sample]:
    """rows: kept rows of one chunk that have their bytes."""
    values = rows.select(value_schema(rows.schema).names).to_pylist()
    return [
        Sample(f"{chunk}-{ordinal:06d}", bytes_, EXTENSIONS.get(row["format"], row["format"]), row)
        for ordinal, (row, bytes_) in enumerate(zip(values, data, strict=True))
    ]


def to_json(values: Mapping[str, Any], schema: pa.Schema) -> str:
    """One line of JSON; float32 in the digits that it has, what is not finite as null."""
    return json.dumps(
        {
            name: _plain(value, schema.field(name).type if name in schema.names else None)
            for name, value in values.items()
        },
        ensure_ascii=False,
        default=str,
    )


def _plain(value: Any, kind: pa.DataType | None) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(str(np.float32(value))) if kind == pa.float32() else value
