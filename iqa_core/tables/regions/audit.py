"""A plan against its tables of parts of images -> every planned image that is not there with all that was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.records import Reason
from iqa_core.tables.audit import Audit, Checks, audited, faults_of_metadata
from iqa_core.tables.regions.beside_scores import GroundedScores
from iqa_core.tables.regions.columns import REGIONS_VERSION, VIEWS, Status
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS
from iqa_core.tables.scores.audit import checks_of_scores
from iqa_core.tables.scores.columns import counts_of

TOLERANCE = 1e-3
"""Largest distance of a score beyond its range, as rounding to float32 may leave it."""

MESSAGES_OF_CHUNK = 3
"""Faults of one chunk that are told: the first say what is wrong with it."""


def audit(plan: Plan, contract: Contract) -> Audit:
    """Faults of both tables, and of the score table beside them if there is one.

    Raises CallerError where a part of the plan cannot be read.
    """
    if contract.has_scores:
        return _audit_beside_scores(plan, contract)
    table = GroundingLedger.of(plan.storage, plan.output, contract)

    def of_file(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        return faults_of_metadata(chunk, rows, contract, REGIONS_VERSION)

    def of_values(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        return _first(rows, lambda row: _faults_of_image(row, contract))

    return audited(plan, table, table.both, Checks(of_file, of_values, counts_of))


def _audit_beside_scores(plan: Plan, contract: Contract) -> Audit:
    table = GroundedScores.of(plan.storage, plan.output, contract)
    scores = checks_of_scores(contract)

    def own(rows: pa.Table) -> pa.Table:
        return rows.drop_columns([GROUNDING, REGIONS])

    def of_file(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        return scores.of_file(chunk, own(rows))

    def of_values(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        yield from scores.of_values(chunk, own(rows))
        yield from _first(rows, lambda row: chain(_faults_of_image(row, contract), _contradictions(row)))

    return audited(plan, table, table.all, Checks(of_file, of_values, counts_of))


def _contradictions(row: dict[str, Any]) -> Iterator[str]:
    """What the score table and that of parts say differently of one image."""
    for one in row[GROUNDING]:
        name = one["dimension"]
        if one["score"] is not None and one["score"] != row[name]:
            yield f"its score in {name} is {one['score']} in {GROUNDING}/, and {row[name]} in its score table"


def _first(rows: pa.Table, faults_of: Callable[[dict[str, Any]], Iterator[str]]) -> Iterator[str]:
    """What an image cannot have, for the first images with something."""
    found = 0
    for row in rows.to_pylist():
        for what in faults_of(row):
            yield f"image {row['key']}: {what}"
            found += 1
            if found == MESSAGES_OF_CHUNK:
                return


def _faults_of_image(row: dict[str, Any], contract: Contract) -> Iterator[str]:
    said = row[GROUNDING]
    if (names := [one["dimension"] for one in said]) != [*contract.grounded]:
        yield f"it has rows of {', '.join(map(str, names))} in the place of {', '.join(contract.grounded)}"
        return
    for one in said:
        yield from _faults_of_row(one, row, contract)
    for name in contract.grounded:
        regions = [region for region in row[REGIONS] if region["dimension"] == name]
        is_located = next(one["status"] for one in said if one["dimension"] == name) == Status.LOCATED
        if [region["ordinal"] for region in regions] != [*range(len(regions))]:
            yield f"its regions in {name} are not numbered one after another"
        if [region["method"] for region in regions].count(VIEWS) != is_located:
            yield f"its worst cell in {name} has no region, or more than one"


def _faults_of_row(one: dict[str, Any], row: dict[str, Any], contract: Contract) -> Iterator[str]:
    name, status = one["dimension"], one["status"]
    if status not in {*Status}:
        yield f"its status in {name} is {status}"
        return
    is_failed = status == Status.FAILED
    if (one["reason"] in {*Reason}) != is_failed:
        yield f"it is {status} in {name}, and its reason is {one['reason']}"
    if is_failed != (one["score"] is None) or is_failed != (one["cell_scores"] is None):
        yield f"it is {status} in {name}, and has {'a score' if is_failed else 'no scores'}"
        return
    if (status == Status.LOCATED) != (one["x"] is not None and one["y"] is not None):
        yield f"it is {status} in {name}, and its place is {one['x']}, {one['y']}"
    elif status == Status.LOCATED and not (0 <= one["x"] <= row["width"] and 0 <= one["y"] <= row["height"]):
        yield f"its place in {name} lies outside of it"
    if not is_failed and not _in_range([one["score"], *one["cell_scores"]], contract, name):
        yield f"a score in {name} lies outside of its range"
    side = contract.grounding["cells"]
    if not is_failed and len(one["cell_scores"]) != side * side:
        yield f"it has {len(one['cell_scores'])} cells in {name}, and not {side * side}"


def _in_range(scores: Sequence[float], contract: Contract, name: str) -> bool:
    own = contract.scale_of(name).range
    return all(own.low - TOLERANCE <= score <= own.high + TOLERANCE for score in scores)
