"""Prepared images -> scores of their parts: what is asked where images are bad, as rows with lists of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from iqa_core.assessor.protocol import Assessor
from iqa_core.corpus.batches import ReadyBatch
from iqa_core.corpus.chunks import LOCATION
from iqa_core.corpus.columns import storable
from iqa_core.grounding.batches import Grounded, Viewable, ground_each, passes_of
from iqa_core.grounding.boxes import UserBox
from iqa_core.grounding.calibration import Calibration
from iqa_core.grounding.locating import Located
from iqa_core.grounding.user_boxes import BoxTable, UserBoxes
from iqa_core.records import Rejection
from iqa_core.tables.regions.columns import grounded_row, region_rows
from iqa_core.tables.regions.nesting import GROUNDING, NESTED, REGIONS
from iqa_core.tables.scores.columns import REJECTED, SCORED


@dataclass(frozen=True, slots=True)
class Grounding:
    """Which parts of images are asked about; see `Asking`, which it implements."""

    dimensions: tuple[str, ...]
    """In the rubric's order."""
    cells: int
    """Along each side of an image."""
    boxes: BoxTable | UserBoxes | None
    calibration: Calibration | None
    at_chance: frozenset[str] = frozenset()
    """Dimensions whose worst cells mean nothing, as a self-test found: no place is claimed in them."""
    most_boxes: int = 0
    """Of one image."""

    @property
    def passes(self) -> int:
        """See `Asking.passes`."""
        return passes_of(self.cells, self.most_boxes)

    def results(self, assessor: Assessor, batch: ReadyBatch) -> list[Grounded | Rejection]:
        """See `Asking.results`."""
        return ground_each(assessor, self.asked_about(batch), self.dimensions, self.cells)

    def asked_about(self, batch: ReadyBatch) -> list[Viewable]:
        """The images of a batch that were prepared, with the user's boxes and their texts."""
        texts: Sequence[Mapping[str, str]] = batch.texts or [{}] * len(batch.images)
        there = [i for i, rejection in enumerate(batch.rejections) if rejection is None]
        boxes = self._boxes(batch)
        widths, heights = (batch.facts.column(side).to_pylist() for side in ("width", "height"))
        return [
            Viewable(pixels, widths[i], heights[i], [given.box for given in boxes[i]], own)
            for i, pixels, own in zip(there, batch.images, texts, strict=True)
        ]

    def rows(self, batch: ReadyBatch, results: Sequence[Grounded | Rejection]) -> pa.Table:
        """See `Asking.rows`: columns of NESTED."""
        waiting = iter(results)
        outcomes = [rejection or next(waiting) for rejection in batch.rejections]
        sizes = zip(*(batch.facts.column(side).to_pylist() for side in ("width", "height")), strict=True)
        whys = [outcome if isinstance(outcome, Rejection) else None for outcome in outcomes]
        said = [
            self._said(outcome, boxes, width, height)
            for outcome, boxes, (width, height) in zip(outcomes, self._boxes(batch), sizes, strict=True)
        ]
        columns: dict[str, Any] = {
            **{name: batch.facts.column(name) for name in LOCATION.names},
            "status": [SCORED if why is None else REJECTED for why in whys],
            "reason": [None if why is None else str(why.reason) for why in whys],
            "detail": storable([None if why is None else why.detail for why in whys], pa.string()),
            GROUNDING: pa.array([own for own, _ in said], NESTED.field(GROUNDING).type),
            REGIONS: pa.array([own for _, own in said], NESTED.field(REGIONS).type),
        }
        return pa.table({name: columns[name] for name in NESTED.names}, schema=NESTED)

    def answers(self, batch: ReadyBatch, results: Sequence[Grounded | Rejection]) -> tuple[Mapping[str, int], ...]:
        """None: only closed sets of answers have views."""
        return ()

    def _boxes(self, batch: ReadyBatch) -> Sequence[Sequence[UserBox]]:
        """The user's boxes of each image of a batch."""
        if self.boxes is None:
            return [()] * len(batch.ordinals)
        sources, keys = (batch.facts.column(name).to_pylist() for name in ("source", "key"))
        return self.boxes.of_images([*zip(sources, keys, strict=True)])

    def _said(
        self, found: Grounded | Rejection, boxes: Sequence[UserBox], width: int | None, height: int | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What is said of an image's parts, as values of the two lists."""
        grounding, regions = [], []
        for name in self.dimensions:
            own = found if isinstance(found, Rejection) else found.located[name]
            if isinstance(own, Located) and name in self.at_chance:
                own = replace(own, cell=None, box=None)
            results = [found] * len(boxes) if isinstance(found, Rejection) else found.regions
            z = None if self.calibration is None or isinstance(own, Rejection) else self.calibration.z(name, own)
            grounding.append(grounded_row(name, own, width, height, z))
            regions += region_rows(name, own, boxes, results)
        return grounding, regions
