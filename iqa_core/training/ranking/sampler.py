"""Data sets, a seed and an epoch -> which images are written about together, in which order: a pure function of these.

Images are ranked against those of their batch, so a batch holds images that may be compared: of one data set, or
several of each. Sizes are known before an epoch begins, and no image comes twice in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.errors import CallerError

Ints = NDArray[np.int64]
Mode = Literal["homogeneous", "mixed"]
"""A batch has images of one data set; or as many of each."""

MIN_OF_EACH = 4
"""Images of each data set in a mixed batch: with 2, a rollout sees one pair, and its reward varies twice as much."""


class DomainBatchSampler:
    """Indices of images, as a trainer asks for them that draws several rollouts of each.

    A batch of `unique` images comes `again` times, as often as the trainer goes over the same rollouts, and each image
    `repeat` times in a row. A homogeneous epoch draws data sets in proportion to their size to the power of `alpha`:
    1 is by size, 0 all alike. It goes once through the data set that is used up first; of the others it holds a part,
    another in each epoch. So does a mixed epoch, which takes as many images of each.
    """

    def __init__(
        self,
        datasets: ArrayLike,
        unique: int,
        repeat: int,
        again: int = 1,
        seed: int = 0,
        mode: Mode = "homogeneous",
        alpha: float = 0.5,
    ) -> None:
        """datasets: the number or name of each image's data set, (images,).

        Raises CallerError on a batch of fewer than two images, one that data sets cannot share evenly, at least four of
        each, or a data set that has fewer images than a batch takes of it; ValueError on other numbers out of range.
        """
        if repeat < 1 or again < 1 or not 0 <= alpha <= 1:
            raise ValueError(f"repeat {repeat} and again {again} are 1 or more, alpha {alpha:g} is 0 to 1")
        if unique < 2:
            raise CallerError(f"a batch of {unique} images has nothing to rank; take 2 or more")
        labels = np.asarray(datasets)
        self._images = [np.flatnonzero(labels == d) for d in np.unique(labels)]
        self._mode, self._seed, self._epoch = mode, seed, 0
        self._unique, self._repeat, self._again = unique, repeat, again
        self._share = unique if mode == "homogeneous" else _share(unique, len(self._images))
        _require_images(np.unique(labels), [len(images) for images in self._images], self._share)
        self._batches = self._due(alpha)

    def set_epoch(self, epoch: int) -> None:
        """Go on with the order of an epoch, which counts from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Indices in an epoch, repeats and all: the same in every epoch."""
        return self.num_batches * self._unique * self._repeat * self._again

    def __iter__(self) -> Iterator[int]:
        for images in self.batches(self._epoch):
            for _ in range(self._again):
                yield from np.repeat(images, self._repeat).tolist()

    @property
    def num_batches(self) -> int:
        """Batches of different images in an epoch."""
        return sum(self._batches) if self._mode == "homogeneous" else self._batches[0]

    def batches(self, epoch: int) -> Ints:
        """Images of each batch of an epoch, (batches, unique)."""
        rng = np.random.default_rng([self._seed, epoch])
        pieces = [
            rng.permutation(images)[: count * self._share].reshape(count, self._share)
            for images, count in zip(self._images, self._batches, strict=True)
        ]
        if self._mode == "mixed":
            return np.concatenate(pieces, axis=1)
        return rng.permutation(np.concatenate(pieces))

    def used(self, epochs: int) -> Ints:
        """How often each image is in a batch of the first epochs, (images,)."""
        total = np.zeros(sum(map(len, self._images)), dtype=np.int64)
        for epoch in range(epochs):
            total[self.batches(epoch)] += 1  # an image is in an epoch once at most
        return total

    def _due(self, alpha: float) -> list[int]:
        """Batches of each data set in an epoch, 1 or more."""
        sizes = np.array([len(images) for images in self._images]) / self._share
        if self._mode == "mixed":
            return [int(sizes.min())] * len(sizes)
        dues = sizes**alpha
        dues = dues * (sizes / dues).min()
        return [max(1, int(due + 1e-9)) for due in dues]  # a third of 3 batches is 1, whatever its last bit


def _share(unique: int, num_datasets: int) -> int:
    """Images of each data set in a mixed batch."""
    share, left = divmod(unique, num_datasets)
    if left or share < MIN_OF_EACH:
        raise CallerError(
            f"a mixed batch of {unique} images takes {unique / num_datasets:g} from each of {num_datasets} data sets; "
            f"take a multiple of {num_datasets}, {MIN_OF_EACH * num_datasets} or more"
        )
    return share


def _require_images(names: NDArray[Any], sizes: Sequence[int], share: int) -> None:
    for name, size in zip(names, sizes, strict=True):
        if size < share:
            raise CallerError(
                f"data set {name} has {size} images, and a batch takes {share} of it; "
                "leave it out, or take smaller batches (--images)"
            )


def require_ranks(y_NA: ArrayLike, datasets: ArrayLike, attributes: Sequence[str]) -> None:
    """Raises CallerError where all opinions of a data set on one attribute are equal: they rank nothing.

    y_NA: opinions, (images, attributes), NaN where there is none.
    """
    y, labels = np.asarray(y_NA, dtype=np.float64), np.asarray(datasets)
    for dataset in np.unique(labels):
        for name, column in zip(attributes, y[labels == dataset].T, strict=True):
            known = column[np.isfinite(column)]
            if len(known) and known.min() == known.max():
                raise CallerError(
                    f"the opinions of data set {dataset} on {name} are all {known[0]:g}, which ranks nothing; "
                    "leave that attribute or the data set out"
                )
