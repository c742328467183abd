"""Real images in every kind of source -> a score table that locates them, without a model and without Ray."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.ledger import Ledger
from iqa_core.corpus.storage import Storage
from iqa_core.corpus.table import table_schema
from tests.corpora import write_mixed
from tests.corpus.planned import DIMENSIONS, Image, Output, images_of


@dataclass(frozen=True, slots=True)
class ScoredCorpus:
    """A score table and the images that it is about."""

    scores: Path
    images: dict[str, bytes]
    """By key."""


def write_scored_corpus(root: Path, count: int = 40) -> ScoredCorpus:
    """Two fifths loose, two fifths in tars, the others in Parquet and behind a list; every tenth is rejected."""
    corpus = write_mixed(root, count)
    scores = score(root / "scores", *corpus.inputs)
    return ScoredCorpus(scores, dict(corpus.images))


def score(output: Path, *inputs: object, chunk_images: int = 7, **options: Any) -> Path:
    """Plan and commit; the reward of image i is 1 + i % 5, every tenth image is rejected."""
    planned = Output(output, ReadOptions(chunk_images=chunk_images, **options))
    planned.extend(*inputs)
    contract = planned.plan.contract()
    assert contract is not None
    schema = table_schema(DIMENSIONS, False, contract.carried)
    index = 0
    for name, content in planned.contents().items():
        rows = []
        for image in images_of(content):
            rows.append(_row(image, index))
            index += 1
        Ledger(Storage(), str(output)).commit(name, pa.Table.from_pylist(rows, schema), {})
    return output


def _row(image: Image, index: int) -> dict[str, Any]:
    assert isinstance(image.data, bytes)
    found = {
        "key": image.key,
        "source": image.source,
        "sha256": hashlib.sha256(image.data).hexdigest(),
        "offset": image.offset,
        "length": image.length,
        "row": image.row,
        "width": 24,
        "height": 24,
        "format": "png",
        "frames": 1,
        **image.carried,
    }
    if index % 10 == 9:
        return {**found, "status": "rejected", "reason": "corrupt", "detail": "it is broken"}
    reward = 1.0 + index % 5
    return {**found, "status": "scored", "reward": reward, **dict.fromkeys(DIMENSIONS, reward + 0.1)}
