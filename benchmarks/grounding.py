"""What views cost a tiny Qwen2.5-VL, and how often they find what was spoilt (grounding_scenes.py)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.assessor import LEVEL_IDS, Engine, medians, pictures
from benchmarks.grounding_scenes import TARGET, measure_scenes
from benchmarks.harness import main
from iqa_core.assessor.encoders.base import EncodedBatch, PromptTokens
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.level_head import LevelColumns
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.preparing.preparers import SmartResizePreparer, TokenCost
from iqa_core.flags import StrictParser
from iqa_core.grounding.batches import Viewable, assess_and_ground_each, ground_each
from iqa_core.grounding.boxes import Box
from iqa_core.records import Assessment, ImageLimits, Rejection
from iqa_core.rubrics import load_rubric

NAMES = ("lighting",)
"""Asked about parts, of the four dimensions of the rubric."""
SIDE = 448
PARTS: dict[str, tuple[int, tuple[Box, ...]]] = {
    "2x2": (2, ()),
    "3x3": (3, ()),
    "2x2_and_box": (2, (Box(112, 112, 168, 168),)),
}
"""Cells along a side, and boxes."""


class KeepsBatch(PackedSequences):
    """Packed sequences that can be counted after they were asked."""

    prompts: Sequence[PromptTokens] = ()

    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        self.prompts = batch.prompts
        return super().logits(batch)


class Pass:
    """An assessor with four questions of 30 tokens, two images at 448 x 448, and the operations that one takes."""

    def __init__(self) -> None:
        engine = Engine("tiny", torch.device("cpu"), torch.float32, [30] * 4)
        strategy = KeepsBatch.of(engine.model, [engine.encoder])
        assert strategy is not None
        rubric = load_rubric("interior-v2")
        preparer = SmartResizePreparer(ImageLimits(), TokenCost.of(rubric), SIDE**2, 28**2, 28, 3)
        columns = LevelColumns([LEVEL_IDS] * len(rubric.questions), LEVEL_IDS)
        self.assessor = TransformersAssessor(engine.model, rubric, preparer, engine.encoder, columns, strategy, 8192)
        self.images, self.shape, self.strategy = pictures(2, SIDE), engine.shape, strategy

    def scoring(self) -> object:
        return self.assessor.assess(self.images)

    def own(self, parts: str) -> object:
        """The whole image and its parts, one dimension."""
        return ground_each(self.assessor, self._viewable(parts), NAMES, PARTS[parts][0])

    def same(self, parts: str) -> object:
        """Four dimensions of the whole image, and one of its parts."""
        return assess_and_ground_each(self.assessor, self._viewable(parts), NAMES, PARTS[parts][0])

    def _viewable(self, parts: str) -> list[Viewable]:
        return [Viewable(pixels, SIDE, SIDE, PARTS[parts][1]) for pixels in self.images]

    def operations(self, run: Callable[[], object]) -> float:
        """Of the tower and the packed decoder for one image, all of the prefix counted for each question."""
        run()
        assert len(self.strategy.prompts) == len(self.images), "all images are one batch"
        prompt = self.strategy.prompts[0]
        suffixes = [len(suffix) for suffix in prompt.suffixes]
        return self.shape.tower_operations(SIDE) + self.shape.decoder_operations(len(prompt.prefix), suffixes)

    def largest_difference(self) -> float:
        """Of an image's score beside its parts from the score without them."""
        expected = _scores(self.assessor.assess(self.images))
        beside = [
            assess_and_ground_each(self.assessor, self._viewable(parts), NAMES, side)
            for parts, (side, _) in PARTS.items()
        ]
        return max(float(np.abs(_scores([one for one, _ in found]) - expected).max()) for found in beside)


def _scores(results: Sequence[Assessment | Rejection]) -> NDArray[np.float32]:
    return np.stack([result.scores_K for result in results if isinstance(result, Assessment)])


def measure_cost(repeats: int) -> dict[str, Any]:
    """Time of all that the assessor does over that of scoring; in the same pass over the operations counted, too."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    asked = Pass()
    runs: dict[str, Callable[[], object]] = {
        "scoring": asked.scoring,
        **{f"same_{parts}": partial(asked.same, parts) for parts in PARTS},
        **{f"own_{parts}": partial(asked.own, parts) for parts in PARTS},
    }
    taken = medians(runs, repeats, torch.device("cpu"))
    counted = {name: asked.operations(run) for name, run in runs.items()}
    found: dict[str, Any] = {"largest_difference": asked.largest_difference()}
    for name in list(runs)[1:]:
        measured = taken[name] / taken["scoring"]
        found[name] = {"measured": measured, "counted": counted[name] / counted["scoring"]}
    for parts in PARTS:
        same, own = found[f"same_{parts}"], found[f"own_{parts}"]
        same["measured_over_counted"] = same["measured"] / same["counted"]
        own["images_per_s_over_scoring"] = 1 / own["measured"]
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
