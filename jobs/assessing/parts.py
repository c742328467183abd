"""Flags about parts of images -> what is asked about them, checked; what the plan, the actors and people get of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from iqa_core.assessor.load import fingerprint
from iqa_core.assessor.viewed import require_views
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Plan
from iqa_core.corpus.sources import Kind
from iqa_core.errors import CallerError
from iqa_core.grounding.calibration import Calibration
from iqa_core.grounding.locating import names_asked
from iqa_core.grounding.user_boxes import BoxTable, UserBoxes, read_boxes
from iqa_core.grounding.verdict import Verdict, read_verdicts
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
    verdicts: Mapping[str, Verdict]
    """By dimension, of a self-test; none where none was given."""
    keep_at_chance: bool
    """Whether places are claimed in dimensions that are at chance."""

    @property
    def cells(self) -> int:
        """Along a side."""
        return int(self.grid[0])

    @property
    def num_boxes(self) -> int | None:
        """Boxes that the user brought; None where there was no file of them."""
        return None if self.boxes is None else len(self.boxes.rows)

    @property
    def at_chance(self) -> frozenset[str]:
        """Dimensions in which no place is claimed."""
        kept = self.keep_at_chance
        return frozenset(name for name, one in self.verdicts.items() if not (one.is_above_chance or kept))

    @property
    def asked(self) -> dict[str, str]:
        """What the tables depend on beside the assessor: setting -> value, of those that are used."""
        found = {"grounding": f"{self.grid} cells, {', '.join(self.dimensions)}"}
        if self.calibration is not None:
            found["calibration"] = self.calibration.digest[:16]
        if self.at_chance:
            found["at chance"] = ", ".join(sorted(self.at_chance))
        return found

    @property
    def terms(self) -> dict[str, Any]:
        """What a contract says of it, so that a run that goes on needs no other output of the calibration."""
        found: dict[str, Any] = {"cells": self.cells}
        if self.boxes is not None:
            found["boxes"] = self.boxes.digest
        if self.calibration is not None and self.calibrated_on is not None:
            found |= {"calibrated_on": absolute(self.calibrated_on), "calibration": self.calibration.to_json()}
        if self.verdicts:
            found["self_test"] = {name: verdict.to_json() for name, verdict in self.verdicts.items()}
        return found

    def question(self, plan: Plan, dry_run: bool) -> Grounding:
        """What the actors ask. dry_run: nothing lies beside the plan."""
        boxes: UserBoxes | BoxTable | None = self.boxes
        if boxes is not None and not dry_run:
            boxes = BoxTable(plan.storage, self._boxes_uri(plan))
        most = 0 if self.boxes is None else self.boxes.most[1]
        return Grounding(self.dimensions, self.cells, boxes, self.calibration, self.at_chance, most)

    def provide(self, plan: Plan) -> None:
        """Put the user's boxes beside the plan, under a name of their own: readers find them there."""
        if self.boxes is not None and plan.storage.stat(self._boxes_uri(plan)) is None:
            plan.storage.put(self._boxes_uri(plan), self.boxes.to_parquet(), scratch=scratch_of(plan.output))

    def introduction(self, chunks: Iterable[Chunk]) -> Iterator[tuple[str, str]]:
        """Label and text of what a run says of it first. chunks: that the run is about."""
        yield "asked", f"{', '.join(self.dimensions)}, in {self.grid} cells"
        if self.boxes is not None:
            yield "boxes", f"{len(self.boxes.rows):,} of {self.boxes_given}"
            if astray := _astray(self.boxes, chunks):
                yield "", f"{len(astray):,} of them in files that are not in this run's input, such as {astray[0]}"
        if self.calibration is not None:
            yield "against", f"cells of {self.calibrated_on}"
        for name, verdict in self.verdicts.items():
            yield "self-test", f"{name} {verdict}{'; no place is claimed' * (name in self.at_chance)}"

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
        return {"grid": self.grid, **given, **self.self_test}

    @property
    def self_test(self) -> dict[str, Any]:
        """What run.json and each chunk's file say of it; nothing where none was given."""
        return {"self_test": self.terms["self_test"]} if self.verdicts else {}

    def _boxes_uri(self, plan: Plan) -> str:
        assert self.boxes is not None
        return join(plan.folder, f"boxes-{self.boxes.digest}.parquet")


class PartsSettings(Protocol):
    """Flags that all jobs with parts of images have, in one name."""

    boxes: Path | None
    calibration: str | None
    self_test: Path | None
    keep_at_chance: bool


def parts_asked(
    base: Foundation, settings: PartsSettings, dimensions: Sequence[str], flag: str, grid: str
) -> PartsAsked:
    """What flags say of parts of images.

    dimensions: none takes those that the rubric marks as local; flag: that names them.
    Raises CallerError where the assessor has no views, and for flags that it or a file does not fit.
    """
    require_views(base.spec, base.settings.assessor.checkpoint)
    names = names_asked(base.spec.rubric, dimensions or None, flag)
    cells = int(grid[0])
    verdicts = {}
    if settings.self_test is not None:
        verdicts = read_verdicts(settings.self_test, fingerprint(base.spec.fingerprint_parts), names, cells)
    elif settings.keep_at_chance:
        raise CallerError("--keep-at-chance belongs to --self-test")
    given = settings.calibration
    return PartsAsked(
        dimensions=names,
        grid=grid,
        boxes=None if settings.boxes is None else read_boxes(settings.boxes),
        boxes_given=settings.boxes,
        calibration=None if given is None else _calibration(base, given, names, cells),
        calibrated_on=given,
        verdicts=verdicts,
        keep_at_chance=settings.keep_at_chance,
    )


def _astray(boxes: UserBoxes, chunks: Iterable[Chunk]) -> list[str]:
    """The sources of those boxes whose source is none of the chunks'; none where rows of an input name the files."""
    sources = {source for source, *_ in boxes.rows}
    for chunk in chunks:
        if chunk.kind not in (Kind.IMAGE, Kind.WEBDATASET):
            return []
        sources.difference_update(span.source for span in chunk.spans)
    return [source for source, *_ in boxes.rows if source in sources]


def _calibration(base: Foundation, given: str, dimensions: tuple[str, ...], cells: int) -> Calibration:
    """How cells score in that output; as the plan has it, once it was laid down with the same one."""
    planned = Plan(base.storage, base.output).contract()
    known: Mapping[str, Any] = {} if planned is None else planned.grounding
    if known.get("calibrated_on") == absolute(given):
        return Calibration.from_json(known["calibration"])
    return calibration_of(base.storage, given, base.spec.fingerprint_parts, dimensions, cells)
