"""Settings -> everything a grounding run consists of, checked before the input is read or anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from iqa_core.assessor.load import fingerprint
from iqa_core.assessor.viewed import require_views
from iqa_core.corpus.chunks import LOCATION
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.proposal import checked_contract
from iqa_core.fusion import FusionWeights
from iqa_core.grounding.calibration import Calibration
from iqa_core.grounding.locating import names_asked
from iqa_core.grounding.user_boxes import BoxTable, UserBoxes, read_boxes
from iqa_core.questions import own_scales
from iqa_core.rubrics.load import rubric_named
from iqa_core.storage.uris import absolute, join, scratch_of
from iqa_core.tables.heartbeats import GROUNDING
from iqa_core.tables.regions.calibrating import calibration_of
from iqa_core.tables.regions.columns import REGIONS_VERSION
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.regions.nesting import NESTED
from iqa_core.tables.regions.summary import GroundingSummary
from jobs.assessing.job import AssessingJob, Foundation, foundation, require_no_rows
from jobs.assessing.outcome import RunOutcome
from jobs.grounding.outcome import publish
from jobs.grounding.settings import GroundSettings
from jobs.grounding.work import Grounding


@dataclass(frozen=True, slots=True)
class GroundingJob(AssessingJob):
    """What does not change during a run."""

    settings: GroundSettings
    dimensions: tuple[str, ...]
    """Those that are asked about, in the rubric's order."""
    boxes: UserBoxes | None
    calibration: Calibration | None

    name: ClassVar[str] = GROUNDING
    doing: ClassVar[str] = "grounding"

    @property
    def ledger(self) -> GroundingLedger:
        """The tables of the output, all of this job's fingerprint."""
        return self.table(self.wanted)

    @property
    def num_boxes(self) -> int | None:
        """Boxes that the user brought; None where there was no file of them."""
        return None if self.boxes is None else len(self.boxes.rows)

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
        return GroundingSummary(self.dimensions, self.boxes is not None)

    def asking(self, contract: Contract) -> Grounding:
        """See `AssessingJob.asking`."""
        boxes: UserBoxes | BoxTable | None = self.boxes
        if boxes is not None and not self.settings.dry_run:  # which puts none beside the plan
            boxes = BoxTable(self.storage, self._boxes_uri)
        return Grounding(self.dimensions, side_of(self.settings), boxes, self.calibration)

    def about_chunks(self) -> Mapping[str, Any]:
        """See `AssessingJob.about_chunks`."""
        return {"table_version": REGIONS_VERSION}

    def provide(self) -> None:
        """Put the user's boxes beside the plan, under a name of their own: readers find them there."""
        if self.boxes is not None and self.storage.stat(self._boxes_uri) is None:
            self.storage.put(self._boxes_uri, self.boxes.to_parquet(), scratch=scratch_of(self.output))

    def publish(self, outcome: RunOutcome[GroundingSummary]) -> int:
        """See `AssessingJob.publish`."""
        return publish(self, outcome)

    def introduction(self) -> Iterator[tuple[str, str]]:
        """See `AssessingJob.introduction`."""
        yield from super(GroundingJob, self).introduction()
        yield "asked", f"{', '.join(self.dimensions)}, in {self.settings.grid} cells"
        if self.boxes is not None:
            yield "boxes", f"{len(self.boxes.rows):,} of {self.settings.boxes}"
        if self.calibration is not None:
            yield "against", f"cells of {self.settings.calibration}"

    @property
    def _boxes_uri(self) -> str:
        assert self.boxes is not None
        return join(self.plan.folder, f"boxes-{self.boxes.digest}.parquet")


def own_columns() -> frozenset[str]:
    """Names that a slot's column cannot have; no other input column gets into the tables."""
    return frozenset(LOCATION.names)


def side_of(settings: GroundSettings) -> int:
    """Cells along a side."""
    return int(settings.grid[0])


def checked(settings: GroundSettings) -> GroundingJob:
    """The job, with all checked that can be without reading the input. Raises CallerError."""
    base = foundation(settings)
    rubric = base.spec.rubric
    require_views(base.spec, settings.assessor.checkpoint)
    dimensions = names_asked(rubric, settings.dimensions or None, "--dimensions")
    scales = {name: scale for name, scale in own_scales(rubric.columns).items() if name in dimensions}
    boxes = None if settings.boxes is None else read_boxes(settings.boxes)
    calibration = _calibration(base, settings, dimensions)
    parts = {
        **base.spec.fingerprint_parts,
        "grounding": f"{settings.grid} cells, {', '.join(dimensions)}",
        **({} if calibration is None else {"calibration": calibration.digest[:16]}),
    }
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
        grounding={
            "cells": side_of(settings),
            **({} if boxes is None else {"boxes": boxes.digest}),
            **({} if calibration is None else _said(calibration, settings)),
        },
    )
    job = GroundingJob(**base.parts(), wanted=contract, dimensions=dimensions, boxes=boxes, calibration=calibration)
    if checked_contract(job.plan, job.wanted) is None:
        require_no_rows(job)
    return job


def _said(calibration: Calibration, settings: GroundSettings) -> Mapping[str, Any]:
    """What the contract says of a calibration, so that a run that goes on needs the other output no more."""
    assert settings.calibration is not None
    return {"calibrated_on": absolute(settings.calibration), "calibration": calibration.to_json()}


def _calibration(base: Foundation, settings: GroundSettings, dimensions: tuple[str, ...]) -> Calibration | None:
    """How cells score in the output of --calibration; as the plan has it, once it was laid down with the same one."""
    if settings.calibration is None:
        return None
    planned = Plan(base.storage, base.output).contract()
    if planned is not None and planned.grounding.get("calibrated_on") == absolute(settings.calibration):
        return Calibration.from_json(planned.grounding["calibration"])
    parts = base.spec.fingerprint_parts
    return calibration_of(base.storage, settings.calibration, parts, dimensions, side_of(settings))
