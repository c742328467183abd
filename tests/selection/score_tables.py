"""Rows as dictionaries -> a score table as the scoring job leaves it: plan, contract and committed chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Span, chunk_name
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.segments import Draft
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.corpus.sources import Kind
from iqa_core.questions import ColumnScale
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import groups_of, table_schema
from iqa_core.written.columns import WrittenColumns

DIMENSIONS = ("layout", "lighting")


def write_score_table(
    output: Path,
    rows: Sequence[Mapping[str, Any]],
    carried: pa.Schema | None = None,
    chunk_images: int = 4,
    fingerprint: str = "0123456789abcdef",
    dimensions: Sequence[str] = DIMENSIONS,
    fusion: str = "equal",
    unfinished: int = 0,
    scales: Mapping[str, ColumnScale] = MappingProxyType({}),
    slots: SlotColumns = NO_SLOTS,
    written: WrittenColumns | None = None,
) -> Path:
    """A row needs what it is about; the rest is filled in. A row with a `reason` is rejected.

    unfinished: chunks that are planned and have no file.
    """
    carried = carried if carried is not None else pa.schema([])
    storage = Storage()
    plan = Plan(storage, str(output))
    names = tuple(dimensions)
    plan.create(
        Contract(
            *(fingerprint, {}, chunk_images, False, names, fusion, {}, carried),
            scales=dict(scales),
            slots=slots,
            written=written,
        )
    )
    starts = range(0, len(rows), chunk_images)
    draft = Draft.of((Kind.IMAGE, (_span(index),)) for index in range(len(starts) + unfinished))
    plan.add_segment(0, *draft.segments())
    schema = table_schema(names, False, carried, groups_of(scales), written)
    for index, start in enumerate(starts):
        some = [filled(row, start + i, dimensions) for i, row in enumerate(rows[start : start + chunk_images])]
        Ledger(storage, str(output)).commit(chunk_name(0, index), pa.Table.from_pylist(some, schema), {})
    return output


def filled(row: Mapping[str, Any], index: int, dimensions: Sequence[str] = DIMENSIONS) -> dict[str, Any]:
    """A whole row of the score table."""
    key = row.get("key", f"{index:04d}.png")
    reward = row.get("reward", 3.0)
    found = {
        "key": key,
        "source": f"/pictures/{key}",
        "sha256": hashlib.sha256(str(key).encode()).hexdigest(),
        "width": 64,
        "height": 48,
        "format": "png",
        "frames": 1,
        "status": "scored",
        **dict.fromkeys(dimensions, reward),
        **{f"{name}_std": 0.5 for name in dimensions},
        **row,
        "reward": reward,
    }
    if "reason" in row:
        unscored = [*dimensions, *(f"{name}_std" for name in dimensions), "reward"]
        found |= {"status": "rejected", "detail": "it is broken", **dict.fromkeys(unscored)}
    return found


def _span(index: int) -> Span:
    return Span(f"/pictures/{index}", str(index), 1, "", 0, 1, 1)
