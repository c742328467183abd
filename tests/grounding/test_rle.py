"""Masks as COCO has them: known strings, and the same as pycocotools says of random masks."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from iqa_core.grounding.boxes import Box
from iqa_core.grounding.rle import area_of, box_of, compressed, counts_of, decompressed, mask_of


def drawn(height: int, width: int, *rectangles: tuple[int, int, int, int]) -> np.ndarray:
    """A mask with rectangles: first row, row behind the last, first column, column behind the last."""
    mask = np.zeros((height, width), bool)
    for top, bottom, left, right in rectangles:
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "counts", "text", "area", "box"),
    [
        (drawn(4, 5, (1, 3, 1, 4), (3, 4, 4, 5)), [5, 2, 2, 2, 2, 2, 4, 1], "5220002O", 7, (1, 1, 4, 3)),
        (drawn(4, 5), [20], "d0", 0, (0, 0, 0, 0)),
        (drawn(4, 5, (0, 4, 0, 5)), [0, 20], "0d0", 20, (0, 0, 5, 4)),
    ],
)
def test_small_masks(mask: np.ndarray, counts: list[int], text: str, area: int, box: tuple[int, int, int, int]) -> None:
    assert counts_of(mask) == counts
    assert compressed(counts) == text
    assert decompressed(text) == counts
    assert (area_of(counts), box_of(counts, 4)) == (area, box)
    assert (mask_of(counts, 4, 5) == mask).all()


def test_a_large_mask() -> None:
    counts = counts_of(drawn(480, 640, (100, 200, 300, 500), (0, 1, 0, 1)))
    text = compressed(counts)
    assert (len(counts), counts[:6]) == (403, [0, 1, 144099, 100, 380, 100])
    assert (len(text), text.endswith("00000000l`Q2")) == (413, True)
    assert (area_of(counts), box_of(counts, 480)) == (20_001, (0, 0, 500, 200))


@pytest.mark.parametrize("seed", range(20))
def test_pycocotools_says_the_same_of_random_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    mask = rng.random((height, width)) < rng.choice([0.01, 0.3, 0.5, 0.99])
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = counts_of(mask)
    assert compressed(counts) == theirs["counts"].decode()
    assert decompressed(theirs["counts"].decode()) == counts
    assert (mask_of(counts, *mask.shape) == mask).all()
    assert area_of(counts) == coco.area(theirs)
    own = Box.around(mask)
    assert box_of(counts, height) == ((0, 0, 0, 0) if own is None else tuple(own))
    assert box_of(counts, height) == tuple(coco.toBbox(theirs).astype(int))


def test_what_is_no_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="no character of compressed runs"):
        decompressed("52 0")
    with pytest.raises(ValueError, match="cut off"):
        decompressed("52P")
    with pytest.raises(ValueError, match="runs of 19 pixels are no mask of 4 x 5"):
        mask_of([9, 10], 4, 5)
