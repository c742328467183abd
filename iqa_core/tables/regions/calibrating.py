"""An output of the grounding job -> how each cell scores over its images: the calibration of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

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
    if lacking := [name for name in dimensions if name not in contract.dimensions]:
        raise CallerError(f"--calibration {output}: it was not asked about {', '.join(lacking)}")
    if contract.grounding["cells"] != cells:
        side = contract.grounding["cells"]
        raise CallerError(f"--calibration {output}: it has {side}x{side} cells; run it with the same --grid")
    counts = dict.fromkeys(dimensions, 0)
    sums = {name: np.zeros(cells * cells) for name in dimensions}
    squares = {name: np.zeros(cells * cells) for name in dimensions}
    for _, rows in table.read_all(sorted(table.finished()), [GROUNDING]):
        said = pc.list_flatten(rows.column(GROUNDING))
        scored = said.filter(pc.is_valid(pc.struct_field(said, "cell_scores")))
        names = np.array(pc.struct_field(scored, "dimension").to_pylist(), object)
        scores = pc.list_flatten(pc.struct_field(scored, "cell_scores")).to_numpy().reshape(len(names), -1)
        for name in dimensions:
            own = scores[names == name].astype(np.float64)
            counts[name] += len(own)
            sums[name] += own.sum(axis=0)
            squares[name] += (own**2).sum(axis=0)
    if (least := min(counts.values())) < MIN_IMAGES:
        raise CallerError(f"--calibration {output}: {least} of its images have cells; a calibration takes {MIN_IMAGES}")
    grid = (cells, cells)
    means = {name: (sums[name] / counts[name]).reshape(grid) for name in dimensions}
    stds = {
        name: np.sqrt(
            np.maximum(squares[name] - counts[name] * means[name].ravel() ** 2, 0) / (counts[name] - 1)
        ).reshape(grid)
        for name in dimensions
    }
    return Calibration(means, stds)
