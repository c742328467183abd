"""What `locate` says of many images of a corpus -> how a cell scores in them, and how far a cell of one image is off.

The lower half of a room shows other things than the upper, and scores otherwise when it is seen alone. Against images
of the same corpus, good ones if there are, a cell is compared with its own kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from iqa_core.errors import CallerError
from iqa_core.grounding.locating import Located
from iqa_core.records import Rejection

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_IMAGES = 200
"""The mean of a cell is then known to 0.07 of its standard deviation."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of a grid's cells over a corpus."""

    means: Mapping[str, NDArray[np.float64]]
    """Dimension -> mean of each cell, (rows, columns)."""
    stds: Mapping[str, NDArray[np.float64]]
    """Dimension -> standard deviation of each cell, unbiased."""

    @classmethod
    def of(cls, results: Iterable[Mapping[str, Located] | Rejection]) -> Self:
        """The calibration by what `locate` returned for each image; rejections are left out.

        Raises CallerError on fewer than MIN_IMAGES images, and where their dimensions or grids differ.
        """
        found = [result for result in results if not isinstance(result, Rejection)]
        if len(found) < MIN_IMAGES:
            raise CallerError(f"{len(found)} images have cells; a calibration takes {MIN_IMAGES}")
        grids = {(name, one.cell_scores.shape) for result in found for name, one in result.items()}
        names = [name for name, _ in grids]
        if len({*names}) < len(names) or any(result.keys() != {*names} for result in found):
            raise CallerError("the images of a calibration are asked about the same dimensions, with as many cells")
        scores = {name: np.stack([result[name].cell_scores for result in found]).astype(np.float64) for name in names}
        return cls(
            {name: own.mean(axis=0) for name, own in scores.items()},
            {name: own.std(axis=0, ddof=1) for name, own in scores.items()},
        )

    def z(self, name: str, located: Located) -> NDArray[np.float64]:
        """By how many standard deviations each cell of an image scores above its mean, (rows, columns).

        It is of the dimension's own scores: where less is better, the cell with the greatest is the worst.
        NaN where a cell has one score in all images. Raises CallerError for another dimension or grid.
        """
        if name not in self.means or self.means[name].shape != located.cell_scores.shape:
            raise CallerError(f"the calibration has no {name} with {len(located.cell_scores)} cells along a side")
        stds = self.stds[name]
        return (located.cell_scores - self.means[name]) / np.where(stds > 0, stds, np.nan)

    @property
    def digest(self) -> str:
        """SHA-256 of all its numbers, hex."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Dimension -> means and standard deviations, rows from the top."""
        return {
            name: {"means": self.means[name].tolist(), "stds": self.stds[name].tolist()} for name in sorted(self.means)
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            {name: np.array(own["means"], np.float64) for name, own in content.items()},
            {name: np.array(own["stds"], np.float64) for name, own in content.items()},
        )
