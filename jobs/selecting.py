"""Settings -> decisions, counts and exports: the flow of the selection job."""

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

from iqa_core.corpus.engine import engine
from iqa_core.corpus.table import VERDICT
from iqa_core.errors import DONE, RunError
from iqa_core.report.gathered import group_columns
from iqa_core.report.selection_report import CARRIED, selection_report
from iqa_core.selection.decisions import Weighting, decided, decision_schema, weighting
from iqa_core.selection.rows import make_view
from iqa_core.selection.rules import Survivors, apply_rules, rules_of
from iqa_core.selection.selection import Tally
from jobs.cluster_session import connected_on_demand, require_answer
from jobs.exporting import export
from jobs.progress import counted
from jobs.reporting import written
from jobs.select_job import SelectJob, prepare
from jobs.select_settings import SelectSettings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def select(settings: SelectSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    job = prepare(settings)
    if set(settings.export) - {"list"}:
        require_answer(settings.ray_address)  # before decisions are written
    print(_opening(job), flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iqa-scores-") as scratch, opened(job, Path(scratch)) as decided_rows:
        if settings.dry_run:
            tally = Tally()
            for block in decided_rows.blocks():
                tally.add(block)
            print(closing(tally.to_json()), flush=True)
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
    job: SelectJob, format: str, rows: DecidedRows, record: dict[str, Any], connect: Callable[[], None]
) -> int:
    settings = job.settings
    return export(
        job.export_work(format),
        rows.kept,
        rows.kept_schema,
        record,
        connect,
        settings.stall_timeout_s,
    )


def _report(job: SelectJob, rows: DecidedRows, record: dict[str, Any]) -> bytes:
    table = job.rows.given[0].table
    names = job.rows.score_names
    groups = [name for name in group_columns(table.contract.carried) if name not in CARRIED]
    return selection_report(rows.blocks([*CARRIED, *groups]), names, groups, record, table)


@dataclass(frozen=True, slots=True)
class DecidedRows:
    """What was decided, held by the engine; it can be read as often as is wanted."""

    job: SelectJob
    connection: DuckDBPyConnection
    survivors: Sequence[Survivors]
    weights: Weighting

    def blocks(self, carried: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The decision table in blocks, with further columns of the score table behind it."""
        return decided(self.connection, self.survivors, self.weights, self.job.rows.score_names, carried)

    @property
    def kept_schema(self) -> pa.Schema:
        """Of `kept`: key, source, weight, scores, then all other columns of the score table but the verdict."""
        own = decision_schema(self.job.rows.score_names)
        fields = [field for field in own if field.name not in {"kept", "reason"}]
        known = {*own.names, *VERDICT.names}
        return pa.schema([*fields, *(field for field in self.job.rows.schema if field.name not in known)])

    def kept(self) -> Iterator[pa.Table]:
        """Rows of what is kept, in order."""
        schema = self.kept_schema
        carried = [name for name in schema.names if name not in decision_schema(self.job.rows.score_names).names]
        for block in self.blocks(carried):
            yield block.filter(block.column("kept")).select(schema.names).cast(schema)


@contextmanager
def opened(job: SelectJob, scratch: Path) -> Iterator[DecidedRows]:
    """An engine in which the policy's rules have run. Whatever it raises from here on is about the data: RunError."""
    import duckdb

    files = [given.table.local_files(scratch / f"table{index}") for index, given in enumerate(job.rows.given)]
    folders = sorted({file.parent for paths in files for file in paths})
    try:
        with engine(folders, job.settings.memory_gib) as connection:
            make_view(connection, job.rows, files, job.condition, job.policy.fusion)
            survivors = list(apply_rules(connection, rules_of(job.policy)))
            yield DecidedRows(job, connection, survivors, weighting(connection, survivors, job.policy.temperature))
    except duckdb.Error as error:
        message = str(error).split("\n\n")[0].replace("\n", " ")
        raise RunError(f"the engine stopped: {message}") from error


def _about(job: SelectJob) -> dict[str, Any]:
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
        "dimensions": list(job.rows.dimensions),
    }


def _opening(job: SelectJob) -> str:
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
