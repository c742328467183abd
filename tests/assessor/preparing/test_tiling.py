"""Tiles against transformers' own image processors, and which settings are left to those."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import SmolVLMImageProcessorPil

from iqa_core.assessor import families
from iqa_core.assessor.checkpoint.files import read_json
from iqa_core.assessor.preparing.preparers import (
    FullSizePreparer,
    ModelPreparer,
    TilingPreparer,
    make_preparer,
    tiles_of,
)
from iqa_core.assessor.preparing.tiling import stacked, unstacked
from iqa_core.records import ImageHeader, ImageLimits
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import TILED, make_images

pytestmark = pytest.mark.slow


def preparer_of(folder: Path, max_pixels: int | None = None) -> ModelPreparer:
    return make_preparer(folder, load_rubric("interior-v2"), ImageLimits(), max_pixels)


@given(st.integers(1, 3), st.integers(1, 20_000), st.integers(1, 20_000))
def test_tiles_travel_with_the_size_of_their_picture(count: int, height: int, width: int) -> None:
    tiles = np.random.default_rng(height).integers(0, 256, (count, 4, 3, 3), dtype=np.uint8)
    found, size = unstacked(stacked(tiles, (height, width)), (4, 3))
    np.testing.assert_array_equal(found, tiles)
    assert size == (height, width)


@pytest.mark.parametrize("splits", [True, False])
@pytest.mark.parametrize("size", [(90, 200), (30, 40), (64, 64)])
def test_smolvlms_tiles_are_its_own_processors(size: tuple[int, int], splits: bool) -> None:
    settings = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 48}, "do_image_splitting": splits}
    processor = SmolVLMImageProcessorPil(**settings, do_rescale=False, do_normalize=False)
    tiling = families.TILED["smolvlm"].tiling({}, processor.to_dict())
    assert tiling is not None
    [image] = make_images(size)
    theirs = processor(images=[Image.fromarray(image.pixels_HWC)], return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(tiles_of(image.pixels_HWC, tiling), theirs.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 8), (256, 256), (1500, 1300)])
def test_what_is_prepared_is_what_its_header_promised(
    name: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    """However large or long the image is, no more travels than the most tiles."""
    preparer = preparer_of(request.getfixturevalue(name))
    [image] = make_images(size)
    shape, prepared = preparer.shape(image.header), preparer.prepare(image)
    assert prepared.shape == (shape.height, shape.width, 3)
    assert prepared.flags.c_contiguous
    assert preparer.tokens(prepared) == shape.tokens
    assert len(prepared) <= 5 * 56 + 1


def test_more_pixels_than_wanted_are_scaled_down_before_they_are_cut(internvl: Path) -> None:
    [image] = make_images((300, 200))
    bounded, free = preparer_of(internvl, max_pixels=150 * 100), preparer_of(internvl)
    smaller = replace(image, pixels_HWC=bounded.picture(image), header=ImageHeader(100, 150, "png", 1))
    np.testing.assert_array_equal(bounded.prepare(image), free.prepare(smaller))
    assert not np.array_equal(bounded.prepare(image), free.prepare(image))


def with_settings(folder: Path, target: Path, file: str, **settings: Any) -> Path:
    """A checkpoint's configuration with some settings changed."""
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        content = {**read_json(folder / name), **(settings if name == file else {})}
        (target / name).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("internvl", {"image_processor_type": "SomeImageProcessor"}),
        ("internvl", {"size": {"shortest_edge": 56}}),
        ("internvl", {"do_resize": False}),
        ("ovis2", {"do_center_crop": True}),
        ("ovis2", {"a_setting_of_tomorrow": 3}),
        ("llava", {"crop_size": {"height": 28, "width": 28}}),
        ("llava", {"image_grid_pinpoints": [[56, 60]]}),
        ("llava", {"do_pad": False}),
        ("idefics", {"max_image_size": {"height": 56, "width": 56}}),
        ("gemma3", {"do_pan_and_scan": True}),
        ("paligemma", {"do_pad": True}),
    ],
)
def test_what_is_not_known_is_left_to_the_checkpoints_own_processor(
    name: str, settings: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    assert isinstance(preparer_of(folder), TilingPreparer)
    changed = with_settings(folder, tmp_path, "preprocessor_config.json", **settings)
    assert isinstance(preparer_of(changed), FullSizePreparer)


@pytest.mark.parametrize("rename", [lambda name: name, lambda name: f"{name}Fast", lambda name: f"{name}Pil"])
def test_variants_of_a_processor_and_nameless_settings_are_known(
    gemma3: Path, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    """Gemma's files have `null` for what its processor decides."""
    name = rename("Gemma3ImageProcessor")
    settings = {"image_processor_type": name, "do_pan_and_scan": None, "pan_and_scan_max_num_crops": None}
    changed = with_settings(gemma3, tmp_path, "preprocessor_config.json", **settings, resample=None)
    assert preparer_of(changed) == preparer_of(gemma3)


def test_a_model_that_says_nothing_of_its_tokens_is_left_alone(llava: Path, tmp_path: Path) -> None:
    changed = with_settings(llava, tmp_path, "processor_config.json", num_image_tokens=None)
    assert isinstance(preparer_of(changed), FullSizePreparer)
