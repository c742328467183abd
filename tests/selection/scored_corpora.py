"""Real images in every kind of source -> a score table that locates them, without a model and without Ray."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, ReadOptions
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import OnChanged
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import TABLE_VERSION, table_schema
from tests.corpora import write_mixed
from tests.corpus.planned import DIMENSIONS, WANTED, Image, Output, images_of


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


def score(
    output: Path,
    *inputs: object,
    chunk_images: int = 7,
    on_changed: OnChanged = "stop",
    wanted: Contract = WANTED,
    **options: Any,
) -> Path:
    """Plan, and commit what is not finished; the reward of image i is 1 + i % 5, every tenth image is rejected."""
    planned = Output(output, ReadOptions(chunk_images=chunk_images, **options))
    planned.extend(*inputs, on_changed=on_changed, wanted=wanted)
    contract = planned.plan.contract()
    assert contract is not None
    schema = table_schema(DIMENSIONS, False, contract.carried)
    ledger = Ledger(Storage(), str(output))
    finished = ledger.settled(planned.plan.retired()).finished
    index = 0
    for chunk in planned.plan.chunks():
        if chunk.name in finished:
            continue
        content, rows = planned.open(chunk), []
        for image in images_of(content):
            rows.append(_row(image, index))
            index += 1
        metadata = metadata_of(contract, chunk, content.layout)
        ledger.commit(chunk.name, pa.Table.from_pylist(rows, schema), metadata)
    return output


def metadata_of(contract: Contract, chunk: Chunk, layout: str) -> dict[str, Any]:
    """As a run commits them beside a chunk's rows."""
    return {
        "chunk": chunk.name,
        "planned": chunk.digest,
        "layout": layout,
        "damage": None,
        "versions": [],
        "table_version": TABLE_VERSION,
        "fingerprint": contract.fingerprint,
        "fingerprint_parts": dict(contract.fingerprint_parts),
        "fusion": {"source": "of a test", "digest": contract.fusion},
    }


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
    spreads = dict.fromkeys([f"{name}_std" for name in DIMENSIONS], 0.5)
    return {
        **found,
        "status": "scored",
        "reward": reward,
        **dict.fromkeys(DIMENSIONS, min(reward + 0.1, 5.0)),
        **spreads,
    }
