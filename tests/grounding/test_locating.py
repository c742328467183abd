"""Parts of images, in a notebook.

Tests iqa_core/grounding/parts.py.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.protocol import View
from iqa_core.errors import CallerError
from iqa_core.grounding.batches import Grounded, Viewable, ground_each
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Region, assess_regions, locate
from iqa_core.records import Assessment, ImageHeader, Reason, Rejection, RgbImage
from tests.assessor import tiny

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(3).integers(0, 256, (120, 150, 3), dtype=np.uint8)
WIDTH, HEIGHT = 560, 280
SQUARE = Box(200, 80, 80, 80)
"""Of a picture of 14 x 7 visual tokens, those in rows 2 and 3 and columns 5 and 6."""
MIRRORED = (2, 4, 5, 7)
"""EXIF orientations of pictures that are stored mirrored."""


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TransformersAssessor:
    folder = tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))
    assessor = load_assessor(str(folder), "interior-v2", threads=1, max_pixels=77_000)
    assert isinstance(assessor, TransformersAssessor)
    return assessor


class Redness:
    """What a model with views says that is asked how red the reddest token in a view is, 1 for red."""

    def __init__(self, model: TransformersAssessor) -> None:
        self.rubric, self.preparer, self.view_grid = model.rubric, model.preparer, model.view_grid
        self.assess_with_views = model.assess_with_views

    def assess_views(self, images: Any, views: Any, names: Any, texts: Any = None) -> list[list[Assessment]]:
        return [[self._assessment(images[0], view, len(names)) for view in views[0]]]

    def _assessment(self, image: np.ndarray, view: View, count: int) -> Assessment:
        middles = image[14::28, 14::28].reshape(-1, 3).astype(int)[list(view)]
        redness = (middles[:, 0] - middles[:, 1]).max() / 255
        return Assessment(np.full(count, 5 - 4 * redness, np.float32), np.zeros(count, np.float32), ())


def painted(orientation: int) -> bytes:
    """A grey picture that is shown 560 x 280 with a red square, stored as an EXIF orientation turns it."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[80:160, 200:280] = (255, 0, 0)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}
    shown = pixels[:, ::-1] if orientation in MIRRORED else pixels
    buffer, exif = BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.rot90(shown, turns[orientation])).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_on_a_rotated_photograph_picks_the_tokens_that_show_it(
    orientation: int, qwen: TransformersAssessor
) -> None:
    """In pixels or fractions of the picture as it is shown; and no token around the square is red."""
    around = [Box(0, 0, 200, 280), Box(280, 0, 280, 280), Box(200, 0, 80, 80), Box(200, 160, 80, 120)]
    asked: Any = Redness(qwen)
    found = assess_regions(asked, painted(orientation), [SQUARE, *around], ["distortion"])
    regions = [region for region in found if isinstance(region, Region)]
    assert [region.scores["distortion"] for region in regions] == pytest.approx([1, 5, 5, 5, 5], abs=0.02)
    assert [region.num_tokens for region in regions] == [4, 35, 49, 4, 6]
    fractions = [list(box.scaled(1 / WIDTH, 1 / HEIGHT)) for box in (SQUARE, *around)]
    again = assess_regions(asked, painted(orientation), fractions, ["distortion"], unit="fractions")
    assert [region.num_tokens for region in again if isinstance(region, Region)] == [4, 35, 49, 4, 6]
    np.testing.assert_allclose(list(regions[0].box), list(SQUARE))


@pytest.mark.parametrize("orientation", [1, 5, 6, 8])
def test_the_square_is_found(orientation: int, qwen: TransformersAssessor) -> None:
    asked: Any = Redness(qwen)
    located = locate(asked, painted(orientation), ["distortion"], cells=7)
    assert isinstance(located, dict)
    found = located["distortion"]
    assert (found.cell, found.box) == ((2, 2), Box(160, 80, 80, 40))
    assert found.score == pytest.approx(1, abs=0.02), "of the whole picture, in which the square is too"
    assert [*map(tuple, np.argwhere(found.cell_scores < 3).tolist())] == [(2, 2), (2, 3), (3, 2), (3, 3)]


def test_the_whole_image_has_its_ordinary_score(qwen: TransformersAssessor) -> None:
    located = locate(qwen, PIXELS, cells=3)
    [whole] = assess_images(qwen, [PIXELS])
    assert isinstance(located, dict)
    assert isinstance(whole, Assessment)
    assert list(located) == ["lighting", "distortion"], "the rubric's dimensions that a part of an image has too"
    scores = dict(zip(qwen.rubric.names, whole.scores_K, strict=True))
    for name, found in located.items():
        assert found.score == pytest.approx(scores[name], abs=1e-5)
        assert found.cell_scores.shape == (3, 3)
        assert found.cell is not None
        assert found.box is not None
        assert found.cell_scores[found.cell] == found.cell_scores.min()
        [region] = assess_regions(qwen, PIXELS, [found.box], [name])
        assert isinstance(region, Region)
        assert region.scores[name] == pytest.approx(float(found.cell_scores[found.cell]), abs=1e-5)


def test_images_of_a_batch_are_grounded_as_each_is_alone(qwen: TransformersAssessor) -> None:
    """In one call of the model, whatever their sizes; with boxes beside the cells of one of them."""
    images = [PIXELS, PIXELS[:, :90], PIXELS]
    boxes = [[SQUARE, Box(10, 20, 60, 50)], [], []]
    headers = [ImageHeader(pixels.shape[1], pixels.shape[0], "png", 1) for pixels in images]
    prepared = [qwen.preparer.prepare(RgbImage(*each)) for each in zip(images, headers, strict=True)]
    asked = [
        Viewable(array, pixels.shape[1], pixels.shape[0], own)
        for array, pixels, own in zip(prepared, images, boxes, strict=True)
    ]
    for pixels, own, found in zip(images, boxes, ground_each(qwen, asked, ["distortion"], 2), strict=True):
        alone = locate(qwen, pixels, ["distortion"])
        assert isinstance(alone, dict)
        assert isinstance(found, Grounded)
        np.testing.assert_allclose(
            found.located["distortion"].cell_scores, alone["distortion"].cell_scores, atol=1e-5, rtol=0
        )
        assert found.located["distortion"].score == pytest.approx(alone["distortion"].score, abs=1e-5)
        for region, wanted in zip(found.regions, assess_regions(qwen, pixels, own, ["distortion"]), strict=True):
            assert isinstance(wanted, Region | Rejection)
            if isinstance(wanted, Rejection):
                assert region == wanted
            else:
                assert isinstance(region, Region)
                assert region.scores["distortion"] == pytest.approx(wanted.scores["distortion"], abs=1e-5)


def test_tiles_are_parts_as_images_of_their_own(qwen: TransformersAssessor) -> None:
    """The way out for models without views, and for any assessor."""
    located = locate(qwen, PIXELS, ["layout"], method="tiles")
    tiles = assess_images(qwen, [PIXELS[:60, :75], PIXELS[:60, 75:], PIXELS[60:, :75], PIXELS[60:, 75:], PIXELS])
    expected = [tile.scores_K[0] for tile in tiles if isinstance(tile, Assessment)]
    assert isinstance(located, dict)
    np.testing.assert_allclose(located["layout"].cell_scores.ravel(), expected[:4], atol=1e-5)
    assert located["layout"].score == pytest.approx(expected[4], abs=1e-5)
    region, thin = assess_regions(qwen, PIXELS, [(75, 0, 75, 60), (0, 0, 7.4, 60)], ["layout"], method="tiles")
    assert isinstance(region, Region)
    assert region.num_tokens is None
    assert region.scores["layout"] == pytest.approx(expected[1], abs=1e-5)
    assert isinstance(thin, Rejection)
    assert "7 x 60 pixels" in thin.detail


def test_less_is_better_where_the_rubric_says_so(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(FAULTS)
    assessor = load_assessor("fake:", str(path))
    located = locate(assessor, PIXELS, method="tiles")
    assert isinstance(located, dict)
    cell_scores = located["faults"].cell_scores
    assert cell_scores[located["faults"].cell] == cell_scores.max() > cell_scores.min()
    np.testing.assert_allclose(located["faults"].falls, 4 * (cell_scores - cell_scores.min()), atol=1e-6)
    assert located["faults"].map[0].argmax() == cell_scores.argmax()


FAULTS = """
id = "faults"
domain = "Tests."
prompt_version = 1
description = "How much is wrong."
dimensions = [{ name = "faults", query = "Is it broken?", answers = { No = 0, Yes = 1 }, worst = 1, local = true }]
answer_prefix = "It is broken:"
"""


def test_a_rubric_with_slots_is_asked_with_the_images_text(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(tiny.SHOWN)
    assessor = load_assessor("fake:", str(path))

    def scores(text: object) -> dict[str, float]:
        [region] = assess_regions(
            assessor, PIXELS, [Box(0, 0, 60, 120)], ["faithful", "good"], method="tiles", text=text
        )
        assert isinstance(region, Region)
        return dict(region.scores)

    dog, cat = (scores({"prompt": animal, "style": "noir"}) for animal in ("a dog", "a cat"))
    assert list(dog) == ["faithful", "good"]
    assert dog["faithful"] != cat["faithful"]
    with pytest.raises(CallerError, match=r"asks with \{prompt\}, \{style\}"):
        scores(None)
    [missing] = assess_regions(
        assessor, PIXELS, [Box(0, 0, 60, 120)], ["good"], method="tiles", text={"prompt": "a dog"}
    )
    assert isinstance(missing, Rejection)
    assert missing.reason is Reason.MISSING_TEXT


def test_an_image_that_cannot_be_read_is_a_rejection(qwen: TransformersAssessor) -> None:
    for result in (locate(qwen, b""), *assess_regions(qwen, "none.png", [SQUARE])):
        assert isinstance(result, Rejection)


@pytest.mark.parametrize(
    ("size", "cells", "detail"), [((60, 400), 2, "2 x 14 visual tokens"), ((200, 200), 8, "7 x 7")]
)
def test_too_few_tokens_are_a_rejection(
    size: tuple[int, int], cells: int, detail: str, qwen: TransformersAssessor
) -> None:
    result = locate(qwen, np.zeros((*size, 3), np.uint8), cells=cells)
    assert isinstance(result, Rejection)
    assert (result.reason, detail in result.detail) == (Reason.TOO_SMALL, True)


def test_a_box_outside_the_image_is_a_rejection_in_its_place(qwen: TransformersAssessor) -> None:
    first, outside, small = assess_regions(qwen, PIXELS, [(-5, -5, 50, 50), (150, 0, 9, 9), (70, 70, 0.5, 0.5)])
    assert isinstance(first, Region)
    assert first.box == Box(0, 0, 45, 45)
    assert isinstance(outside, Rejection)
    assert "150 x 120 pixels" in outside.detail
    assert isinstance(small, Region)
    assert small.num_tokens == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ["taste"]}, "it has layout, harmony, lighting, distortion"),
        ({"names": "layout"}, "names is a list"),
        ({"names": iter(["taste"])}, "it has layout, harmony, lighting, distortion"),
        ({"cells": 0}, "at least one cell"),
        ({"cells": 2.0}, r"at least one cell .*2\.0"),
        ({"cells": "2"}, "at least one cell"),
        ({"method": "maps"}, "'views' or 'tiles'"),
    ],
)
def test_what_cannot_be_asked_is_the_callers_mistake(
    settings: dict[str, Any], message: str, qwen: TransformersAssessor
) -> None:
    with pytest.raises(CallerError, match=message):
        locate(qwen, PIXELS, **settings)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 5),
        (0, 0, 5, 0),
        "left",
        "1234",
        ("1", "2", "3", "4"),
        7,
        (10**400, 0, 5, 5),
        (math.nan, 0, 5, 5),
        torch.tensor(5.0),
        torch.ones(4, 2),
        np.ones((4, 2)),
    ],
    ids=str,
)
def test_what_is_no_box_is_the_callers_mistake(box: Any, qwen: TransformersAssessor) -> None:
    with pytest.raises(CallerError, match="x, y, width and height"):
        assess_regions(qwen, PIXELS, [box])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, torch.tensor, Box])
def test_a_box_is_the_same_in_any_numbers(kind: Any, qwen: TransformersAssessor) -> None:
    """In 8 bits its right side, 100 + 200, is 44."""
    sides = (100, 0, 200, 60)
    given = Box(*np.asarray(sides, np.uint8)) if kind is Box else kind(sides)
    [region] = assess_regions(qwen, PIXELS, [given], ["lighting"])
    assert isinstance(region, Region)
    assert (region.box, region.num_tokens) == (Box(100, 0, 50, 60), 4)


def test_names_may_come_one_by_one(qwen: TransformersAssessor) -> None:
    located = locate(qwen, PIXELS, iter(["lighting"]))
    assert isinstance(located, dict)
    assert list(located) == ["lighting"]


@pytest.mark.parametrize("cells", [1, 2])
def test_where_all_cells_are_alike_none_is_the_worst(cells: int, qwen: TransformersAssessor) -> None:
    asked: Any = Redness(qwen)
    located = locate(asked, np.full((120, 150, 3), 128, np.uint8), ["distortion"], cells=cells)
    assert isinstance(located, dict)
    found = located["distortion"]
    assert (found.cell, found.box, found.map[1]) == (None, None, 0)
    assert found.cell_scores.shape == (cells, cells)
    assert found == found, "and comparing arrays raises nothing"


def test_more_mistakes_of_a_caller(qwen: TransformersAssessor, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="x, y, width and height"):
        assess_regions(qwen, PIXELS, [(0, 0, 1e308, 0.5)], unit="fractions")
    with pytest.raises(CallerError, match="'pixels' or 'fractions'"):
        assess_regions(qwen, PIXELS, [SQUARE], unit="percent")  # type: ignore[arg-type]
    with pytest.raises(CallerError, match="tiles"):
        locate(load_assessor("fake:"), PIXELS)
    path = tmp_path / "faults.toml"
    path.write_text(FAULTS.replace(", local = true", ""))
    with pytest.raises(CallerError, match=r"marks no dimension as `local`.*faults"):
        locate(load_assessor("fake:", str(path)), PIXELS, method="tiles")
