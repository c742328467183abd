"""Images of a batch and their data sets -> which may be compared, and the mean of an image's comparisons.

Shape suffixes beside those of `arrays`: D data sets, M images that may all be compared, B of them in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.training.rewards.arrays import Floats, Ints, Opinions

Alignment = Literal["within", "standardised", "none"]
"""Which pairs count: those of one data set; all, by opinions in units of their data set's spread; all, as they are."""

BLOCK = 1 << 17
"""Comparisons at a time: 1 MiB of float64 each array, which stays in a core's cache."""
NORMAL_MAD = 1.4826
"""Standard deviation over median absolute deviation of a normal distribution."""


@dataclass(frozen=True)
class LabelScales:
    """Where the opinions of each data set lie: mean and standard deviation in its training part."""

    mean_DA: Floats
    std_DA: Floats

    def standardised(self, people: Opinions) -> Opinions:
        """Opinions and spreads in units of their data set.

        It asserts that data sets are of like quality, image for image, which few are.
        Raises ValueError on a data set without a scale, or with opinions that are all equal.
        """
        if people.d_N.min() < 0 or people.d_N.max() >= len(self.std_DA):
            raise ValueError(
                f"d_N has {people.d_N.min()} to {people.d_N.max()}; scales are of 0 to {len(self.std_DA) - 1}"
            )
        mean_NA, std_NA = self.mean_DA[people.d_N], self.std_DA[people.d_N]
        lacking = np.argwhere(np.isfinite(people.y_NA) & ~(std_NA > 0))
        if len(lacking):
            image, attribute = lacking[0]
            raise ValueError(
                f"opinions of data set {people.d_N[image]} on attribute {attribute} have no spread to be divided by; "
                "leave the data set out, or compare within data sets"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return Opinions((people.y_NA - mean_NA) / std_NA, people.s_NA / std_NA, people.d_N)


def label_scales(y_NA: ArrayLike, d_N: ArrayLike, *, is_robust: bool = False) -> LabelScales:
    """Scales of data sets 0 to D - 1 from the opinions of the training part; NaN where there is none.

    is_robust: median and 1.4826 times the median absolute deviation, in place of mean and unbiased standard deviation.
    """
    y, d = np.asarray(y_NA, dtype=np.float64), np.asarray(d_N)
    shape = int(d.max()) + 1, y.shape[1]
    scales = LabelScales(np.full(shape, np.nan), np.full(shape, np.nan))
    for place in np.ndindex(shape):
        known = y[d == place[0], place[1]]
        known = known[np.isfinite(known)]
        if len(known) > 1:
            scales.mean_DA[place] = np.median(known) if is_robust else known.mean()
            scales.std_DA[place] = (
                NORMAL_MAD * np.median(np.abs(known - scales.mean_DA[place])) if is_robust else known.std(ddof=1)
            )
    return scales


def comparable(is_usable_N: NDArray[np.bool_], d_N: Ints, alignment: Alignment) -> Iterator[Ints]:
    """Sets of usable images, two or more, each of which may be compared with every other of its set."""
    usable = np.flatnonzero(is_usable_N)
    sets = [usable[d_N[usable] == d] for d in np.unique(d_N[usable])] if alignment == "within" else [usable]
    yield from (images for images in sets if len(images) > 1)


def mean_over_others(compare: Callable[[slice], Floats], num_images: int, num_rollouts: int) -> Floats:
    """Mean of each rollout's comparisons with all images but its own, (M, K).

    compare: a slice of B images -> their comparisons with all of them, (B, K, M).
    """
    total_MK = np.empty((num_images, num_rollouts))
    size = max(1, BLOCK // (num_images * num_rollouts))
    for begin in range(0, num_images, size):
        block = slice(begin, min(begin + size, num_images))
        found_BKM = compare(block)
        rows = np.arange(block.stop - begin)
        found_BKM[rows, :, begin + rows] = 0
        total_MK[block] = found_BKM.sum(axis=2)
    return total_MK / (num_images - 1)
