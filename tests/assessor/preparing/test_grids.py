"""Sizes and grids against transformers' own image processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import SizeDict
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    Idefics3ImageProcessorPil,
    get_resize_output_image_size,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.ovis2.image_processing_pil_ovis2 import get_min_tile_covering_grid

from iqa_core.assessor.preparing.grids import best_canvas, closest_grid, covering_grid, fitted
from iqa_core.assessor.preparing.tiling import LongestEdge

pytestmark = pytest.mark.slow

SIDES = st.integers(1, 20_000)
PINPOINTS = [(height, width) for height, width in LlavaOnevisionImageProcessorPil.image_grid_pinpoints]


@given(SIDES, SIDES, st.sampled_from([(1, 12), (2, 6), (3, 2)]))
def test_the_closest_grid_is_internvls(height: int, width: int, tiles: tuple[int, int]) -> None:
    columns, rows = get_optimal_tiled_canvas((height, width), (448, 336), *tiles)
    assert closest_grid((height, width), (448, 336), *tiles) == (rows, columns)


def pixels_of(height: int, width: int) -> np.ndarray:
    """Black ones that take no room, channels first."""
    return np.broadcast_to(np.uint8(0), (3, height, width))


def resize_to_nothing(image: np.ndarray, size: Any, resample: Any = None) -> np.ndarray:
    """Idefics3's resize without the pixels. (Its get_number_of_image_patches counts otherwise than it cuts.)"""
    if size.longest_edge:
        return pixels_of(*get_resize_output_image_size(image, size.longest_edge))
    return pixels_of(size.height, size.width)


@given(SIDES, SIDES, st.integers(1, 12))
def test_the_covering_grid_is_ovis2s(height: int, width: int, max_tiles: int) -> None:
    columns, rows = get_min_tile_covering_grid((height, width), 448, max_tiles)
    assert covering_grid((height, width), 448, max_tiles) == (rows, columns)


@given(SIDES, SIDES)
def test_the_canvas_is_llavas(height: int, width: int) -> None:
    canvas = best_canvas((height, width), PINPOINTS)
    assert canvas == select_best_resolution((height, width), PINPOINTS)
    expected = get_patch_output_size(pixels_of(height, width), canvas, "channels_first")
    assert fitted((height, width), canvas) == expected


@given(SIDES, SIDES, st.sampled_from([(1456, 364), (2048, 512), (8000, 500)]))
def test_the_grid_of_the_longest_edge_is_idefics3s(height: int, width: int, edges: tuple[int, int]) -> None:
    longest, side = edges
    processor = Idefics3ImageProcessorPil()
    processor.resize = resize_to_nothing
    scaled = processor.resize(pixels_of(height, width), SizeDict(longest_edge=longest))
    whole = processor.resize_for_vision_encoder(scaled, side)
    tiles, rows, columns = processor.split_images(whole, {"longest_edge": side})
    plan = LongestEdge((side, side), 1, 64, longest, splits=True).plan(height, width)
    assert plan.resizes == (scaled.shape[1:], whole.shape[1:])
    assert plan.grid == (rows or 1, columns or 1)
    assert plan.num_tiles == len(tiles)
