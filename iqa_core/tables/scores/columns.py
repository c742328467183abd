"""Rejections and assessments of images -> rows of the score table, in one fixed schema.

The columns are a contract, see `docs/score-table.md`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from iqa_core.corpus.chunks import LOCATION
from iqa_core.corpus.columns import plain, storable
from iqa_core.corpus.plan.plan import Contract
from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights, fuse
from iqa_core.questions import ColumnScale, yes_column
from iqa_core.records import RETRYABLE, Assessment, Rejection, Written
from iqa_core.written.columns import ANSWERS, CAPTION, FINISH, PARSED, REASONING, WrittenColumns

TABLE_VERSION = 1
"""Raised by hand when a column changes its name, type or meaning."""

STATUS = pa.schema([("status", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""Whether an image was scored, and if not, why."""

SCORED, REJECTED = "scored", "rejected"

REWARD = "reward"
"""The fused score; the last of the table's own columns."""


def score_columns(
    dimensions: Sequence[str], probs: bool, groups: Collection[str] = (), written: WrittenColumns | None = None
) -> pa.Schema:
    """Columns of scores, spreads, probabilities, float32; of what was written; and the reward.

    probs: whether there are those of a dimension's answers. groups: dimensions that have those of their statements.
    written: what is kept of written answers; None where answers are closed sets.
    """
    fields = [(name, pa.float32()) for name in dimensions] + [(f"{name}_std", pa.float32()) for name in dimensions]
    listed = [yes_column(name) if name in groups else f"{name}_probs" for name in dimensions if probs or name in groups]
    fields += [(name, pa.list_(pa.float32())) for name in listed]
    return pa.schema([*fields, *(written.schema if written else ()), (REWARD, pa.float32())])


def table_schema(
    dimensions: Sequence[str],
    probs: bool,
    carried: pa.Schema,
    groups: Collection[str] = (),
    written: WrittenColumns | None = None,
) -> pa.Schema:
    """All columns of a score table, in order. Raises CallerError if two of them have one name."""
    fields = [*LOCATION, *STATUS, *score_columns(dimensions, probs, groups, written), *carried]
    names = [field.name for field in fields]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise CallerError(
            f"two columns of the score table would have the name {', '.join(doubled)}: rename the input's"
        )
    return pa.schema(fields)


def schema_of(contract: Contract) -> pa.Schema:
    """All columns of an output's score files; dictionary-encoded columns as their value type."""
    groups = groups_of(contract.scales)
    return plain(table_schema(contract.dimensions, contract.probs, contract.carried, groups, contract.written))


def groups_of(scales: Mapping[str, ColumnScale]) -> frozenset[str]:
    """Dimensions that are groups of statements."""
    return frozenset(name for name, scale in scales.items() if scale.is_group)


def dimensions_of(names: Sequence[str]) -> tuple[str, ...]:
    """Dimensions of a table with these columns: names with a `_std` before the reward; carried columns follow it."""
    own = names[: names.index(REWARD)]
    return tuple(name for name in own if f"{name}_std" in own)


def own_columns(
    dimensions: Sequence[str], groups: Collection[str] = (), written: WrittenColumns | None = None
) -> frozenset[str]:
    """Names of the table's own columns; an input column with one of them is renamed to `input_<name>`."""
    own = score_columns(dimensions, True, groups, written and WrittenColumns(all_samples=True))
    return frozenset([*LOCATION.names, *STATUS.names, *own.names])


def status_and_scores(
    rejections: Sequence[Rejection | None],
    results: Sequence[Assessment | Rejection],
    dimensions: Sequence[str],
    probs: bool,
    weights: FusionWeights,
    groups: Collection[str] = (),
    written: WrittenColumns | None = None,
) -> pa.Table:
    """Status and score columns for images of which some were rejected before they could be assessed.

    rejections: one per image, None where it was assessed; results: one per None, in order. groups, written: as in
    `score_columns`. A spread that is NaN is not known, and null.
    """
    waiting = iter(results)
    outcomes = [next(waiting) if rejection is None else rejection for rejection in rejections]
    columns: dict[str, Any] = {
        "status": [REJECTED if isinstance(outcome, Rejection) else SCORED for outcome in outcomes],
        "reason": [str(outcome.reason) if isinstance(outcome, Rejection) else None for outcome in outcomes],
        "detail": storable(
            [outcome.detail if isinstance(outcome, Rejection) else None for outcome in outcomes], pa.string()
        ),
    }
    assessed = [outcome for outcome in outcomes if isinstance(outcome, Assessment)]
    place = np.cumsum([isinstance(outcome, Assessment) for outcome in outcomes]) - 1
    gather = pa.array(place, pa.int64(), mask=np.array([isinstance(outcome, Rejection) for outcome in outcomes], bool))
    scores_NK = np.array([outcome.scores_K for outcome in assessed], np.float32).reshape(-1, len(dimensions))
    stds_NK = np.array([outcome.stds_K for outcome in assessed], np.float32).reshape(-1, len(dimensions))
    scored: dict[str, pa.Array] = {}
    for k, name in enumerate(dimensions):
        scored[name] = pa.array(scores_NK[:, k], pa.float32())
        scored[f"{name}_std"] = pa.array(stds_NK[:, k], pa.float32(), from_pandas=True)
        if probs or name in groups:
            column = yes_column(name) if name in groups else f"{name}_probs"
            scored[column] = pa.array([outcome.probs_K[k] for outcome in assessed], pa.list_(pa.float32()))
    if written is not None:
        scored |= _written_arrays([outcome.written for outcome in assessed if outcome.written is not None], written)
    scored[REWARD] = pa.array(fuse(scores_NK, weights), pa.float32())
    columns |= {name: array.take(gather) for name, array in scored.items()}
    schema = pa.schema([*STATUS, *score_columns(dimensions, probs, groups, written)])
    return pa.table({field.name: columns[field.name] for field in schema}, schema=schema)


def _written_arrays(found: Sequence[Written], written: WrittenColumns) -> dict[str, pa.Array]:
    """Columns of what was written about images that have scores."""
    columns = {
        CAPTION: pa.array([one.caption for one in found], pa.string()),
        REASONING: pa.array([one.reasoning for one in found], pa.string()),
        PARSED: pa.array([one.parsed for one in found], pa.int32()),
        FINISH: pa.array([str(one.finish) for one in found], pa.string()),
    }
    if written.all_samples:
        columns[ANSWERS] = pa.array([one.answers for one in found], pa.list_(pa.string()))
    return columns


def counts_of(table: pa.Table) -> Mapping[str, int]:
    """Rejection code -> number of rows; `scored` for the others."""
    reasons = table.column("reason").fill_null(SCORED).value_counts()
    return {entry["values"].as_py(): entry["counts"].as_py() for entry in reasons}


def retryable_ordinals(table: pa.Table) -> list[int]:
    """Ordinals of rejected rows that are worth another try: their reason may be gone in the next run."""
    return [i for i, reason in enumerate(table.column("reason").to_pylist()) if reason in RETRYABLE]
