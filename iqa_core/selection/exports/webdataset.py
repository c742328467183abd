"""Samples -> a WebDataset shard: the original image, its sidecars, and its scores, under one stem each.

000000-000003-000017.jpg            the bytes that were scored
000000-000003-000017.json, .txt     sidecars as they were; the caption as .txt where a column is named for it
000000-000003-000017.scores.json    key, source, sha256, weight, scores, carried columns
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from iqa_core.selection.exports.samples import Sample, Samples
from iqa_core.selection.exports.values import is_text, json_rows, to_json

SIDECARS = ("json", "txt")


def files(chunk: str, samples: Samples) -> Mapping[str, bytes]:
    """One tar; the same samples give the same bytes."""
    schema = samples.values.schema
    texts = {name: name for name in SIDECARS if name in schema.names and is_text(schema.field(name).type)}
    if samples.caption is not None:
        texts["txt"] = samples.caption
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample, row in zip(samples.images, json_rows(samples.values), strict=True):
            for name, data in _members(sample, row, texts):
                header = tarfile.TarInfo(name)  # its time, owner and group are 0, so that bytes repeat
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return {f"{chunk}.tar": buffer.getvalue()}


def _members(sample: Sample, row: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """texts: sidecar -> the column that it is made of."""
    yield sample.name, sample.data
    for ending, column in sorted(texts.items()):
        if row[column] is not None:
            yield f"{sample.stem}.{ending}", row[column].encode()
    yield f"{sample.stem}.scores.json", to_json(row).encode()
