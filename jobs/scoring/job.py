"""Settings -> everything a scoring run consists of, checked before the input is read or anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa

from iqa_core.assessor.load import fingerprint
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import checked_contract
from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights, load_fusion
from iqa_core.questions import own_scales
from iqa_core.rubrics import AnyRubric, WrittenRubric
from iqa_core.rubrics.load import rubric_named
from iqa_core.tables.heartbeats import SCORING
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import TABLE_VERSION, groups_of, own_columns, schema_of, table_schema
from iqa_core.tables.scores.summary import Summary
from iqa_core.written.columns import WrittenColumns
from jobs.assessing.job import AssessingJob, foundation, require_no_rows
from jobs.assessing.outcome import RunOutcome
from jobs.scoring.outcome import publish
from jobs.scoring.settings import ScoreSettings
from jobs.scoring.work import Scoring


@dataclass(frozen=True, slots=True)
class ScoringJob(AssessingJob):
    """What does not change during a run."""

    settings: ScoreSettings
    weights: FusionWeights

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
        return own_columns(self.dimensions, groups_of(self.wanted.scales), self.wanted.written)

    def table(self, contract: Contract) -> Ledger:
        """See `AssessingJob.table`."""
        return replace(self.ledger, schema=schema_of(contract))

    def schema(self, contract: Contract) -> pa.Schema:
        """See `AssessingJob.schema`."""
        groups = groups_of(contract.scales)
        return table_schema(self.dimensions, self.settings.probs, contract.carried, groups, contract.written)

    def summary(self, contract: Contract) -> Summary:
        """See `AssessingJob.summary`."""
        return Summary(self.dimensions, contract.scales, slots=contract.slots)

    def asking(self, contract: Contract) -> Scoring:
        """See `AssessingJob.asking`."""
        return Scoring(self.spec.rubric, self.weights, self.settings.probs, contract.written)

    def about_chunks(self) -> Mapping[str, Any]:
        """See `AssessingJob.about_chunks`."""
        fusion = {"source": self.weights.source, "digest": self.weights.digest}
        return {"table_version": TABLE_VERSION, "fusion": fusion}

    def publish(self, outcome: RunOutcome[Summary]) -> int:
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
        slots=base.slots(own_columns(dimensions, groups_of(scales), written)),
        written=written,
        tables=base.terms,
    )
    job = ScoringJob(**base.parts(), wanted=contract, weights=weights)
    if checked_contract(job.plan, job.wanted) is None:
        require_no_rows(job)
    return job


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
