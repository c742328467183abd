"""A seed and a count -> scenes with all that is known of them, half of them flawed, as the base's training draws them.

Arrays: N images, H height, W width, C channels, K dimensions, R rows and S columns of the grid of visual tokens, F what
is known of each token: shares spoilt (distortion, lighting), mean colour, and the furniture that one sees there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.demo.blueprint import MERGE, PATCH, SIZE
from iqa_core.demo.captions import COLOURS, UNCLEAR
from iqa_core.demo.flaws import EVERYWHERE, LIGHTING_KINDS, FlawedScene, make_flawed_scene
from iqa_core.demo.prompts import SURFACES
from iqa_core.demo.scenes import (
    DIMENSIONS,
    FURNITURE,
    Scene,
    flaw_of,
    furniture_map,
    make_scene,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRID = SIZE // PATCH // MERGE
SPOILT, COLOUR, THINGS = slice(0, 2), slice(2, 5), slice(5, 5 + len(FURNITURE))
FACTS = THINGS.stop
UNKNOWN = -1
CLEAR_STRENGTH, HARDLY_FLAWED = 0.3, 0.1
"""Questions about a place are asked of flaws that one can see, and "none" is the answer of scenes nearly without."""
LEAST_THING = 0.02
"""Sum over the tokens of a thing's shares above which it is in the picture: 16 pixels of 112 x 112."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """N scenes and what is known of them."""

    images_NHWC: torch.Tensor
    """uint8."""
    truths_NK: torch.Tensor
    facts_NRSF: torch.Tensor
    """Shares are in 0..1, colours -2..2."""
    places_N3: torch.Tensor
    """Index of the answer to each of PLACES, UNKNOWN where it cannot be told."""
    hues_N3: torch.Tensor
    """Of SURFACES, in turns."""
    window_N: torch.Tensor
    """Its middle, from the left."""

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def pick(self, picks: torch.Tensor, mirrored: torch.Tensor) -> Lessons:
        """Those scenes, some mirrored: left is right then, for each token and in the answers as well."""
        images, facts, places = self.images_NHWC[picks], self.facts_NRSF[picks], self.places_N3[picks]
        images[mirrored], facts[mirrored] = images[mirrored].flip(2), facts[mirrored].flip(2)
        columns, window = places[:, 2], self.window_N[picks]
        places[:, 2] = torch.where(mirrored & (columns != UNKNOWN), 2 - columns, columns)
        window = torch.where(mirrored, 1 - window, window)
        return Lessons(images, self.truths_NK[picks], facts, places, self.hues_N3[picks], window)

    def sample(self, count: int) -> Lessons:
        """Random scenes, half of them mirrored."""
        return self.pick(torch.randint(len(self), (count,)), torch.rand(count) < 0.5)

    def sample_places(self, count: int) -> Lessons:
        """As `sample`, of scenes whose extent is known: half with a distorted part, a quarter whole, a quarter none."""
        extents, shares = self.places_N3[:, 0], torch.tensor([0.25, 0.5, 0.25])
        weights = (shares / extents[extents != UNKNOWN].bincount(minlength=3))[extents]
        picks = torch.multinomial(weights * (extents != UNKNOWN), count, replacement=True)
        return self.pick(picks, torch.rand(count) < 0.5)

    def statements_NS2(self) -> torch.Tensor:
        """Weights of no and yes for each of STATEMENTS; both where a thing stands in the middle, none where unclear."""
        return torch.cat([self._furniture_NS2(), self._colours_NS2(), self._window_N22()], dim=1)

    def _furniture_NS2(self) -> torch.Tensor:
        shares_NSF = self.facts_NRSF[..., THINGS].sum(1)
        total_NF = shares_NSF.sum(1)
        there = (total_NF > LEAST_THING).float()
        places = (torch.arange(GRID) + 0.5) / GRID
        middle_NF = (shares_NSF * places[:, None]).sum(1) / total_NF.clamp(min=1e-6)
        right = ((middle_NF - 0.45) / 0.1).clamp(0, 1)
        true_NS = torch.cat([there, there * (1 - right), there * right], dim=1)
        return torch.stack([1 - true_NS, true_NS], dim=-1)

    def _colours_NS2(self) -> torch.Tensor:
        """Yes within a twelfth of a turn, no beyond a quarter; one of six is right, so that yes weighs more."""
        names = torch.arange(len(COLOURS)) / len(COLOURS)
        apart_N3C = ((self.hues_N3[..., None] - names + 0.5) % 1 - 0.5).abs()
        no, yes = apart_N3C > 0.25, apart_N3C < 0.5 / len(COLOURS)
        return torch.stack([no.float(), 3 * yes.float()], dim=-1).flatten(1, 2)

    def _window_N22(self) -> torch.Tensor:
        """Left and right; neither near the picture's middle."""
        left, right = (self.window_N < 0.5 - UNCLEAR).float(), (self.window_N > 0.5 + UNCLEAR).float()
        return torch.stack([torch.stack([right, left], dim=-1), torch.stack([left, right], dim=-1)], dim=1)


def render(seed: int, indices: range, *, flawed: bool = False) -> Lessons:
    """Those scenes of a seed, as they are or with a flaw each; 5 ms a scene."""
    count = len(indices)
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    truths, places = np.empty((count, len(DIMENSIONS)), dtype=np.float32), np.empty((count, 3), dtype=np.int64)
    facts = np.empty((count, GRID, GRID, FACTS), dtype=np.float32)
    hues, window = np.empty((count, len(SURFACES)), dtype=np.float32), np.empty(count, dtype=np.float32)
    for n, index in enumerate(indices):
        made = make_flawed_scene(seed, index, SIZE) if flawed else None
        scene = made.scene if made else make_scene(seed, index, SIZE)
        images[n], truths[n] = scene.pixels_HWC, [scene.truths[name] for name in DIMENSIONS]
        facts[n] = _facts(scene, made, furniture_map(seed, index, SIZE))
        places[n], window[n] = _places(scene, made), scene.contents.window
        hues[n] = [scene.contents.hues[surface] for surface in SURFACES]
    return Lessons(*(torch.from_numpy(array) for array in (images, truths, facts, places, hues, window)))


def joined(*parts: Lessons) -> Lessons:
    """All scenes of the parts, one after the other."""
    return Lessons(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Lessons)))


def _facts(scene: Scene, flawed: FlawedScene | None, things_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(R, S, F)."""
    spoilt = [flaw_of(scene.truths[name]) for name in ("distortion", "lighting")]
    spoilt_HW2 = flawed.spoilt_HW2 if flawed else np.broadcast_to(np.array(spoilt, dtype=np.float32), (SIZE, SIZE, 2))
    things_HWF = things_HW[..., None] == np.arange(1, len(FURNITURE) + 1)
    colours = (scene.pixels_HWC.astype(np.float32) - 128) / 64
    return np.concatenate([_by_token(part) for part in (spoilt_HW2, colours, things_HWF)], axis=-1)


def _by_token(values_HWF: NDArray[np.generic]) -> NDArray[np.float32]:
    """Means over the pixels of each visual token."""
    side = SIZE // GRID
    return values_HWF.reshape(GRID, side, GRID, side, -1).mean((1, 3), dtype=np.float32)


def _places(scene: Scene, flawed: FlawedScene | None) -> tuple[int, int, int]:
    """Answers to PLACES: extent, row, column."""
    if flawed is None:
        distortion = flaw_of(scene.truths["distortion"])
        return 0 if distortion < HARDLY_FLAWED else 2 if distortion > CLEAR_STRENGTH else UNKNOWN, UNKNOWN, UNKNOWN
    flaw = flawed.flaw
    if flaw.kind in LIGHTING_KINDS or flaw.strength < CLEAR_STRENGTH:
        return UNKNOWN, UNKNOWN, UNKNOWN
    if flaw.region == EVERYWHERE:
        return 2, UNKNOWN, UNKNOWN
    if flawed.spoilt_HW2[..., 0].min() > 0:  # distorted everywhere by itself, and more so in one place
        return UNKNOWN, UNKNOWN, UNKNOWN
    middles = (flaw.region.top + flaw.region.bottom) / 2, (flaw.region.left + flaw.region.right) / 2
    return 1, int(3 * middles[0]), int(3 * middles[1])
