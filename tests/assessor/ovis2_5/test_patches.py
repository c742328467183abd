"""Patches against plain slicing."""

from __future__ import annotations

import pytest
import torch

from iqa_core.assessor.ovis2_5.patches import patchify
from tests.assessor.ovis2_5.naive import block_order

pytestmark = pytest.mark.slow

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
IMAGES = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_patches_are_slices_in_block_order() -> None:
    patches = patchify(IMAGES[0], MEAN, STD)
    assert patches.shape == (24, 768)
    assert patches.dtype == torch.float32
    normalised = (IMAGES[0].double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    for patch, (row, column) in zip(patches, block_order((4, 6)), strict=True):
        cut = normalised[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        torch.testing.assert_close(patch.double(), cut.permute(2, 0, 1).flatten(), atol=1e-6, rtol=0)


def test_images_of_one_size_follow_one_another() -> None:
    both = patchify(IMAGES, MEAN, STD)
    torch.testing.assert_close(both, torch.cat([patchify(image, MEAN, STD) for image in IMAGES]), atol=0, rtol=0)


def test_the_pixels_are_left_as_they_are() -> None:
    floats = IMAGES[0].float()
    before = floats.clone()
    patchify(floats, MEAN, STD)
    assert torch.equal(floats, before)


def test_a_side_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="48 x 96"):
        patchify(IMAGES[0, :48], MEAN, STD)
