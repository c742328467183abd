"""Preparers against the checkpoint's own processor, and what holds for images of every shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from iqa_core.assessor.encoders.base import split_prompts
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.grids import smart_size
from iqa_core.assessor.preparing.preparers import (
    FullSizePreparer,
    SmartResizePreparer,
    TokenCost,
    make_preparer,
    scaled_down,
)
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.errors import CallerError
from iqa_core.records import ImageHeader, ImageLimits, RgbImage
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import SHOWN, make_images

pytestmark = pytest.mark.slow

RUBRIC = load_rubric("interior-v2")
LIMITS = ImageLimits()
SIDES = st.integers(1, 20_000)


@given(SIDES, SIDES, st.sampled_from([28, 32]), st.sampled_from([(3136, 12544), (200_704, 2_408_448)]))
def test_sizes_are_those_of_the_qwen_processors(height: int, width: int, factor: int, bounds: tuple[int, int]) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    expected = smart_resize(height, width, factor, *bounds)
    assume(expected[0] * expected[1] <= bounds[1])
    assert smart_size(height, width, factor, *bounds) == expected


@given(SIDES, SIDES)
def test_sizes_stay_inside_their_bounds_whatever_the_shape(height: int, width: int) -> None:
    h, w = smart_size(height, width, 28, 3136, 12544)
    assert h % 28 == w % 28 == 0
    assert 28 * 28 <= h * w <= 12544
    assert smart_size(h, w, 28, 3136, 12544) == (h, w) or h * w < 3136


@given(SIDES, SIDES, st.integers(1, 10**6))
def test_scaling_down_keeps_the_bound_and_the_shape(height: int, width: int, max_pixels: int) -> None:
    assume(min(height, width) ** 2 * max_pixels >= height * width)
    h, w = scaled_down(height, width, max_pixels)
    assert 1 <= h * w <= max_pixels
    assert scaled_down(h, w, max_pixels) == (h, w)
    assert abs(h * width - w * height) <= max(height, width)


@pytest.mark.parametrize("size", [(64, 64), (30, 200), (400, 123), (112, 112), (9, 9), (100, 101)])
def test_prepared_images_become_the_processors_own_patches(qwen: Path, size: tuple[int, int]) -> None:
    processor = load_processor(qwen).image_processor
    [image] = make_images(size)
    prepared = make_preparer(qwen, RUBRIC, LIMITS, None).prepare(image)
    ours = processor(images=[Image.fromarray(prepared)], do_resize=False, return_tensors="np")
    theirs = processor(images=[Image.fromarray(image.pixels_HWC)], return_tensors="np")
    np.testing.assert_array_equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    np.testing.assert_allclose(ours["pixel_values"], theirs["pixel_values"], atol=1e-5)


def test_max_pixels_replaces_the_processors_bound(qwen: Path) -> None:
    preparer = make_preparer(qwen, RUBRIC, LIMITS, 56 * 84)
    assert isinstance(preparer, SmartResizePreparer)
    [image] = make_images((300, 200))
    assert preparer.prepare(image).shape == (84, 56, 3)
    with pytest.raises(CallerError, match=r"3135 is below .* 3136"):
        make_preparer(qwen, RUBRIC, LIMITS, 3135)


def test_an_image_is_counted_once_and_every_question_once(qwen: Path) -> None:
    """The estimate is within a third of what goes through the model."""
    preparer = make_preparer(qwen, RUBRIC, LIMITS, None)
    small, large = (preparer.shape(ImageHeader(side, side, "png", 1)) for side in (56, 112))
    assert large.tokens - small.tokens == 16 - 4
    tokenizer = load_processor(qwen).tokenizer
    prompts = [build_prompt(load_processor(qwen), question, None) for question in RUBRIC.questions]
    split = split_prompts([tokenizer.encode(prompt) for prompt in prompts])
    real = 3 + len(split.prefix) + sum(map(len, split.suffixes))
    assert 2 / 3 < small.tokens / real < 3 / 2


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """Files of a checkpoint with an image processor that nobody here knows."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "another", "mm_tokens_per_image": 4}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "AnotherImageProcessor"}))
    return tmp_path


def test_another_model_gets_the_image_as_it_is_or_scaled_down(unknown: Path) -> None:
    [image] = make_images((90, 60))
    free, bounded = (make_preparer(unknown, RUBRIC, LIMITS, bound) for bound in (None, 1350))
    assert isinstance(free, FullSizePreparer)
    np.testing.assert_array_equal(free.prepare(image), image.pixels_HWC)
    expected = Image.fromarray(image.pixels_HWC).resize((30, 45), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(bounded.prepare(image), np.asarray(expected))
    assert free.min_visual_tokens == 4


def test_a_view_is_made_contiguous(unknown: Path) -> None:
    [image] = make_images((64, 64))
    mirrored = RgbImage(image.pixels_HWC[:, ::-1], image.header)
    assert make_preparer(unknown, RUBRIC, LIMITS, None).prepare(mirrored).flags.c_contiguous


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("name", ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"])
def test_the_processor_is_found_where_either_generation_writes_it(tmp_path: Path, file: str, name: str) -> None:
    vision = {"image_processor_type": name, "patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 131072}}
    content = {"image_processor": vision} if file == "processor_config.json" else vision
    (tmp_path / file).write_text(json.dumps(content))
    preparer = make_preparer(tmp_path, RUBRIC, LIMITS, None)
    assert isinstance(preparer, SmartResizePreparer)
    assert (preparer.factor, preparer.min_pixels, preparer.max_pixels, preparer.resample) == (32, 65536, 131072, 3)


def test_of_two_generations_of_files_the_one_counts_that_the_actor_reads(internvl: Path, tmp_path: Path) -> None:
    """A checkpoint saved again by a newer transformers has both; the two need not agree."""
    folder = Path(shutil.copytree(internvl, tmp_path / "both"))
    older = json.loads((folder / "preprocessor_config.json").read_text())
    newer = {
        **json.loads((folder / "processor_config.json").read_text()),
        "image_processor": {**older, "max_patches": 2},
    }
    (folder / "processor_config.json").write_text(json.dumps(newer))
    header = ImageHeader(1000, 1000, "png", 1)
    assert make_preparer(internvl, RUBRIC, LIMITS, None).shape(header).height == 5 * 56 + 1
    assert load_processor(folder).image_processor.max_patches == 2
    assert make_preparer(folder, RUBRIC, LIMITS, None).shape(header).height == 56 + 1


def test_pixel_bounds_of_older_files_win_over_sizes(tmp_path: Path) -> None:
    """Qwen2.5-VL's released files have min_pixels and max_pixels beside, or instead of, a size."""
    vision = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136, "max_pixels": 12845056}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(vision))
    preparer = make_preparer(tmp_path, RUBRIC, LIMITS, None)
    assert isinstance(preparer, SmartResizePreparer)
    assert (preparer.min_pixels, preparer.max_pixels) == (3136, 12845056)


def test_what_preparing_holds_is_known_before(qwen: Path, internvl: Path) -> None:
    """Pillow's copy of the image at least, and not much more: a thin image is not made wide before it is made short."""
    for folder in (qwen, internvl):
        preparer = make_preparer(folder, RUBRIC, LIMITS, None)
        for height, width in ((10_000, 5_000), (8, 12_000_000), (12_000_000, 8)):
            shape = preparer.shape(ImageHeader(width, height, "png", 1))
            assert shape.work_bytes > 4 * height * width + 3 * shape.height * shape.width
            assert shape.work_bytes < 8 * height * width + 40 * shape.height * shape.width + 50_000_000
        same = preparer.shape(ImageHeader(*preparer.picture_size(ImageHeader(500, 300, "png", 1))[::-1], "png", 1))
        assert folder == internvl or same.work_bytes == 0


def test_a_text_costs_what_it_costs_wherever_it_goes_through_the_model(shown: Path) -> None:
    """The first two questions begin alike up to the end of {prompt}, and the third otherwise: twice, and once."""
    cost = TokenCost.of(load_rubric(str(shown)))
    assert cost.places == (("prompt", 2), ("style", 1))
    assert cost.of_texts({"prompt": "a" * 40, "style": "犬" * 4}) == 2 * 10 + 3
    ordinary = TokenCost.of(load_rubric("interior-v2"))
    assert ordinary.of_texts({"prompt": "a" * 40}) == 0
    assert ordinary.text_tokens / 4 < ordinary.longest < ordinary.text_tokens / 2, (
        "four questions of much the same length"
    )


def test_what_all_questions_begin_with_costs_once(tmp_path: Path) -> None:
    path = tmp_path / "alike.toml"
    lines = [line for line in SHOWN.splitlines() if "How good" not in line]
    path.write_text("\n".join(lines))
    assert TokenCost.of(load_rubric(str(path))).places == (("prompt", 1), ("style", 1))
