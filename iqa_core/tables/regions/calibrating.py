"""An output of the grounding job -> how each cell scores over its images: the calibration of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.differences import differences
from iqa_core.errors import CallerError
from iqa_core.grounding.calibration import MIN_IMAGES, Calibration
from iqa_core.storage.storage import Storage
from iqa_core.tables.regions.ledger import open_grounding
from iqa_core.tables.regions.nesting import GROUNDING

OWN_PARTS = frozenset({"grounding", "calibration"})
"""Parts of a grounding output's fingerprint that its scores do not depend on."""


def calibration_of(
    storage: Storage, output: str, parts: Mapping[str, str], dimensions: Sequence[str], cells: int
) -> Calibration:
    """Mean and standard deviation of each cell over the images of an output.

    parts: of the fingerprint of the assessor that will be compared. Raises CallerError where the output has fewer than
    MIN_IMAGES images, other cells or dimensions, or was made by another assessor.
    """
    contract, table = open_grounding(storage, output, "--calibration")
    there = {name: value for name, value in contract.fingerprint_parts.items() if name not in OWN_PARTS}
    if found := differences(there, parts, ("there", "now")):
        raise CallerError(
            f"--calibration {output} was made in another way ({'; '.join(found)}); calibrate with this one"
        )
    if lacking := [name for name in dimensions if name not in contract.grounded]:
        raise CallerError(f"--calibration {output}: it was not asked about {', '.join(lacking)}")
    if contract.grounding["cells"] != cells:
        side = contract.grounding["cells"]
        raise CallerError(f"--calibration {output}: it has {side}x{side} cells; run it with the same --grid")
    moments = {name: _Moments(cells * cells) for name in dimensions}
    for _, rows in table.read_all(sorted(table.finished()), [GROUNDING]):
        said = pc.list_flatten(rows.column(GROUNDING))
        scored = said.filter(pc.is_valid(pc.struct_field(said, "cell_scores")))
        names = np.array(pc.struct_field(scored, "dimension").to_pylist(), object)
        scores = pc.list_flatten(pc.struct_field(scored, "cell_scores")).to_numpy().reshape(len(names), -1)
        for name in dimensions:
            moments[name].add(scores[names == name].astype(np.float64))
    if (least := min(own.count for own in moments.values())) < MIN_IMAGES:
        raise CallerError(f"--calibration {output}: {least} of its images have cells; a calibration takes {MIN_IMAGES}")
    grid = (cells, cells)
    return Calibration(
        {name: own.means.reshape(grid) for name, own in moments.items()},
        {name: own.stds.reshape(grid) for name, own in moments.items()},
    )


class _Moments:
    """Means and standard deviations of columns, added up block by block."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sums, self._squares = np.zeros(width), np.zeros(width)
        self._first: NDArray[np.float64] | None = None
        """Is subtracted from each row: so a column of equal values has a standard deviation of exactly 0."""

    def add(self, rows: NDArray[np.float64]) -> None:
        """Count rows, (N, width)."""
        if not len(rows):
            return
        if self._first is None:
            self._first = rows[0]
        self.count += len(rows)
        self._sums += (rows - self._first).sum(axis=0)
        self._squares += ((rows - self._first) ** 2).sum(axis=0)

    @property
    def means(self) -> NDArray[np.float64]:
        """Of each column."""
        assert self._first is not None, "nothing was added"
        return self._first + self._sums / self.count

    @property
    def stds(self) -> NDArray[np.float64]:
        """Of each column, unbiased."""
        squares = self._squares - self._sums**2 / self.count
        found: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0) / (self.count - 1))
        return found
