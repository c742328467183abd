"""Decided rows and the selection's record -> its report as bytes: what is kept against what is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.questions import ColumnScale
from iqa_core.report.gathered import Gathered
from iqa_core.report.page import Report, render
from iqa_core.report.scoring_report import assessor_facts, sheet_thumbnails
from iqa_core.tables.scores.columns import REJECTED, SCORED
from iqa_core.tables.scores.run_record import run_record
from iqa_core.tables.scores.score_table import ScoreTable

CARRIED = ("sha256", "offset", "length", "row", "detail")
"""Columns of the score table that the page needs beside decisions and groups."""


def selection_report(
    blocks: Iterable[pa.Table],
    names: Sequence[str],
    groups: Sequence[str],
    record: Mapping[str, Any],
    table: ScoreTable,
    scales: Mapping[str, ColumnScale],
) -> bytes:
    """The page of a selection.

    blocks: the decision table, with the columns CARRIED and the groups behind its own. names: its score columns, the
    reward last. record: selection.json. table: a score table, whose contract says how originals are found. scales: of
    the names whose scores are not five levels worth 1 to 5.
    """
    gathered = Gathered(tuple(names), tuple(groups), scales)
    for block in blocks:
        gathered.add(_as_scored(block), _mask(block.column("kept")))
    facts = [
        ("images", f"{record['images']:,}"),
        ("kept", f"{record['kept']:,}"),
        ("as many as", f"{record['effective_images']:,.1f} images of equal weight"),
        ("dropped", f"{record['dropped']:,}"),
        ("policy", record["policy_digest"]),
        *[(name, _told(value)) for name, value in record["policy"].items() if value and name != "order"],
        *[fact for scores in record["scores"] for fact in _scored_by(scores, table)],
    ]
    return render(
        Report(
            title=f"Selection {record['policy_digest']}",
            facts=facts,
            gathered=gathered,
            thumbnails=sheet_thumbnails(table, gathered),
            is_selection=True,
            dropped=record["dropped_by_reason"],
        )
    )


def _scored_by(scores: Mapping[str, Any], table: ScoreTable) -> list[tuple[str, str]]:
    """Facts of one score table: its address, its fingerprint, and who scored."""
    own = ("scores", f"{scores['uri']}, fingerprint {scores['fingerprint']}")
    return [own, *assessor_facts(run_record(table.storage, scores["uri"]))]


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_scored(block: pa.Table) -> pa.Table:
    """The block with the score table's status and rejection codes, restored from the reasons of the decisions."""
    reasons = block.column("reason").cast(pa.string())
    is_rejected = pc.fill_null(pc.starts_with(reasons, "1:rejected:"), False)
    codes = pc.replace_substring_regex(reasons, "^1:rejected:", "")
    codes = pc.if_else(is_rejected, codes, pa.scalar(None, pa.string()))
    place = block.column_names.index("reason")
    return block.set_column(place, "reason", codes).append_column("status", pc.if_else(is_rejected, REJECTED, SCORED))


def _mask(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found: np.ndarray[Any, np.dtype[np.bool_]] = column.combine_chunks().to_numpy(zero_copy_only=False)
    return found
