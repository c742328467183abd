"""Settings -> everything a scoring run consists of, checked before the input is read or anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from iqa_core.assessor.load import fingerprint
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import checked_contract
from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights, load_fusion
from iqa_core.questions import own_scales
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.rubrics.load import rubric_named
from iqa_core.tables.heartbeats import SCORING
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.regions.beside_scores import PARTS, GroundedScores, GroundedSummary
from iqa_core.tables.regions.summary import GroundingSummary
from iqa_core.tables.scores.columns import TABLE_VERSION, groups_of, own_columns, schema_of, table_schema
from iqa_core.tables.scores.summary import Summary
from iqa_core.written.columns import WrittenColumns
from jobs.assessing.job import AssessingJob, Foundation, foundation, require_no_rows
from jobs.assessing.outcome import RunOutcome
from jobs.assessing.parts import PartsAsked, parts_asked
from jobs.scoring.outcome import publish
from jobs.scoring.settings import ScoreSettings
from jobs.scoring.work import GroundedScoring, Scoring


@dataclass(frozen=True, slots=True)
class ScoringJob(AssessingJob):
    """What does not change during a run."""

    settings: ScoreSettings
    weights: FusionWeights
    parts_asked: PartsAsked | None
    """What is asked about parts of images, under --ground."""

    name: ClassVar[str] = SCORING
    doing: ClassVar[str] = "scoring"

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
        """See `AssessingJob.own_columns`."""
        return own_columns(self.dimensions, groups_of(self.wanted.scales), self.wanted.written) | _own_parts(
            self.parts_asked
        )

    def table(self, contract: Contract) -> Ledger | GroundedScores:
        """See `AssessingJob.table`."""
        if contract.grounding:
            return GroundedScores.of(self.storage, self.output, contract)
        return replace(self.ledger, schema=schema_of(contract))

    def schema(self, contract: Contract) -> pa.Schema:
        """See `AssessingJob.schema`."""
        groups = groups_of(contract.scales)
        schema = table_schema(self.dimensions, self.settings.probs, contract.carried, groups, contract.written)
        return pa.schema([*schema, *PARTS]) if self.parts_asked else schema

    def summary(self, contract: Contract) -> Summary | GroundedSummary:
        """See `AssessingJob.summary`."""
        scores = Summary(self.dimensions, contract.scales, slots=contract.slots)
        if self.parts_asked is None:
            return scores
        has_boxes = self.parts_asked.boxes is not None
        return GroundedSummary(scores, GroundingSummary(self.parts_asked.dimensions, has_boxes))

    def asking(self, contract: Contract) -> Scoring | GroundedScoring:
        """See `AssessingJob.asking`."""
        scoring = Scoring(self.spec.rubric, self.weights, self.settings.probs, contract.written)
        if self.parts_asked is None:
            return scoring
        return GroundedScoring(scoring, self.parts_asked.question(self.plan, self.settings.dry_run))

    def provide(self) -> None:
        """See `AssessingJob.provide`."""
        if self.parts_asked is not None:
            self.parts_asked.provide(self.plan)

    def introduction(self, chunks: Iterable[Chunk]) -> Iterator[tuple[str, str]]:
        """See `AssessingJob.introduction`."""
        yield from super(ScoringJob, self).introduction(chunks)
        if self.parts_asked is not None:
            yield from self.parts_asked.introduction(chunks)

    def about_chunks(self) -> Mapping[str, Any]:
        """See `AssessingJob.about_chunks`."""
        fusion = {"source": self.weights.source, "digest": self.weights.digest}
        said = {} if self.parts_asked is None else self.parts_asked.self_test
        return {"table_version": TABLE_VERSION, "fusion": fusion, **said}

    def publish(self, outcome: RunOutcome[Summary | GroundedSummary]) -> int:
        """See `AssessingJob.publish`."""
        return publish(self, outcome)


def checked(settings: ScoreSettings) -> ScoringJob:
    """The job, with all checked that can be without reading the input. Raises CallerError."""
    base = foundation(settings)
    spec = base.spec
    written = _written_columns(spec.rubric, settings)
    dimensions = spec.rubric.names
    scales = own_scales(spec.rubric.columns)
    given = load_fusion(settings.fusion) if settings.fusion else FusionWeights.of_columns(spec.rubric.columns)
    weights = given.ordered_as(dimensions, scales)
    asked = _parts_asked(base, settings)
    contract = Contract(
        fingerprint=fingerprint(spec.fingerprint_parts),
        fingerprint_parts=dict(spec.fingerprint_parts),
        chunk_images=settings.chunk_images,
        probs=settings.probs,
        dimensions=dimensions,
        fusion=weights.digest,
        columns=base.columns,
        carried=pa.schema([]),
        rubric=rubric_named(spec.rubric.id, settings.rubric),
        scales=scales,
        slots=base.slots(own_columns(dimensions, groups_of(scales), written) | _own_parts(asked)),
        written=written,
        tables=base.terms,
        grounding={} if asked is None else _beside_scores(asked),
    )
    job = ScoringJob(**base.parts(), wanted=contract, weights=weights, parts_asked=asked)
    if checked_contract(job.plan, job.wanted) is None:
        require_no_rows(job)
    return job


def _parts_asked(base: Foundation, settings: ScoreSettings) -> PartsAsked | None:
    """What is asked about parts of images. Raises CallerError for flags that belong to --ground without it."""
    if settings.ground:
        return parts_asked(base, settings, settings.ground_dimensions, "--ground-dimensions", settings.grid or "2x2")
    for name in ("ground_dimensions", "grid", "boxes", "calibration", "self_test", "keep_at_chance"):
        if getattr(settings, name):
            raise CallerError(f"--{name.replace('_', '-')} belongs to --ground")
    return None


def _beside_scores(asked: PartsAsked) -> dict[str, Any]:
    """What the contract of a score table says of parts: the fingerprint is that of the scores, as without them."""
    return {**asked.terms, "dimensions": [*asked.dimensions], "asked": asked.asked}


def _own_parts(asked: PartsAsked | None) -> frozenset[str]:
    """Names of columns in transit that no carried column may have."""
    return frozenset() if asked is None else frozenset(part.name for part in PARTS)


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
