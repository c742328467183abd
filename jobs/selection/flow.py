"""Settings -> decisions, counts, report and exports."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqa_core.errors import DONE
from iqa_core.questions import scales_json
from iqa_core.report.gathered import group_columns
from iqa_core.report.selection_report import CARRIED, selection_report
from iqa_core.selection.carried import CarriedColumns
from iqa_core.selection.decisions import Weighting, decided, decision_schema, weighting
from iqa_core.selection.exports.samples import renamed
from iqa_core.selection.rows import POSITION, engine_faults, make_view
from iqa_core.selection.rules import Survivors, apply_rules, columns_of, rules_of
from iqa_core.selection.selection import DecisionCounts
from iqa_core.tables.duckdb_engine import engine
from iqa_core.tables.scores.columns import STATUS
from jobs.on_ray.cluster import connected_on_demand, require_answer
from jobs.progress import counted
from jobs.reporting import written
from jobs.selection.export_work import MARKED
from jobs.selection.exporting import export, export_list, export_regions
from jobs.selection.job import SelectionJob, checked
from jobs.selection.settings import SelectSettings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def select(settings: SelectSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    job = checked(settings)
    if set(settings.export) - {"list", *MARKED}:
        require_answer(settings.ray_address)  # before decisions are written
    print(_opening(job), flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iqa-scores-") as scratch, opened(job, Path(scratch)) as decided_rows:
        if settings.dry_run:
            counts = DecisionCounts()
            for block in decided_rows.blocks():
                counts.add(block)
            print(closing(counts.to_json()), flush=True)
            return DONE
        schema = decision_schema(job.rows.score_names)
        record = job.selection.write(decided_rows.blocks(), schema, job.policy, _about(job), job.settled)
        print(closing(record), flush=True)
        print(f"\ndecided    in {time.monotonic() - began:.1f} s")
        print(f"decisions  {job.selection.output}/decisions")
        print(f"policy     {job.selection.output}/selection.json", flush=True)
        if settings.report:
            written("selection", job.storage, job.selection.output, lambda: _report(job, decided_rows, record))
        with connected_on_demand(settings.ray_address, settings.code_on_nodes) as connect:
            codes = [_exported(job, format, decided_rows, record, connect) for format in settings.export]
        return max([DONE, *codes])


def _exported(
    job: SelectionJob, format: str, rows: DecidedRows, record: dict[str, Any], connect: Callable[[], None]
) -> int:
    settings, work = job.settings, job.export_work(format)
    if format == "list":
        return export_list(work, rows.kept, rows.kept_schema, record)
    if format in MARKED:
        assert job.rows.grounded is not None, "such an export is refused without"
        return export_regions(work, rows.kept, rows.kept_schema, record, job.rows.grounded)
    return export(
        work,
        rows.kept,
        rows.kept_schema,
        record,
        connect,
        settings.stall_timeout_s,
    )


def _report(job: SelectionJob, rows: DecidedRows, record: dict[str, Any]) -> bytes:
    table = job.rows.given[0].table
    names = job.rows.score_names
    groups = _group_names(job)
    return selection_report(rows.blocks([*CARRIED, *groups]), names, groups, record, table, job.rows.scales)


_DECIDED = frozenset(decision_schema(()).names)
"""Columns of every decision."""


@dataclass(frozen=True, slots=True)
class DecidedRows:
    """The decisions, held by the engine; they can be read any number of times."""

    job: SelectionJob
    connection: DuckDBPyConnection
    survivors: Sequence[Survivors]
    weights: Weighting
    files: Sequence[Sequence[Path]]
    """Local score files of each table."""

    def blocks(self, behind: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The decision table in blocks, with further columns of the view behind it."""
        names = {self.job.rows.engine_name(name): name for name in behind}
        return decided(self.connection, self.survivors, self.weights, self.job.rows.score_names, names)

    @property
    def kept_schema(self) -> pa.Schema:
        """Columns of `kept`: key, source, weight, scores, then all other columns of the score table but its status.

        A carried column that is called as one of the decisions is (`weight`) becomes `input_weight`.
        """
        own = [field for field in decision_schema(self.job.rows.score_names) if field.name not in {"kept", "reason"}]
        others = self._others
        names = renamed([field.name for field in others], lambda name: f"input_{name}" if name in _DECIDED else name)
        return pa.schema([*own, *(field.with_name(names[field.name]) for field in others)])

    @property
    def _others(self) -> list[pa.Field]:
        """Columns of the score table that stand behind those of the decisions."""
        rows = self.job.rows
        known = {*decision_schema(rows.score_names).names, *STATUS.names}
        return [field for field in rows.schema if field.name in rows.carried or field.name not in known]

    def kept(self) -> Iterator[pa.Table]:
        """Rows of what is kept, in order; carried columns as they lie in the score files."""
        rows, schema = self.job.rows, self.kept_schema
        own = schema.names[: len(schema) - len(self._others)]
        carried = CarriedColumns(self.files, pa.schema([kind for kind in self._others if kind.name in rows.carried]))
        behind = [kind.name for kind in self._others if kind.name not in rows.carried]
        for block in self.blocks([*behind, POSITION]):
            found = block.filter(block.column("kept"))
            beside = carried.at(found.column(POSITION).to_numpy())
            others = [(beside if kind.name in rows.carried else found).column(kind.name) for kind in self._others]
            yield pa.table([*(found.column(name) for name in own), *others], schema.names).cast(schema)


@contextmanager
def opened(job: SelectionJob, scratch: Path) -> Iterator[DecidedRows]:
    """Inside: an engine in which the policy's rules have run. Raises what `engine_faults` raises."""
    files = [given.table.local_files(scratch / f"table{index}") for index, given in enumerate(job.rows.given)]
    folders = sorted({file.parent for paths in files for file in paths})
    with engine(folders, job.settings.memory_gib) as connection, engine_faults(job.rows):
        make_view(connection, job.rows, files, job.condition, job.policy.fusion, _looked_at(job))
        survivors = list(apply_rules(connection, rules_of(job.policy, job.rows.engine_name)))
        weights = weighting(connection, survivors, job.policy.temperature)
        yield DecidedRows(job, connection, survivors, weights, files)


def _looked_at(job: SelectionJob) -> list[str]:
    """Columns that condition, rules and report need of the engine."""
    condition = job.condition.columns if job.condition else ()
    return [*condition, *columns_of(job.policy), *_group_names(job)]


def _group_names(job: SelectionJob) -> list[str]:
    """Carried columns that the report may group by, without those of old tables that are named like a decision's."""
    groups = group_columns(job.rows.given[0].table.contract.carried)
    return [name for name in groups if name not in CARRIED and name not in _DECIDED]


def _about(job: SelectionJob) -> dict[str, Any]:
    """What selection.json says of the scores."""
    return {
        "scores": [
            {
                "uri": given.table.uri,
                **({"name": given.name} if given.name else {}),
                "fingerprint": given.table.contract.fingerprint,
                "chunks": len(given.table.chunks),
                "planned_chunks": given.table.planned,
            }
            for given in job.rows.given
        ],
        **({} if job.rows.grounded is None else {"grounding": job.rows.grounded.about}),
        "dimensions": list(job.rows.dimensions),
        **({"scales": scales_json(job.rows.scales)} if job.rows.scales else {}),
    }


def _opening(job: SelectionJob) -> str:
    lines = []
    for given in job.rows.given:
        table = given.table
        lines.append(f"scores     {table.uri}, fingerprint {table.contract.fingerprint}")
        if len(table.chunks) < table.planned:
            lines.append(f"           only {len(table.chunks):,} of {counted(table.planned, 'chunk')} are scored yet")
    shown = {name: value for name, value in job.policy.to_json().items() if value and name != "order"}
    return "\n".join([*lines, f"policy     {job.policy.digest} {json.dumps(shown, ensure_ascii=False)}"])


def closing(counts: dict[str, Any]) -> str:
    """Counts as a table."""
    lines = ["", f"images     {counts['images']:>12,}", f"kept       {counts['kept']:>12,}"]
    if counts["kept"] and round(counts["effective_images"]) != counts["kept"]:
        lines.append(f"  as many as {counts['effective_images']:>10,.1f} of equal weight")
    lines.append(f"dropped    {counts['dropped']:>12,}")
    lines += [f"  {reason:<28} {count:>8,}" for reason, count in counts["dropped_by_reason"].items()]
    return "\n".join(lines)
