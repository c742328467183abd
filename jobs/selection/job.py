"""Settings -> everything a selection consists of, checked, before a score is read or anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iqa_core.differences import differences
from iqa_core.errors import CallerError, RunError, listed
from iqa_core.fusion import load_fusion
from iqa_core.records import ImageLimits
from iqa_core.selection.condition import Condition, check_condition
from iqa_core.selection.decisions import decision_schema
from iqa_core.selection.exports.values import is_text
from iqa_core.selection.grounded import GroundedTable
from iqa_core.selection.policy import Policy, parse_per, parse_quantiles
from iqa_core.selection.rows import Combined, Given, combined
from iqa_core.selection.rules import check_columns
from iqa_core.selection.selection import Selection
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.scores.score_table import open_score_table
from jobs.claims import SELECTION, require_own
from jobs.selection.export_work import MARKED, WRITERS, ExportWork
from jobs.selection.settings import SelectSettings

FORMATS = (*WRITERS, "list", *MARKED)

MAX_BYTES = 2**32
"""Bytes of an original at most; it was scored, so it lay within the bound that was set then."""


@dataclass(frozen=True, slots=True)
class SelectionJob:
    """What does not change during a run."""

    storage: Storage
    settings: SelectSettings
    policy: Policy
    condition: Condition | None
    rows: Combined
    selection: Selection
    settled: Sequence[Mapping[str, Any]] | None
    """The decisions that an export was begun with, which may not change under it; None where none was begun."""

    def export_work(self, format: str) -> ExportWork:
        """What tasks need to know to export in this format."""
        contract = self.rows.given[0].table.contract
        return ExportWork(
            storage=self.storage,
            output=self.selection.output,
            format=format,
            options=contract.locating(),
            limits=ImageLimits(max_bytes=MAX_BYTES),
            caption=self.settings.caption_column,
            allow_missing=self.settings.allow_missing,
            shard_images=self.settings.shard_images,
        )


def checked(settings: SelectSettings) -> SelectionJob:
    """The job, with all checked that can be from the plans of the score tables. Raises CallerError."""
    policy = policy_of(settings)
    storage = Storage(settings.storage_options)
    output = absolute(settings.output)
    try:
        given = tuple(_given(storage, value, is_join=settings.combine == "join") for value in settings.scores)
        grounded = _grounded(storage, settings, given)
        selection = Selection(storage, output)
        before = selection.read()
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
    for item in given:
        if output == item.table.uri or output.startswith(item.table.uri + "/"):
            raise CallerError(f"--output {output} lies inside of --scores {item.table.uri}; give a folder of its own")
    if not settings.dry_run:
        require_own(storage, output, SELECTION)
    if policy.fusion is not None:
        policy = replace(policy, fusion=policy.fusion.within(given[0].table.contract.scales))
    rows = combined(given, settings.combine, policy.fusion, grounded)
    if policy.dedup and rows.slot_columns:
        policy = replace(policy, per={**policy.per, "dedup": tuple(rows.slot_columns)})
    condition = None if policy.where is None else check_condition(policy.where, rows.schema, rows.engine_name)
    check_columns(policy, rows.schema)
    if before is not None and before["policy_digest"] != policy.digest:
        shown = "".join(f"\n  {text}" for text in differences(before.get("policy", {}), policy.to_json()))
        raise CallerError(
            f"--output {output}: it holds a selection by another policy ({before['policy_digest']} there, "
            f"{policy.digest} now):{shown}\ngive another folder"
        )
    job = SelectionJob(storage, settings, policy, condition, rows, selection, None)
    _check_exports(job)
    if before is not None and _is_begun(job, before):
        return replace(job, settled=before["decisions"])
    return job


def _grounded(storage: Storage, settings: SelectSettings, given: Sequence[Given]) -> GroundedTable | None:
    """The tables of parts of images: those that are named, else those beside the scores where a flag asks for them.

    They are not read otherwise, for each of their images must be found by source, key and row.
    """
    if settings.grounding is not None:
        return GroundedTable.open(storage, settings.grounding)
    if len(given) > 1 or not given[0].table.contract.grounding:
        return None
    own = GroundedTable.open(storage, given[0].table.uri)
    flags = json.dumps(settings.model_dump(mode="json", exclude={"scores", "output"}))
    is_asked = not MARKED.keys().isdisjoint(settings.export) or any(name in flags for name in own.schema.names)
    return own if is_asked else None


def _check_exports(job: SelectionJob) -> None:
    settings = job.settings
    for format in settings.export:
        if format not in FORMATS:
            raise CallerError(f"--export {format}: there is no such format; there are {', '.join(FORMATS)}")
        if format in MARKED and job.rows.grounded is None:
            raise CallerError(f"--export {format}: of which regions? Give --grounding, the output of ground_corpus.py")
    if settings.export and settings.dry_run:
        raise CallerError("--export: a --dry-run writes nothing; leave one of them out")
    exported = {"caption_column", "shard_images", "allow_missing", "ray_address", "code_on_nodes", "stall_timeout_s"}
    for name in sorted(exported & settings.model_fields_set):
        if not settings.export:
            raise CallerError(f"--{name.replace('_', '-')} belongs to --export")
    column = settings.caption_column
    if column is not None:
        schema = job.rows.schema
        if column not in schema.names:
            raise CallerError(f"--caption-column {column}: no such column; there are {listed(schema.names)}")
        if column in decision_schema(()).names:
            raise CallerError(
                f"--caption-column {column}: the decisions have a column of that name; rename the input's"
            )
        if not is_text(schema.field(column).type):
            raise CallerError(f"--caption-column {column}: it is {schema.field(column).type}, not text")
    columns = [given.table.contract.columns for given in job.rows.given if not job.rows.is_join]
    images = {(mapping.get("image"), mapping.get("uri")) for mapping in columns}
    if settings.export and len(images) > 1:
        raise CallerError("--export: the tables were scored from differently named image columns; export each alone")


def _is_begun(job: SelectionJob, before: Mapping[str, Any]) -> bool:
    """Whether an export of the selection that is here was begun. Raises CallerError where it cannot go on."""
    is_begun = False
    chunks = [len(given.table.chunks) for given in job.rows.given]
    for format in FORMATS:
        work = job.export_work(format)
        begun = work.begun()
        if begun is None:
            continue
        is_begun = True
        differing = differences({name: begun[name] for name in work.terms}, work.terms)
        if format in job.settings.export and differing:
            flags = "; ".join(f"--{text.replace('_', '-', 1)}" for text in differing)
            raise CallerError(f"--output: its {format} export was begun otherwise ({flags}); give another folder")
        if [table["chunks"] for table in before["scores"]] != chunks:
            raise CallerError(
                f"--output: its {format} export was begun before more images were scored; give another folder"
            )
    return is_begun


def policy_of(settings: SelectSettings) -> Policy:
    """The rules that the flags make. Raises CallerError for one that lacks what it needs, or a flag without effect."""
    rules = [name for name in ("best_of", "top_fraction", "top_k") if getattr(settings, name) is not None]
    per = parse_per(settings.per, [*rules, *(["quantile"] if settings.quantile else [])])
    if settings.best_of is not None and not per.get("best_of"):
        raise CallerError(f"--best-of {settings.best_of}: of what? Name the column of the group with --per")
    if not settings.sampling_weights and "temperature" in settings.model_fields_set:
        raise CallerError("--temperature belongs to --sampling-weights")
    if settings.balance is None and "seed" in settings.model_fields_set:
        raise CallerError("--seed belongs to --balance: nothing else is drawn by chance")
    return Policy(
        where=settings.where,
        dedup=settings.dedup,
        quantiles=parse_quantiles(settings.quantile),
        best_of=settings.best_of,
        top_fraction=settings.top_fraction,
        top_k=settings.top_k,
        balance=settings.balance,
        per=per,
        seed=settings.seed,
        temperature=settings.temperature if settings.sampling_weights else None,
        fusion=None if settings.fusion is None else load_fusion(settings.fusion),
        combine=settings.combine,
    )


def _given(storage: Storage, value: str, is_join: bool) -> Given:
    """A table, and its name where tables are joined: `name=uri`."""
    head, separator, uri = value.partition("=")
    if is_join and separator and head.isidentifier():
        return Given(head, open_score_table(storage, uri))
    return Given("", open_score_table(storage, value))
