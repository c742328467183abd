"""How often the worst cell is the one that was spoilt, by the demo assessor, and what views cost a tiny Qwen2.5-VL.

Scenes that are clean but for one flaw, of a kind in turn and of strength .3 to 1, in a random cell of 2 x 2 or 3 x 3,
all from a seed that nothing was trained on. `hits` asks the dimension that the flaw belongs to, which a user does not
know. Beside it what `unknown` gives: always the same dimension, the one with the larger fall, and the sum of both; then
chance, the cell with the most Laplacian energy, and the rate where the mirrored scene's worst cell is the mirror image
of the scene's.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.assessor import Engine, medians, pictures
from benchmarks.harness import main
from iqa_core.agreement.measures import wilson
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.encoders.views import with_views
from iqa_core.demo.flaws import KINDS, LIGHTING_KINDS, FlawedScene, cell, make_flawed_scene
from iqa_core.flags import StrictParser
from iqa_core.grounding.locating import Located, locate
from iqa_core.grounding.tokens import TokenGrid

SEED, MIN_STRENGTH = 1_000_022, 0.3
TARGET = {2: 0.62, 3: 0.33}


def scenes(count: int, side: int) -> Iterator[tuple[FlawedScene, tuple[int, int]]]:
    """Scenes and the row and column of the spoilt cell."""
    rng, index, found = np.random.default_rng(side), 0, 0
    while found < count:
        row, column = (int(part) for part in rng.integers(side, size=2))
        made = make_flawed_scene(SEED, index, region=cell(row, column, side), kind=KINDS[found % len(KINDS)])
        index += 1
        is_clean_elsewhere = not made.spoilt_HW2[~made.mask_HW][:, 0].any()
        if is_clean_elsewhere and made.flaw.strength >= MIN_STRENGTH:
            found += 1
            yield made, (row, column)


def dimension_of(kind: str) -> str:
    return "lighting" if kind in LIGHTING_KINDS else "distortion"


def located(assessor: Any, pixels_HWC: NDArray[np.uint8], side: int) -> dict[str, Located]:
    found = locate(assessor, np.ascontiguousarray(pixels_HWC), cells=side)
    assert isinstance(found, dict)
    return found


def unknown(found: dict[str, Located]) -> dict[str, tuple[int, int] | None]:
    """The worst cell by each way that needs no word of the flaw's dimension."""
    fell = max(found.values(), key=lambda one: one.falls.max())
    total = np.sum([one.falls for one in found.values()], axis=0)
    return {**{name: one.cell for name, one in found.items()}, "larger fall": fell.cell, "sum": largest_cell(total)}


def largest_cell(values_RC: NDArray[np.floating]) -> tuple[int, int]:
    row, column = np.unravel_index(int(values_RC.argmax()), values_RC.shape)
    return int(row), int(column)


def sharpest(pixels_HWC: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """The cell with the most Laplacian energy."""
    grey = pixels_HWC.mean(axis=2)
    edges = np.zeros_like(grey)
    edges[1:-1, 1:-1] = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    starts = np.arange(side) * len(grey) // side
    energy = np.add.reduceat(np.add.reduceat(edges**2, starts, axis=0), starts, axis=1)
    return largest_cell(energy)


def measure_hits(count: int, side: int) -> dict[str, Any]:
    assessor = load_assessor("demo", threads=1)
    hits, filtered = defaultdict[str, list[bool]](list), defaultdict[str, list[bool]](list)
    others, mirrored, largest = defaultdict[str, list[bool]](list), list[bool](), 0.0
    for made, truth in scenes(count, side):
        kind, pixels = made.flaw.kind, made.scene.pixels_HWC
        both, name = located(assessor, pixels, side), dimension_of(kind)
        found = both[name]
        hits[kind].append(found.cell == truth)
        for way, cell_found in unknown(both).items():
            others[way].append(cell_found == truth)
        filtered[kind].append(sharpest(pixels, side) == truth)
        other = located(assessor, pixels[:, ::-1], side)[name]
        mirrored.append(mirror_image(other.cell, side) == found.cell)
        largest = max(largest, abs(found.score - ordinary(assessor, pixels, name)))
    total = sum(map(sum, hits.values()))
    return {
        "hits": total / count,
        "interval": wilson(total, count),
        "asked": TARGET[side],
        "unknown": {way: float(np.mean(own)) for way, own in others.items()},
        "chance": 1 / side**2,
        "laplacian": sum(map(sum, filtered.values())) / count,
        "mirror": float(np.mean(mirrored)),
        "by_kind": {kind: (float(np.mean(own)), wilson(sum(own), len(own))[0]) for kind, own in hits.items()},
        "laplacian_by_kind": {kind: float(np.mean(own)) for kind, own in filtered.items()},
        "largest_difference_of_whole": largest,
    }


def mirror_image(cell_found: tuple[int, int] | None, side: int) -> tuple[int, int] | None:
    return cell_found and (cell_found[0], side - 1 - cell_found[1])


def ordinary(assessor: Any, pixels_HWC: NDArray[np.uint8], name: str) -> float:
    [result] = assess_images(assessor, [pixels_HWC])
    return float(result.scores_K[assessor.rubric.names.index(name)])  # type: ignore[union-attr]


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
        token = self.engine.encoder.image_token
        assert token is not None
        return with_views(self.scoring(), token, [[self.grid.everything, *self.grid.cells(side)]] * 2, [0])

    def same(self, side: int) -> EncodedBatch:
        """Four dimensions of the whole image, and one of its cells."""
        token = self.engine.encoder.image_token
        assert token is not None
        whole = with_views(self.scoring(), token, [[self.grid.everything]] * 2, [0, 1, 2, 3])
        cells = with_views(self.scoring(), token, [self.grid.cells(side)] * 2, [0])
        joined = []
        for a, b in zip(whole.prompts, cells.prompts, strict=True):
            assert a.views is not None
            assert b.views is not None
            joined.append(replace(a, suffixes=a.suffixes + b.suffixes, views=a.views + b.views))
        return replace(whole, prompts=tuple(joined))

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


def measure(count: int, repeats: int) -> dict[str, Any]:
    cost = measure_cost(repeats)
    return {**cost, **{f"cells_{side}x{side}": measure_hits(count, side) for side in TARGET}}


def add_flags(parser: StrictParser) -> None:
    parser.add_argument("--count", type=int, default=900, help="scenes for each grid (%(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="of what is timed (%(default)s)")


if __name__ == "__main__":
    main("grounding", measure, add_flags)
