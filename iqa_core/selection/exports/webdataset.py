"""Samples -> a WebDataset shard: the original image, its sidecars, and its scores, under one stem each.

000000-000003-000017.jpg            the bytes that were scored
000000-000003-000017.json, .txt     sidecars as they were; the caption as .txt where a column is named for it
000000-000003-000017.scores.json    key, source, sha256, weight, scores, carried columns
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence

from iqa_core.selection.exports.samples import Form, Sample, to_json

SIDECARS = ("json", "txt")


def files(chunk: str, samples: Sequence[Sample], form: Form) -> Mapping[str, bytes]:
    """One tar; the same samples give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            for name, data in _members(sample, form):
                header = tarfile.TarInfo(name)  # its time, owner and group are 0, so that bytes repeat
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return {f"{chunk}.tar": buffer.getvalue()}


def _members(sample: Sample, form: Form) -> Iterator[tuple[str, bytes]]:
    yield sample.name, sample.data
    texts = {name: sample.values.get(name) for name in SIDECARS}
    if form.caption is not None:
        texts["txt"] = sample.values[form.caption]
    for name, text in texts.items():
        if isinstance(text, str):
            yield f"{sample.stem}.{name}", text.encode()
    yield f"{sample.stem}.scores.json", to_json(sample.values, form.schema).encode()
