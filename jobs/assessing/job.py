"""Settings of a job that takes images through an assessor -> what such a run consists of, checked before it begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa

from iqa_core.addresses import SCORES as TABLE
from iqa_core.assessor.batching import batch_bounds
from iqa_core.assessor.load import describe, own_limits
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.corpus.batches import BatchBounds
from iqa_core.corpus.chunks import Chunk, ReadOptions
from iqa_core.corpus.columns import parse_carry
from iqa_core.corpus.overlaps import lies_in
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.reading import ReadPlan
from iqa_core.corpus.slot_columns import SlotColumns, bound
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits
from iqa_core.rubrics import WrittenRubric
from iqa_core.selection.table_input import TableInput, open_table_input, parse_table_input
from iqa_core.slots import TextLimits, TooLong
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.scores.summary import Distribution
from jobs.assessing.settings import AssessSettings
from jobs.assessing.work import Asking, Work
from jobs.claims import SCORES, require_own

if TYPE_CHECKING:
    from jobs.assessing.outcome import RunOutcome

PUBLIC_OPTIONS = frozenset({"anon", "endpoint_url", "profile", "region_name"})
"""Storage options that may be shown; any other may be a secret."""


class ImageTable(Protocol):
    """The table that a job fills chunk by chunk, one row per image in transit; see `Ledger`, which is one."""

    @property
    def folder(self) -> str:
        """Folder in the output whose files say which chunks are finished."""
        ...

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        ...

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Put a chunk in place."""
        ...

    def commit_again(
        self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any], generation: int, files: ScoreFiles
    ) -> None:
        """Put a chunk that was tried again in place."""
        ...

    def read(self, chunk: str, columns: list[str] | None = None, files: ScoreFiles | None = None) -> pa.Table:
        """Rows of a committed chunk, one per image, in ordinal order."""
        ...

    def read_all(
        self, chunks: Sequence[str], columns: list[str] | None = None, files: ScoreFiles | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Committed chunks in this order."""
        ...

    def settled(self, retired: Collection[str]) -> ScoreFiles:
        """The files that are there, after retired chunks and superfluous files were deleted."""
        ...

    def take_apart(self, chunks: Collection[str]) -> ScoreFiles:
        """The files after each of these chunks was given files of its own."""
        ...


class TableSummary(Protocol):
    """Counts of a table, added up chunk by chunk; see `Summary`, which is one."""

    @property
    def images(self) -> int:
        """Images that were counted."""
        ...

    @property
    def rejected(self) -> int:
        """Those of them that were rejected."""
        ...

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejection code -> images, most frequent first."""
        ...

    @property
    def damage(self) -> Sequence[str]:
        """Damaged sources."""
        ...

    @property
    def distributions(self) -> Mapping[str, Distribution]:
        """Of scores by name; that of `reward`, if there is one, is exported as a metric."""
        ...

    def columns(self) -> list[str]:
        """Columns that `add` needs."""
        ...

    def add(self, rows: pa.Table, damage: str | None, answers: Mapping[str, int] = ...) -> None:
        """Count a chunk's rows, one per image."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The table's part of run.json."""
        ...


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every such job has, whatever it asks."""

    settings: AssessSettings
    output: str
    storage: Storage
    spec: AssessorSpec
    limits: ImageLimits
    options: ReadOptions
    inputs: tuple[str, ...]
    """What is listed of --input."""
    tables: tuple[TableInput, ...]
    """Score tables of --input."""
    terms: Mapping[str, Mapping[str, str]]
    """What the contract says of these."""

    def parts(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(Foundation)}

    def slots(self, own: frozenset[str]) -> SlotColumns:
        """Columns whose texts fill the rubric's slots. own: names that the job's own columns have."""
        settings = self.settings
        limits = TextLimits(settings.slot_chars, TooLong(settings.slot_too_long))
        return bound(settings.slot, self.spec.rubric.slots, limits, own)

    @property
    def columns(self) -> dict[str, str]:
        """Flags that name input columns: meaning -> column."""
        options = self.options
        found = {"image": options.image_column, "uri": options.uri_column, "id": options.id_column, **options.carry}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class AssessingJob(Foundation, ABC):
    """What does not change during a run."""

    wanted: Contract
    """The contract that this run would lay down, its carried columns still empty."""

    name: ClassVar[str]
    """Of the job, in heartbeats."""
    doing: ClassVar[str]
    """What a heartbeat says that a run does between its beginning and its end."""

    @property
    def plan(self) -> Plan:
        """The plan of the output: which chunks it has, under which contract."""
        return Plan(self.storage, self.output)

    @property
    @abstractmethod
    def ledger(self) -> ImageTable:
        """The table of the output, all of this job's fingerprint."""

    @property
    @abstractmethod
    def own_columns(self) -> frozenset[str]:
        """Names of the table that it writes, which no input column may have."""

    @abstractmethod
    def table(self, contract: Contract) -> ImageTable:
        """The same, held against a contract that was laid down."""

    @abstractmethod
    def schema(self, contract: Contract) -> pa.Schema:
        """Columns of the rows in transit, one per image."""

    @abstractmethod
    def summary(self, contract: Contract) -> TableSummary:
        """Counts of nothing yet."""

    @abstractmethod
    def asking(self, contract: Contract) -> Asking:
        """What the actors ask."""

    @abstractmethod
    def about_chunks(self) -> Mapping[str, Any]:
        """What each committed chunk says of how it was made, beside the fingerprint."""

    def provide(self) -> None:
        """Put into the output what the actors need, before the plan names a chunk."""

    @abstractmethod
    def publish(self, outcome: RunOutcome[Any]) -> int:
        """Write and print what a run came to; the exit code."""

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
            decode_timeout_s=self.settings.decode_timeout_s,
            asking=self.asking(contract),
        )

    def introduction(self, chunks: Iterable[Chunk]) -> Iterator[tuple[str, str]]:
        """Label and text of what a run says first: who is asked, with which questions, and for which images.

        chunks: that the run is about.
        """
        for table in self.tables:
            yield "rows of", table.describe()
        assessor = self.settings.assessor
        yield "assessor", f"{self.spec.checkpoint} at {assessor.engine}" if assessor.is_served else assessor.checkpoint
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


def considered_chunks(job: AssessingJob) -> Iterator[Chunk]:
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


def foundation(settings: AssessSettings) -> Foundation:
    """What the job stands on, with all checked that can be without reading the input. Raises CallerError."""
    _check_flags(settings)
    output = absolute(settings.output)
    storage = Storage(settings.storage_options)
    planned = None if settings.scan else Plan(storage, output).contract()
    inputs, tables = _inputs(storage, settings, is_planned=planned is not None)
    _check_output(storage, output, [*inputs, *(table.table.uri for table in tables)])
    limits = _limits(settings)
    spec = describe(settings.assessor, settings.rubric, limits, settings.storage_options)
    locating = _locating(settings, tables, planned)
    options = ReadOptions(
        chunk_images=settings.chunk_images,
        image_column=locating.get("image"),
        uri_column=locating.get("uri"),
        id_column=settings.id_column,
        carry=parse_carry(settings.carry),
    )
    terms = _planned_terms(settings, planned) if planned else {table.table.uri: table.terms for table in tables}
    return Foundation(settings, output, storage, spec, limits, options, inputs, tables, terms)


def _inputs(
    storage: Storage, settings: AssessSettings, is_planned: bool
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


def _planned_terms(settings: AssessSettings, planned: Contract) -> dict[str, Mapping[str, str]]:
    """What the plan says of score tables that are not opened, but for the conditions, which are those of --input."""
    found: dict[str, Mapping[str, str]] = {}
    for given in settings.input:
        if parsed := parse_table_input(given):
            place, where = absolute(parsed[0]), parsed[1]
            known = {name: value for name, value in planned.tables.get(place, {}).items() if name != "where"}
            found[place] = {**known, **({"where": where} if where else {})}
    return found


def _locating(settings: AssessSettings, tables: Iterable[TableInput], planned: Contract | None) -> dict[str, str]:
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


def require_no_rows(job: AssessingJob) -> None:
    """Raises CallerError for a table without a plan: nothing says of which images it is, and who made it."""
    finished, folder = job.ledger.finished(), job.ledger.folder
    if finished and job.plan.contract() is None:  # asked again: another driver may have begun meanwhile
        raise CallerError(
            f"--output {job.output}: {folder}/ holds {len(finished)} chunks ({min(finished)}, …), but there is no "
            "plan/000000.json that says what they are of; put plan/ back, move {folder}/ away, or give another --output"
        )


def _check_flags(settings: AssessSettings) -> None:
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


def _limits(settings: AssessSettings) -> ImageLimits:
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
