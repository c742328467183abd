"""The packed vision tower against one image at a time, computed the long way."""

from __future__ import annotations

import pytest
import torch

from iqa_core.assessor.ovis2_5.configuration import Ovis2_5VisionConfig
from iqa_core.assessor.ovis2_5.vision import PatchLayout, VisionTower, VisualTokenizer
from tests.assessor.ovis2_5 import naive

pytestmark = pytest.mark.slow

GRIDS = [(4, 8), (10, 6), (8, 4), (4, 8), (2, 2)]
CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 80,
}


def make_tower(**settings: object) -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(Ovis2_5VisionConfig(**CONFIG, **settings)).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return tower


def pack(grids: list[naive.Grid]) -> tuple[list[torch.Tensor], torch.Tensor]:
    patches = [torch.randn(height * width, 768) for height, width in grids]
    return patches, torch.tensor([[1, height, width] for height, width in grids])


@pytest.mark.parametrize(
    ("settings", "full", "side"),
    [
        ({}, {0, 1, 2}, 0),
        ({"fullatt_block_indexes": "1", "window_size": 64}, {1}, 4),
        ({"fullatt_block_indexes": "0|2", "window_size": 112}, {0, 2}, 6),
    ],
)
@torch.inference_mode()
def test_packed_images_are_what_each_is_alone(settings: dict[str, object], full: set[int], side: int) -> None:
    """Sizes mixed and repeated out of order; a window of 112 pixels holds 3 x 3 blocks."""
    tower = make_tower(**settings)
    patches, grid_thws = pack(GRIDS)
    packed = tower(torch.cat(patches), grid_thws).split([len(p) for p in patches])
    for one, grid, found in zip(patches, GRIDS, packed, strict=True):
        expected = naive.vision_tower(tower, one, grid, full, side or max(grid))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_windows_matter() -> None:
    patches, grid_thws = pack([(10, 6)])
    windowed = make_tower(fullatt_block_indexes="1", window_size=64)(patches[0], grid_thws)
    assert (windowed - make_tower()(patches[0], grid_thws)).abs().max() > 0.01


def test_patches_are_in_block_order_for_all_images_at_once() -> None:
    layout = PatchLayout.of(torch.tensor([[1, *grid] for grid in GRIDS]))
    found = list(zip(layout.row_T.tolist(), layout.column_T.tolist(), strict=True))
    assert found == [place for grid in GRIDS for place in naive.block_order(grid)]
    assert layout.image_T.tolist() == [i for i, (h, w) in enumerate(GRIDS) for _ in range(h * w)]


def test_a_table_in_its_own_size_is_not_changed() -> None:
    tower = make_tower()
    layout = PatchLayout.of(torch.tensor([[1, 4, 4], [1, 5 * 2, 5 * 2]]))
    with torch.inference_mode():
        small, _ = tower.embeddings.positions(layout).split([16, 100])
    torch.testing.assert_close(small, naive.positions(tower.embeddings.position_embedding.weight.detach(), (4, 4)))


@pytest.mark.parametrize(("grid", "message"), [([2, 4, 4], "one frame"), ([1, 3, 4], "even sides")])
def test_video_and_odd_grids_are_refused(grid: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchLayout.of(torch.tensor([grid]))


def test_grids_that_do_not_fit_the_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="16 patches, but 8"):
        make_tower()(torch.zeros(8, 768), torch.tensor([[1, 4, 4]]))


def test_visual_words_are_probabilities_in_float32_whatever_the_model_computes_in() -> None:
    head = VisualTokenizer(Ovis2_5VisionConfig(**CONFIG), 4 + 500).to(torch.bfloat16)
    words = head.words(torch.randn(7, 128).bfloat16())
    assert words.shape == (7, 500)
    assert words.dtype == torch.bfloat16
    torch.testing.assert_close(words.float().sum(-1), torch.ones(7), atol=5e-3, rtol=0)
