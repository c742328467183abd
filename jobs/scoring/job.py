"""Settings -> everything a scoring run consists of, checked before the input is read or anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from iqa_core.addresses import SCORES as TABLE
from iqa_core.assessor.batching import batch_bounds
from iqa_core.assessor.load import describe, fingerprint, own_limits
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.corpus.batches import BatchBounds
from iqa_core.corpus.chunks import Chunk, ReadOptions
from iqa_core.corpus.columns import parse_carry
from iqa_core.corpus.overlaps import lies_in
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.proposal import checked_contract
from iqa_core.corpus.reading import ReadPlan
from iqa_core.corpus.slot_columns import bound
from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights, load_fusion
from iqa_core.questions import own_scales
from iqa_core.records import ImageLimits
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.rubrics.load import rubric_named
from iqa_core.selection.table_input import TableInput, open_table_input, parse_table_input
from iqa_core.slots import TextLimits, TooLong
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import TABLE_VERSION, groups_of, own_columns
from iqa_core.written.columns import WrittenColumns
from jobs.claims import SCORES, require_own
from jobs.scoring.settings import ScoreSettings
from jobs.scoring.work import Work

PUBLIC_OPTIONS = frozenset({"anon", "endpoint_url", "profile", "region_name"})
"""Storage options that may be shown; any other may be a secret."""


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """What does not change during a run."""

    settings: ScoreSettings
    output: str
    storage: Storage
    spec: AssessorSpec
    weights: FusionWeights
    limits: ImageLimits
    options: ReadOptions
    wanted: Contract
    """The contract that this run would lay down, its carried columns still empty."""
    inputs: tuple[str, ...]
    """What is listed of --input."""
    tables: tuple[TableInput, ...]
    """Score tables of --input."""

    @property
    def plan(self) -> Plan:
        """The plan of the output: which chunks it has, under which contract."""
        return Plan(self.storage, self.output)

    @property
    def ledger(self) -> Ledger:
        """The score files of the output, all of this job's fingerprint."""
        return Ledger(self.storage, self.output, fingerprint=self.wanted.fingerprint, table_version=TABLE_VERSION)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of what is scored, in the rubric's order."""
        return self.spec.rubric.names

    @property
    def own_columns(self) -> frozenset[str]:
        """Names of the table that it writes, which no input column may have."""
        return own_columns(self.dimensions, groups_of(self.wanted.scales), self.wanted.written)

    def work(self, contract: Contract, threads: int) -> Work:
        """What the processes of the cluster need."""
        return Work(
            spec=self.spec,
            config=self.settings.assessor.model_copy(update={"threads": threads}),
            read_plan=ReadPlan(
                self.storage,
                replace(self.options, reading=contract.reading),
                self.limits,
                contract.carried,
                self.own_columns,
                contract.slots,
                self.plan.folder,
            ),
            bounds=BatchBounds(*batch_bounds(self.settings.assessor, self.spec.rubric)),
            weights=self.weights,
            probs=self.settings.probs,
            decode_timeout_s=self.settings.decode_timeout_s,
            written=contract.written,
        )

    def introduction(self) -> Iterator[tuple[str, str]]:
        """Label and text of what a run says first: who scores, with which questions, and for which images."""
        for table in self.tables:
            yield "rows of", table.describe()
        yield "assessor", self.settings.assessor.checkpoint
        if self.spec.domain is not None:
            yield "knows", self.spec.domain
        yield "rubric", f"{self.spec.rubric.id}, fingerprint {self.wanted.fingerprint}"
        yield "meant for", self.spec.rubric.domain
        yield "system", self.spec.system.describe()
        if isinstance(self.spec.rubric, WrittenRubric):
            yield "decoding", self.spec.rubric.decoding.describe()
        if self.wanted.slots.columns:
            yield "slots", self.wanted.slots.describe()

    def shown_settings(self) -> dict[str, Any]:
        """The resolved configuration as JSON values, without what may be secret."""
        shown = self.settings.model_dump(mode="json")
        shown["storage_options"] = {
            name: value if name in PUBLIC_OPTIONS else "(not shown)"
            for name, value in self.settings.storage_options.items()
        }
        return shown


def considered_chunks(job: ScoringJob) -> Iterator[Chunk]:
    """Chunks of the plan that a run is about: all, or the first that hold --limit images."""
    return within_limit(job.plan.chunks(), job.settings.limit)


def within_limit(chunks: Iterable[Chunk], limit: int | None) -> Iterator[Chunk]:
    """Whole chunks up to at least `limit` images; one that nobody has counted is taken to hold a single image."""
    images = 0
    for chunk in chunks:
        if limit is not None and images >= limit:
            return
        images += 1 if chunk.images is None else chunk.images
        yield chunk


def checked(settings: ScoreSettings) -> ScoringJob:
    """The job, with all checked that can be without reading the input. Raises CallerError."""
    _check_flags(settings)
    output = absolute(settings.output)
    storage = Storage(settings.storage_options)
    planned = None if settings.scan else Plan(storage, output).contract()
    inputs, tables = _inputs(storage, settings, is_planned=planned is not None)
    _check_output(storage, output, [*inputs, *(table.table.uri for table in tables)])
    limits = _limits(settings)
    spec = describe(settings.assessor, settings.rubric, limits, settings.storage_options)
    written = _written_columns(spec.rubric, settings)
    dimensions = spec.rubric.names
    scales = own_scales(spec.rubric.columns)
    given = load_fusion(settings.fusion) if settings.fusion else FusionWeights.of_columns(spec.rubric.columns)
    weights = given.ordered_as(dimensions, scales)
    locating = _locating(settings, tables, planned)
    options = ReadOptions(
        chunk_images=settings.chunk_images,
        image_column=locating.get("image"),
        uri_column=locating.get("uri"),
        id_column=settings.id_column,
        carry=parse_carry(settings.carry),
    )
    columns = {"image": options.image_column, "uri": options.uri_column, "id": options.id_column, **options.carry}
    job = ScoringJob(
        settings=settings,
        output=output,
        storage=storage,
        spec=spec,
        weights=weights,
        limits=limits,
        options=options,
        wanted=Contract(
            fingerprint=fingerprint(spec.fingerprint_parts),
            fingerprint_parts=dict(spec.fingerprint_parts),
            chunk_images=settings.chunk_images,
            probs=settings.probs,
            dimensions=dimensions,
            fusion=weights.digest,
            columns={name: value for name, value in columns.items() if value is not None},
            carried=pa.schema([]),
            rubric=rubric_named(spec.rubric.id, settings.rubric),
            scales=scales,
            slots=bound(
                settings.slot,
                spec.rubric.slots,
                TextLimits(settings.slot_chars, TooLong(settings.slot_too_long)),
                own_columns(dimensions, groups_of(scales), written),
            ),
            written=written,
            tables=_planned_terms(settings, planned) if planned else {table.table.uri: table.terms for table in tables},
        ),
        inputs=inputs,
        tables=tables,
    )
    if checked_contract(job.plan, job.wanted) is None:
        _require_no_scores(job)
    return job


def _inputs(
    storage: Storage, settings: ScoreSettings, is_planned: bool
) -> tuple[tuple[str, ...], tuple[TableInput, ...]]:
    """What is listed, and the score tables. Raises CallerError for one that cannot be read, or is given twice.

    is_planned: the plan is gone by as it is, so no score table is opened: it may have been deleted since.
    """
    if is_planned:
        return tuple(given for given in settings.input if not given.startswith(TABLE)), ()
    inputs: list[str] = []
    tables: dict[str, TableInput] = {}
    for given in settings.input:
        table = open_table_input(storage, given, settings.on_changed != "ignore")
        if table is None:
            inputs.append(given)
        elif tables.setdefault(table.table.uri, table) is not table:
            raise CallerError(f"--input {given}: another --input names this score table; join the conditions by OR")
    return tuple(inputs), tuple(tables.values())


def _planned_terms(settings: ScoreSettings, planned: Contract) -> dict[str, Mapping[str, str]]:
    """What the plan says of score tables that are not opened, but for the conditions, which are those of --input."""
    found: dict[str, Mapping[str, str]] = {}
    for given in settings.input:
        if parsed := parse_table_input(given):
            place, where = absolute(parsed[0]), parsed[1]
            known = {name: value for name, value in planned.tables.get(place, {}).items() if name != "where"}
            found[place] = {**known, **({"where": where} if where else {})}
    return found


def _locating(settings: ScoreSettings, tables: Iterable[TableInput], planned: Contract | None) -> dict[str, str]:
    """Columns of images, as the flags name them, or as they were named where score tables that are inputs were made.

    planned: says it for score tables that are not opened.
    Raises CallerError where these differ: an output has one such column, by which exports find its images again.
    """
    flags = {"image": settings.image_column, "uri": settings.uri_column}
    given = {name: value for name, value in flags.items() if value is not None}
    if planned is not None and any(name.startswith(TABLE) for name in settings.input):
        return {**{name: value for name, value in planned.columns.items() if name in flags}, **given}
    found = given
    for index, table in enumerate(tables):
        own = {name: value for name, value in table.table.contract.columns.items() if name in flags}
        if own != found and (given or index):
            raise CallerError(
                f"--input {table.root}: it was scored with {_as_flags(own)}, and others of this run's inputs have "
                f"{_as_flags(found)}; score them into outputs of their own"
            )
        found = own
    return found


def _as_flags(columns: Mapping[str, str]) -> str:
    return " ".join(f"--{name}-column {value}" for name, value in columns.items()) or "no column of images named"


def _written_columns(rubric: AnyRubric, settings: ScoreSettings) -> WrittenColumns | None:
    """What is kept of written answers. Raises CallerError for a flag that is about the other kind of rubric."""
    if isinstance(rubric, WrittenRubric):
        if settings.probs:
            raise CallerError(
                f"--probs: rubric {rubric.id} is written, so there are no answers whose probabilities could be kept; "
                "leave it out, or keep the answers themselves by --all-samples"
            )
        return WrittenColumns(settings.all_samples)
    if settings.all_samples:
        raise CallerError(f"--all-samples: rubric {rubric.id} is not written, so there are no samples; leave it out")
    return None


def _require_no_scores(job: ScoringJob) -> None:
    """Raises CallerError for score files without a plan: nothing says of which images and by whom they were scored."""
    finished = job.ledger.finished()
    if finished and job.plan.contract() is None:  # asked again: another driver may have begun meanwhile
        raise CallerError(
            f"--output {job.output}: scores/ holds {len(finished)} chunks ({min(finished)}, …), but there is no "
            "plan/000000.json that says what they are of; put plan/ back, move scores/ away, or give another --output"
        )


def _check_flags(settings: ScoreSettings) -> None:
    """Raises CallerError for flags that do not go together."""
    if settings.estimate and not settings.dry_run:
        raise CallerError("--estimate belongs to --dry-run")
    if settings.strict_check and not settings.check:
        raise CallerError("--strict-check and --no-check exclude each other")
    if settings.price_per_hour is not None and not settings.estimate:
        raise CallerError("--price-per-hour belongs to --estimate")
    if settings.max_actors is not None and settings.max_actors < (settings.num_actors or 1):
        raise CallerError(
            f"--max-actors {settings.max_actors} is less than --num-actors {settings.num_actors}, which it begins with"
        )
    if settings.image_column is not None and settings.uri_column is not None:
        raise CallerError("--image-column and --uri-column exclude each other: an image is given in one way")


def _limits(settings: ScoreSettings) -> ImageLimits:
    """The checkpoint's own limits, but for those that were given."""
    given = {
        "min_side": settings.min_side,
        "max_pixels": settings.max_image_pixels,
        "max_bytes": settings.max_image_bytes,
    }
    own = own_limits(settings.assessor, settings.storage_options)
    return replace(own, **{name: value for name, value in given.items() if value is not None})


def _check_output(storage: Storage, output: str, inputs: list[str]) -> None:
    for given in inputs:
        if lies_in(output, absolute(given)):
            raise CallerError(f"--output {output} lies inside of --input {given}: its files would be taken for input")
    require_own(storage, output, SCORES)
