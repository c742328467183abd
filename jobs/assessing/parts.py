"""Flags about parts of images -> what is asked about them, checked; what the plan, the actors and people get of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqa_core.assessor.viewed import require_views
from iqa_core.corpus.plan.plan import Plan
from iqa_core.grounding.calibration import Calibration
from iqa_core.grounding.locating import names_asked
from iqa_core.grounding.user_boxes import BoxTable, UserBoxes, read_boxes
from iqa_core.storage.uris import absolute, join, scratch_of
from iqa_core.tables.regions.calibrating import calibration_of
from iqa_core.tables.regions.columns import Status
from iqa_core.tables.regions.summary import GroundingSummary
from jobs.assessing.grounding import Grounding
from jobs.assessing.job import Foundation


@dataclass(frozen=True, slots=True)
class PartsAsked:
    """Which dimensions are asked about which parts of each image."""

    dimensions: tuple[str, ...]
    """In the rubric's order."""
    grid: str
    """Cells, as the flag names them."""
    boxes: UserBoxes | None
    boxes_given: Path | None
    """The user's file of them."""
    calibration: Calibration | None
    calibrated_on: str | None
    """The output that it was made of, as the flag names it."""

    @property
    def cells(self) -> int:
        """Along a side."""
        return int(self.grid[0])

    @property
    def num_boxes(self) -> int | None:
        """Boxes that the user brought; None where there was no file of them."""
        return None if self.boxes is None else len(self.boxes.rows)

    @property
    def asked(self) -> dict[str, str]:
        """What local scores depend on beside the assessor: names and values of two settings at most."""
        found = {"grounding": f"{self.grid} cells, {', '.join(self.dimensions)}"}
        if self.calibration is not None:
            found["calibration"] = self.calibration.digest[:16]
        return found

    @property
    def terms(self) -> dict[str, Any]:
        """What a contract says of it, so that a run that goes on needs no other output of the calibration."""
        found: dict[str, Any] = {"cells": self.cells}
        if self.boxes is not None:
            found["boxes"] = self.boxes.digest
        if self.calibration is not None and self.calibrated_on is not None:
            found |= {"calibrated_on": absolute(self.calibrated_on), "calibration": self.calibration.to_json()}
        return found

    def question(self, plan: Plan, dry_run: bool) -> Grounding:
        """What the actors ask. dry_run: nothing lies beside the plan."""
        boxes: UserBoxes | BoxTable | None = self.boxes
        if boxes is not None and not dry_run:
            boxes = BoxTable(plan.storage, self._boxes_uri(plan))
        return Grounding(self.dimensions, self.cells, boxes, self.calibration)

    def provide(self, plan: Plan) -> None:
        """Put the user's boxes beside the plan, under a name of their own: readers find them there."""
        if self.boxes is not None and plan.storage.stat(self._boxes_uri(plan)) is None:
            plan.storage.put(self._boxes_uri(plan), self.boxes.to_parquet(), scratch=scratch_of(plan.output))

    def introduction(self) -> Iterator[tuple[str, str]]:
        """Label and text of what a run says of it first."""
        yield "asked", f"{', '.join(self.dimensions)}, in {self.grid} cells"
        if self.boxes is not None:
            yield "boxes", f"{len(self.boxes.rows):,} of {self.boxes_given}"
        if self.calibration is not None:
            yield "against", f"cells of {self.calibrated_on}"

    def lines(self, table: GroundingSummary) -> list[str]:
        """What a run says of it last: images by status, and boxes."""
        width = max([14, *(len(name) + 1 for name in self.dimensions)])
        statuses = [status for status in Status if any(counts[status] for counts in table.statuses.values())]
        found = [f"{'':<{width}}{''.join(f'{status:>11}' for status in statuses)}"]
        found += [
            f"{name:<{width}}{''.join(f'{counts[status]:>11,}' for status in statuses)}"
            for name, counts in table.statuses.items()
        ]
        if self.num_boxes is not None:
            found += [
                "",
                f"boxes      {table.boxes:>10,}",
                f"  no scores          {table.boxes_failed:>5,}",
                f"  of no image        {self.num_boxes - table.boxes:>5,}",
            ]
        return found

    def record(self) -> dict[str, Any]:
        """What run.json says of it beside counts."""
        given = {} if self.num_boxes is None else {"boxes_given": self.num_boxes}
        return {"grid": self.grid, **given}

    def _boxes_uri(self, plan: Plan) -> str:
        assert self.boxes is not None
        return join(plan.folder, f"boxes-{self.boxes.digest}.parquet")


def parts_asked(
    base: Foundation,
    dimensions: Sequence[str],
    flag: str,
    grid: str,
    boxes: Path | None,
    calibration: str | None,
) -> PartsAsked:
    """What flags say of parts of images.

    dimensions: none takes those that the rubric marks as local; flag: that names them.
    Raises CallerError where the assessor has no views, and for flags that it or a file does not fit.
    """
    require_views(base.spec, base.settings.assessor.checkpoint)
    names = names_asked(base.spec.rubric, dimensions or None, flag)
    found = None if calibration is None else _calibration(base, calibration, names, int(grid[0]))
    return PartsAsked(names, grid, None if boxes is None else read_boxes(boxes), boxes, found, calibration)


def _calibration(base: Foundation, given: str, dimensions: tuple[str, ...], cells: int) -> Calibration:
    """How cells score in that output; as the plan has it, once it was laid down with the same one."""
    planned = Plan(base.storage, base.output).contract()
    known: Mapping[str, Any] = {} if planned is None else planned.grounding
    if known.get("calibrated_on") == absolute(given):
        return Calibration.from_json(known["calibration"])
    return calibration_of(base.storage, given, base.spec.fingerprint_parts, dimensions, cells)
