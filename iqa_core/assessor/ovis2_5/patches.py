"""Prepared uint8 images -> normalised patches in the order of Ovis2.5's vision tower.

Shape suffixes: N images, H height, W width, C channels, P patches of all images, F values of a patch (3 x 16 x 16).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iqa_core.assessor.ovis2_5.sizes import FACTOR, MERGE, PATCH


def patchify(
    pixels_NHWC: torch.Tensor, mean: Sequence[float], std: Sequence[float], rescale: float = 1 / 255
) -> torch.Tensor:
    """Patches (P, F) in float32, on the pixels' device. pixels: uint8 (H, W, 3) or (N, H, W, 3), images of one size.

    The four patches of a 2 x 2 block are neighbours; a patch is flattened as (channel, row, column).
    Raises ValueError when a side is no multiple of 32.
    """
    *_images, height, width, channels = pixels_NHWC.shape
    if height % FACTOR or width % FACTOR:
        raise ValueError(f"an image of {height} x {width} cannot be cut: its sides must be multiples of {FACTOR}")
    scale_C, shift_C = (pixels_NHWC.new_tensor(values, dtype=torch.float32) for values in _affine(mean, std, rescale))
    pixels_NHWC = pixels_NHWC.to(torch.float32, copy=True).mul_(scale_C).add_(shift_C)
    blocks = pixels_NHWC.reshape(-1, height // FACTOR, MERGE, PATCH, width // FACTOR, MERGE, PATCH, channels)
    return blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, channels * PATCH * PATCH)


def _affine(mean: Sequence[float], std: Sequence[float], rescale: float) -> tuple[list[float], list[float]]:
    """(x * rescale - mean) / std as one multiplication and one addition."""
    return [rescale / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
