"""A plan against its score table -> every planned image that is not there exactly once, with a possible score."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.columns import plain
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.tables.audit import Audit, Checks, audited, faults_of_metadata
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import TABLE_VERSION, counts_of, schema_of
from iqa_core.tables.scores.plausibility import implausible
from iqa_core.tables.scores.score_table import ledger_of


def audit(plan: Plan, contract: Contract) -> Audit:
    """Faults of the whole table. Raises CallerError where a part of the plan cannot be read."""
    ledger = ledger_of(plan.storage, plan.output, contract)
    return audited(plan, ledger, [ledger], checks_of_scores(contract))


def checks_of_scores(contract: Contract) -> Checks:
    """What is looked at in the rows of a score table."""

    def of_file(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        return _faults_of_file(chunk, contract, rows)

    def of_values(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
        return implausible(rows, contract)

    return Checks(of_file, of_values, counts_of)


def _faults_of_file(chunk: Chunk, contract: Contract, rows: pa.Table) -> Iterator[str]:
    yield from faults_of_metadata(chunk, rows, contract, TABLE_VERSION)
    fusion = metadata_of(rows).get("fusion")
    if not isinstance(fusion, dict) or fusion.get("digest") != contract.fusion:
        yield "its rewards were made with other fusion weights; remove it, and score it anew"
    schema, there = schema_of(contract), plain(rows.schema)
    if not there.equals(schema):
        other = {*zip(schema.names, schema.types, strict=True)} ^ {*zip(there.names, there.types, strict=True)}
        names = ", ".join(sorted({name for name, _ in other})) or "their order"
        yield f"its columns are not those of this table ({names}); remove its file, and score it anew"
