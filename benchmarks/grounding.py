"""What views cost a tiny Qwen2.5-VL, and how often they find what was spoilt (grounding_scenes.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.assessor import Engine, medians, pictures
from benchmarks.grounding_scenes import TARGET, measure_scenes
from benchmarks.harness import main
from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.encoders.views import with_views
from iqa_core.flags import StrictParser
from iqa_core.grounding.tokens import TokenGrid


class Pass:
    """Batches of two images at 448 x 448 with four questions of 30 tokens, and their operations."""

    def __init__(self) -> None:
        self.engine = Engine("tiny", torch.device("cpu"), torch.float32, [30] * 4)
        self.strategy = self.engine.packed()
        self.images = pictures(2, 448)
        self.grid = TokenGrid(16, 16)

    def scoring(self) -> EncodedBatch:
        return self.engine.encoder(self.images)

    def own(self, side: int) -> EncodedBatch:
        """The whole image and its cells, one dimension."""
        return self._viewed(side, [0])

    def same(self, side: int) -> EncodedBatch:
        """Four dimensions of the whole image, and one of its cells."""
        return self._viewed(side, [0, 1, 2, 3])

    def _viewed(self, side: int, whole: Sequence[int]) -> EncodedBatch:
        """whole: the questions about the whole image; those about its cells are the first."""
        token = self.engine.encoder.image_token
        assert token is not None
        views = [self.grid.everything, *self.grid.cells(side)]
        return with_views(self.scoring(), token, [views] * 2, [whole, *[[0]] * side**2])

    def answer(self, make: Callable[[], EncodedBatch]) -> torch.Tensor:
        return self.strategy.logits(make())

    def operations(self, batch: EncodedBatch) -> float:
        """Of the tower and the packed decoder for one image, all of the prefix counted for each question."""
        prompt, shape = batch.prompts[0], self.engine.shape
        suffixes = [len(suffix) for suffix in prompt.suffixes]
        return float(shape.tower_operations(448) + shape.decoder_operations(len(prompt.prefix), suffixes))


def measure_cost(repeats: int) -> dict[str, Any]:
    """Time over that of scoring with four questions; in the same pass over the operations counted, too."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    asked = Pass()
    batches: dict[str, Callable[[], EncodedBatch]] = {
        "scoring": asked.scoring,
        **{f"same_{side}x{side}": partial(asked.same, side) for side in (2, 3)},
        **{f"own_{side}x{side}": partial(asked.own, side) for side in (2, 3)},
    }
    runs: dict[str, Callable[[], object]] = {name: partial(asked.answer, make) for name, make in batches.items()}
    taken = medians(runs, repeats, torch.device("cpu"))
    counted = {name: asked.operations(make()) for name, make in batches.items()}
    found: dict[str, Any] = {}
    for name in list(batches)[1:]:
        measured = taken[name] / taken["scoring"]
        found[name] = {"measured": measured, "counted": counted[name] / counted["scoring"]}
    for side in (2, 3):
        same = found[f"same_{side}x{side}"]
        same["measured_over_counted"] = same["measured"] / same["counted"]
        found[f"own_{side}x{side}"]["images_per_s_over_scoring"] = 1 / found[f"own_{side}x{side}"]["measured"]
    return found


def measure(scenes: int, rubric: str | None, repeats: int) -> dict[str, Any]:
    cost = measure_cost(repeats) if repeats else {}
    grids = TARGET if scenes else {}
    return {**cost, **{f"cells_{side}x{side}": measure_scenes(scenes, side, rubric) for side in grids}}


def add_flags(parser: StrictParser) -> None:
    parser.add_argument("--scenes", type=int, default=900, help="scenes for each grid; 0: none (%(default)s)")
    parser.add_argument("--rubric", help="that the demo is asked along about the scenes (default: its own)")
    parser.add_argument("--repeats", type=int, default=7, help="of what is timed; 0: nothing is (%(default)s)")


if __name__ == "__main__":
    main("grounding", measure, add_flags)
