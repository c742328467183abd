"""A scene -> the same scene with one flaw of known kind and strength, everywhere or in one region, and its new truths.

What a flaw means for the truths of 1..5: each pixel has a share that is spoilt, 0..1, and the truth is 5 - 4 x its mean
over the picture. So a quarter that is ruined costs one point, and what is true of a part of the picture is the mean of
that part. A flaw upon a scene that has one already spoils what was left: 1 - (1 - before)(1 - flaw). Kinds that spoil
the light (`LIGHTING_KINDS`) count for lighting; all others, a cast of colour among them, for distortion: harmony is of
the colours that were chosen for the room, and does not change by what happened to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from iqa_core.demo.scenes import Scene, distorted, flaw_of, make_scene, rounded
from iqa_core.images.distortions import KINDS as LADDER_KINDS
from iqa_core.images.distortions import distort_by
from iqa_core.records import FIVE_LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIX = "mix"
"""Warp, blocks and noise together, as in the scenes themselves."""
KINDS = (MIX, *LADDER_KINDS)
LIGHTING_KINDS = frozenset({"darkening", "over-exposure"})
GRIDS = (2, 3, 4)
"""Rows, and columns, of the grids whose cells are regions: a quarter, a ninth or a sixteenth of the picture."""
MIN_STRENGTH = 0.1
_STREAM = 77
"""Sets the random numbers of a flaw apart from those of its scene, which stay what they were."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle; sides are fractions of the picture's."""

    left: float
    top: float
    right: float
    bottom: float

    def mask(self, size: int) -> NDArray[np.bool_]:
        """Pixels (size, size) whose centre lies inside."""
        centres = (np.arange(size) + 0.5) / size
        rows = (centres >= self.top) & (centres < self.bottom)
        return np.asarray(rows[:, None] & ((centres >= self.left) & (centres < self.right))[None, :])


EVERYWHERE = Region(0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong with a picture."""

    kind: str
    strength: float
    """0 (nothing) to 1 (ruined)."""
    region: Region


@dataclass(frozen=True, slots=True)
class FlawedScene:
    """A scene whose pixels and truths count its flaw in."""

    scene: Scene
    flaw: Flaw
    mask_HW: NDArray[np.bool_]
    """Where the flaw is."""
    spoilt_HW2: NDArray[np.float32]
    """Share of each pixel that is spoilt, for distortion and for lighting: the truths are 5 - 4 x their means."""


def cell(row: int, column: int, grid: int) -> Region:
    """One of the cells of a grid of `grid` x `grid`."""
    return Region(column / grid, row / grid, (column + 1) / grid, (row + 1) / grid)


def make_flawed_scene(
    seed: int, index: int, size: int = 112, *, region: Region | None = None, kind: str | None = None
) -> FlawedScene:
    """That scene with a flaw of random strength; where region or kind are not given, they are drawn too.

    Half of the scenes are free of distortion of their own. Raises CallerError as make_scene does, KeyError on a kind
    that is not in KINDS.
    """
    rng = np.random.Generator(np.random.PCG64([seed, index, _STREAM]))
    intact, drawn = bool(rng.random() < 0.5), _draw(rng)
    flaw = Flaw(kind or drawn.kind, drawn.strength, region or drawn.region)
    return _spoil(make_scene(seed, index, size, intact=intact), flaw, rng)


def _draw(rng: np.random.Generator) -> Flaw:
    """Everywhere in two of five; else a cell of a grid, so that each place is as likely as the others."""
    kind = KINDS[rng.integers(len(KINDS))]
    strength = MIN_STRENGTH + (1 - MIN_STRENGTH) * float(rng.random())
    everywhere, grid = rng.random() < 0.4, GRIDS[rng.integers(len(GRIDS))]
    row, column = (int(part) for part in rng.integers(grid, size=2))
    return Flaw(kind, strength, EVERYWHERE if everywhere else cell(row, column, grid))


def _spoil(scene: Scene, flaw: Flaw, rng: np.random.Generator) -> FlawedScene:
    mask_HW = flaw.region.mask(len(scene.pixels_HWC))
    pixels = np.where(mask_HW[..., None], _applied(scene.pixels_HWC, flaw, rng), scene.pixels_HWC)
    before = np.array([flaw_of(scene.truths[name]) for name in ("distortion", "lighting")])
    added = flaw.strength * np.array([flaw.kind not in LIGHTING_KINDS, flaw.kind in LIGHTING_KINDS])
    spoilt_HW2 = 1 - (1 - before) * (1 - mask_HW[..., None] * added)
    distortion, lighting = FIVE_LEVELS.best - (FIVE_LEVELS.best - FIVE_LEVELS.worst) * spoilt_HW2.mean((0, 1))
    truths = {**scene.truths, "lighting": float(lighting), "distortion": float(distortion)}
    return FlawedScene(
        replace(scene, pixels_HWC=pixels, truths=MappingProxyType(truths)), flaw, mask_HW, spoilt_HW2.astype(np.float32)
    )


def _applied(pixels_HWC: NDArray[np.uint8], flaw: Flaw, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The whole picture with it. Turned before and back after, so that a warp's waves begin in any of four ways."""
    turns = int(rng.integers(4))
    turned = np.ascontiguousarray(np.rot90(pixels_HWC, turns))
    if flaw.kind == MIX:
        spoilt = rounded(distorted(turned.astype(np.float64), rng, flaw.strength))
    else:
        spoilt = distort_by(turned, flaw.kind, flaw.strength, rng)
    return np.asarray(np.rot90(spoilt, -turns))
