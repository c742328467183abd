"""Settings -> everything a grounding run consists of, checked before the input is read or anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from iqa_core.assessor.load import fingerprint
from iqa_core.corpus.chunks import LOCATION, Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import checked_contract
from iqa_core.fusion import FusionWeights
from iqa_core.questions import own_scales
from iqa_core.rubrics.load import rubric_named
from iqa_core.tables.heartbeats import GROUNDING
from iqa_core.tables.regions.columns import REGIONS_VERSION
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.regions.nesting import NESTED
from iqa_core.tables.regions.summary import GroundingSummary
from jobs.assessing.grounding import Grounding
from jobs.assessing.job import AssessingJob, foundation, require_no_rows
from jobs.assessing.outcome import RunOutcome
from jobs.assessing.parts import PartsAsked, parts_asked
from jobs.grounding.outcome import publish
from jobs.grounding.settings import GroundSettings


@dataclass(frozen=True, slots=True)
class GroundingJob(AssessingJob):
    """What does not change during a run."""

    settings: GroundSettings
    parts_asked: PartsAsked

    name: ClassVar[str] = GROUNDING
    doing: ClassVar[str] = "grounding"

    @property
    def ledger(self) -> GroundingLedger:
        """The tables of the output, all of this job's fingerprint."""
        return self.table(self.wanted)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those that are asked about, in the rubric's order."""
        return self.parts_asked.dimensions

    @property
    def own_columns(self) -> frozenset[str]:
        """See `AssessingJob.own_columns`."""
        return own_columns()

    def table(self, contract: Contract) -> GroundingLedger:
        """See `AssessingJob.table`."""
        return GroundingLedger.of(self.storage, self.output, contract)

    def schema(self, contract: Contract) -> pa.Schema:
        """See `AssessingJob.schema`: carried columns are not among them."""
        return NESTED

    def summary(self, contract: Contract) -> GroundingSummary:
        """See `AssessingJob.summary`."""
        return GroundingSummary(self.dimensions, self.parts_asked.boxes is not None)

    def asking(self, contract: Contract) -> Grounding:
        """See `AssessingJob.asking`."""
        return self.parts_asked.question(self.plan, self.settings.dry_run)

    def about_chunks(self) -> Mapping[str, Any]:
        """See `AssessingJob.about_chunks`."""
        return {"table_version": REGIONS_VERSION, **self.parts_asked.self_test}

    def provide(self) -> None:
        """See `AssessingJob.provide`."""
        self.parts_asked.provide(self.plan)

    def publish(self, outcome: RunOutcome[GroundingSummary]) -> int:
        """See `AssessingJob.publish`."""
        return publish(self, outcome)

    def introduction(self, chunks: Iterable[Chunk]) -> Iterator[tuple[str, str]]:
        """See `AssessingJob.introduction`."""
        yield from super(GroundingJob, self).introduction(chunks)
        yield from self.parts_asked.introduction(chunks)


def own_columns() -> frozenset[str]:
    """Names that a slot's column cannot have; no other input column gets into the tables."""
    return frozenset(LOCATION.names)


def checked(settings: GroundSettings) -> GroundingJob:
    """The job, with all checked that can be without reading the input. Raises CallerError."""
    base = foundation(settings)
    rubric = base.spec.rubric
    asked = parts_asked(base, settings, settings.dimensions, "--dimensions", settings.grid)
    dimensions = asked.dimensions
    scales = {name: scale for name, scale in own_scales(rubric.columns).items() if name in dimensions}
    parts = {**base.spec.fingerprint_parts, **asked.asked}
    contract = Contract(
        fingerprint=fingerprint(parts),
        fingerprint_parts=parts,
        chunk_images=settings.chunk_images,
        probs=False,
        dimensions=dimensions,
        fusion=FusionWeights.equal(dimensions).within(scales).digest,
        columns=base.columns,
        carried=pa.schema([]),
        rubric=rubric_named(rubric.id, settings.rubric),
        scales=scales,
        slots=base.slots(own_columns()),
        tables=base.terms,
        grounding=asked.terms,
    )
    job = GroundingJob(**base.parts(), wanted=contract, parts_asked=asked)
    if checked_contract(job.plan, job.wanted) is None:
        require_no_rows(job)
    return job
