"""A seed -> a synthetic interior scene whose layout, harmony, lighting and distortion are known.

Each truth is drawn on its own, uniform in 1..5, and each is something one can see:

    layout       furniture upright on the floor and evenly spread  ..  floating, tilted, bunched, overlapping
    harmony      muted hues around one base                        ..  saturated hues from everywhere
    lighting     even                                              ..  dark, blown out, or steeply uneven
    distortion   clean                                             ..  wavy warp, 8-pixel block artefacts, noise

What is true of a scene as a whole, its quality, is the mean of the four.

Lengths are fractions of the image's side. Arithmetic is + - * / on float64 and integers (no sin, no matrix product),
so the same seed gives the same pixels on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from iqa_core.errors import CallerError
from iqa_core.records import FIVE_LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS = ("layout", "harmony", "lighting", "distortion")
MIN_SIZE = 64
"""Pixels; below it a lamp is two pixels wide and the layout cannot be seen."""

NUM_PIECES = 5
_SUPERSAMPLE = 2
_BLOCK = 8
_HORIZON = 0.58
"""Where the wall meets the floor, from the top."""

_Box = tuple[float, float, float, float]
_Rgb = tuple[float, float, float]


class Light(StrEnum):
    """What is wrong with a scene's light."""

    DARK = "dark"
    BRIGHT = "bright"
    UNEVEN = "uneven"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a scene shows that words can tell, and that is large enough to be seen: a rug is 45 pixels of 112 wide."""

    hues: Mapping[str, float]
    """Wall, floor and rug -> hue in turns, 0..1 from red over green and blue to red."""
    window: float
    """Middle of the window, from the left."""
    light: Light
    """Of which there is too much; how much, the truth of its lighting says."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and what is true of it."""

    pixels_HWC: NDArray[np.uint8]
    truths: Mapping[str, float]
    """Dimension -> 1 (worst) to 5 (best)."""
    contents: Contents

    @property
    def quality(self) -> float:
        """What is true of it as a whole: the mean of the truths."""
        return sum(self.truths.values()) / len(self.truths)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A piece of furniture as boxes (left, bottom, right, top, shade) in its own unit square, y upwards."""

    width: float
    height: float
    boxes: tuple[tuple[float, float, float, float, float], ...]


FURNITURE = ("sofa", "chair", "table", "lamp", "bookcase", "chest", "plant")
_KINDS = (
    _Kind(0.26, 0.19, ((0.05, 0, 0.13, 0.2, 0.5), (0.87, 0, 0.95, 0.2, 0.5), (0.08, 0.4, 0.92, 1, 0.85),
                       (0, 0.15, 1, 0.5, 1), (0, 0.15, 0.12, 0.7, 0.75), (0.88, 0.15, 1, 0.7, 0.75))),  # sofa
    _Kind(0.13, 0.25, ((0.05, 0, 0.17, 0.45, 0.5), (0.83, 0, 0.95, 0.45, 0.5), (0, 0.4, 1, 0.52, 1),
                       (0.05, 0.5, 0.18, 1, 0.7), (0.05, 0.75, 0.95, 1, 0.85), (0.82, 0.5, 0.95, 1, 0.7))),  # chair
    _Kind(0.24, 0.16, ((0.06, 0, 0.14, 0.85, 0.55), (0.86, 0, 0.94, 0.85, 0.55), (0, 0.8, 1, 1, 1))),  # table
    _Kind(0.12, 0.36, ((0.2, 0, 0.8, 0.05, 0.5), (0.44, 0.03, 0.56, 0.75, 0.5), (0, 0.72, 1, 1, 1.15))),  # lamp
    _Kind(0.17, 0.33, ((0, 0, 1, 1, 0.8), (0.1, 0.08, 0.9, 0.3, 0.5), (0.1, 0.38, 0.9, 0.6, 0.5),
                       (0.1, 0.68, 0.9, 0.92, 0.5), (0.2, 0.38, 0.45, 0.55, 1.1), (0.5, 0.68, 0.8, 0.84, 1.1))),  # case
    _Kind(0.2, 0.2, ((0, 0.06, 1, 1, 0.9), (0.06, 0.12, 0.94, 0.48, 0.65), (0.06, 0.56, 0.94, 0.92, 0.65),
                     (0.42, 0.27, 0.58, 0.33, 1.2), (0.42, 0.71, 0.58, 0.77, 1.2))),  # chest
    _Kind(0.13, 0.27, ((0.25, 0, 0.75, 0.32, 0.6), (0.44, 0.3, 0.56, 0.6, 0.45), (0.05, 0.5, 0.6, 0.85, 0.9),
                       (0.4, 0.58, 0.95, 0.92, 1), (0.25, 0.72, 0.75, 1, 0.95))),  # plant
)  # fmt: skip


def make_scene(seed: int, index: int, size: int = 112, *, intact: bool = False) -> Scene:
    """The scene of that seed and index: `size` x `size` pixels, about 2 ms at 112.

    `intact` leaves its distortion out, and that truth is 5 then. Raises CallerError on a size below MIN_SIZE or a
    negative seed or index.
    """
    if size < MIN_SIZE:
        raise CallerError(f"a scene of {size} pixels is too small to show furniture; use --size {MIN_SIZE} or more")
    if seed < 0 or index < 0:
        raise CallerError(f"seed {seed}, index {index}: both must be 0 or more")
    rng, truths = _begin(seed, index)
    if intact:
        truths["distortion"] = float(FIVE_LEVELS.best)
    flaw = {name: flaw_of(truth) for name, truth in truths.items()}
    hues = _hues(rng, flaw["harmony"], count=NUM_PIECES + 4)
    colours = _palette(rng, flaw["harmony"], hues)
    canvas = Image.new("RGB", (size * _SUPERSAMPLE,) * 2)
    draw = ImageDraw.Draw(canvas)
    window = _draw_room(draw, rng, colours[NUM_PIECES:])
    _draw_furniture(draw, rng, flaw["layout"], colours[:NUM_PIECES], _shade(colours[NUM_PIECES + 1], 0.45))
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float64)
    pixels, light = _light(pixels, rng, flaw["lighting"])
    pixels = distorted(pixels, rng, flaw["distortion"])
    wall, floor, _, rug = map(float, hues[NUM_PIECES:])
    contents = Contents(MappingProxyType({"wall": wall, "floor": floor, "rug": rug}), window, light)
    return Scene(rounded(pixels), MappingProxyType(truths), contents)


def furniture_map(seed: int, index: int, size: int = 112) -> NDArray[np.uint8]:
    """What stands where in that scene before it is warped: 0 is the room, k is FURNITURE[k - 1]; (size, size)."""
    rng, truths = _begin(seed, index)
    harmony = flaw_of(truths["harmony"])
    colours = _palette(rng, harmony, _hues(rng, harmony, count=NUM_PIECES + 4))
    canvas = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(canvas)
    _draw_room(draw, rng, colours[NUM_PIECES:])  # for what it takes from rng
    _fill(draw, (0, 0, 1, 1), (0, 0, 0))
    kinds = deepcopy(rng).permutation(len(_KINDS))[:NUM_PIECES]
    # a shade darkens a channel, and 255 of it still differs from none: the three channels spell the kind in bits
    bits = [tuple(255.0 * (kind + 1 >> bit & 1) for bit in range(3)) for kind in kinds]
    _draw_furniture(draw, rng, flaw_of(truths["layout"]), bits, (0, 0, 0))
    return np.asarray((np.asarray(canvas) > 0) @ np.array([1, 2, 4]), dtype=np.uint8)


def flaw_of(truth: float) -> float:
    """0 (nothing wrong) to 1 (as bad as can be) for a truth of 5 to 1."""
    return (FIVE_LEVELS.best - truth) / (FIVE_LEVELS.best - FIVE_LEVELS.worst)


def rounded(pixels_HWC: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Pixels as bytes, those beyond black and white clipped."""
    return np.clip(pixels_HWC + 0.5, 0, 255).astype(np.uint8)


def _begin(seed: int, index: int) -> tuple[np.random.Generator, dict[str, float]]:
    """A scene's random numbers, behind the four that make its truths."""
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    width = FIVE_LEVELS.best - FIVE_LEVELS.worst
    drawn = zip(DIMENSIONS, rng.random(len(DIMENSIONS)), strict=True)
    return rng, {name: float(FIVE_LEVELS.worst + width * u) for name, u in drawn}


def _hues(rng: np.random.Generator, flaw: float, count: int) -> NDArray[np.float64]:
    """Hues evenly placed on an arc around one base, in random order: 20 degrees at best, the whole circle at worst."""
    arc = 0.055 + 0.945 * flaw
    places = (rng.permutation(count) + rng.random(count)) / count - 0.5
    hues: NDArray[np.float64] = (rng.random() + arc * places) % 1.0
    return hues


def _palette(rng: np.random.Generator, flaw: float, hues: NDArray[np.float64]) -> list[_Rgb]:
    """Colours of these hues: muted at best, saturated at worst."""
    values = 0.62 + 0.2 * rng.random(len(hues))
    return [_rgb(float(hue), 0.24 + 0.6 * flaw, float(value)) for hue, value in zip(hues, values, strict=True)]


def _rgb(hue: float, saturation: float, value: float) -> _Rgb:
    """HSV -> RGB in 0..255; all arguments in 0..1."""

    def channel(offset: float) -> float:
        k = (offset + 6 * hue) % 6
        return 255 * value * (1 - saturation * max(0.0, min(k, 4 - k, 1.0)))

    return channel(5), channel(3), channel(1)


def _shade(colour: _Rgb, factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue


def _draw_room(draw: ImageDraw.ImageDraw, rng: np.random.Generator, colours: Sequence[_Rgb]) -> float:
    """Wall, floor with boards, skirting, a window with curtains and its light on the floor, a rug.

    Returns the middle of the window, from the left.
    """
    wall, floor, curtain, rug = colours
    _fill(draw, (0, 0, 1, _HORIZON), _shade(wall, 1.15))
    _fill(draw, (0, _HORIZON, 1, 1), _shade(floor, 0.8))
    for board in range(-4, 5):  # boards run towards a vanishing point above the middle of the horizon
        _line(draw, (0.5 + 0.1 * board, _HORIZON), (0.5 + 0.24 * board, 1.0), _shade(floor, 0.7))
    left = 0.12 + 0.46 * rng.random()
    right, top, bottom = left + 0.3, 0.08, 0.36
    drift = 0.2 * (rng.random() - 0.5)
    spot = [
        (left + drift, 0.64),
        (right + drift, 0.64),
        (right + 2 * drift + 0.06, 0.8),
        (left + 2 * drift - 0.06, 0.8),
    ]
    _polygon(draw, spot, _shade(floor, 1.0))
    rug_left = 0.15 + 0.25 * rng.random()
    _polygon(
        draw,
        [(rug_left + 0.05, 0.84), (rug_left + 0.4, 0.84), (rug_left + 0.46, 0.95), (rug_left, 0.95)],
        _shade(rug, 1),
    )
    _fill(draw, (0, _HORIZON - 0.025, 1, _HORIZON), _shade(wall, 0.75))
    _fill(draw, (left - 0.015, top - 0.015, right + 0.015, bottom + 0.025), _shade(wall, 0.65))
    _fill(draw, (left, top, right, bottom), (214, 226, 236))
    _fill(draw, (left, (top + bottom) / 2 + 0.05, right, bottom), (168, 190, 170))
    _fill(draw, ((left + right) / 2 - 0.008, top, (left + right) / 2 + 0.008, bottom), _shade(wall, 0.65))
    for side in (left - 0.03, right - 0.03):
        _fill(draw, (side, top - 0.03, side + 0.06, bottom + 0.06), _shade(curtain, 0.95))
        _fill(draw, (side + 0.02, top - 0.03, side + 0.03, bottom + 0.06), _shade(curtain, 0.75))
    return float(left + right) / 2


def _draw_furniture(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    flaw: float,
    colours: Sequence[_Rgb],
    shadow: tuple[int, int, int],
) -> None:
    """Five different pieces; the flaw bunches them, tilts them up to 40 degrees and lifts them off their shadows."""
    kinds = [_KINDS[k] for k in rng.permutation(len(_KINDS))[:NUM_PIECES]]
    slots = 0.11 + 0.78 * (np.arange(NUM_PIECES) + 0.3 * (rng.random(NUM_PIECES) - 0.5)) / (NUM_PIECES - 1)
    bunch = 0.3 + 0.4 * rng.random()
    centres = slots + 0.85 * flaw * (bunch - slots)
    bases = 0.7 + 0.14 * rng.random(NUM_PIECES)
    lifts = flaw * (0.1 + 0.24 * (rng.permutation(NUM_PIECES) + rng.random(NUM_PIECES)) / NUM_PIECES)
    leans = flaw * (0.22 + 0.14 * rng.random(NUM_PIECES)) * rng.choice((-1.0, 1.0), NUM_PIECES)
    for piece in np.argsort(bases):  # far ones first
        centre, base, kind = float(centres[piece]), float(bases[piece]), kinds[piece]
        half = 0.5 * kind.width
        _ellipse(draw, (centre - 1.1 * half, base - 0.018, centre + 1.1 * half, base + 0.018), shadow)
        _draw_piece(draw, kind, centre, base - float(lifts[piece]), float(leans[piece]), colours[piece])


def _draw_piece(draw: ImageDraw.ImageDraw, kind: _Kind, centre: float, base: float, lean: float, colour: _Rgb) -> None:
    """`lean` is the tangent of half the tilt, so that its sine and cosine need no library."""
    cos, sin = (1 - lean * lean) / (1 + lean * lean), 2 * lean / (1 + lean * lean)
    for left, bottom, right, top, shade in kind.boxes:
        corners = []
        for u, v in ((left, bottom), (right, bottom), (right, top), (left, top)):
            x, y = (u - 0.5) * kind.width, (0.5 - v) * kind.height
            corners.append((centre + cos * x - sin * y, base - 0.5 * kind.height + sin * x + cos * y))
        _polygon(draw, corners, _shade(colour, shade))


def _light(pixels_HWC: NDArray[np.float64], rng: np.random.Generator, flaw: float) -> tuple[NDArray[np.float64], Light]:
    """A room with soft corners; the flaw makes it dark, blown out, or bright at one side and black at the other."""
    size = len(pixels_HWC)
    across = (np.arange(size) + 0.5) / size - 0.5
    fall = across[None, :] * (1.0 if rng.random() < 0.5 else -1.0) + across[:, None] * (rng.random() - 0.5)
    corners = 1.0 - 0.25 * (across[None, :] ** 2 + across[:, None] ** 2)
    fault = tuple(Light)[int(rng.integers(3))]
    if fault is Light.DARK:
        gain, lift = corners * (1 - 0.74 * flaw), 0.0
    elif fault is Light.BRIGHT:
        gain, lift = corners * (1 + 0.7 * flaw), 60.0 * flaw
    else:
        gain, lift = corners * np.maximum(0.08, 1 + 1.9 * flaw * fall), 0.0
    return np.clip(pixels_HWC * gain[:, :, None] + lift, 0, 255), fault


def distorted(pixels_HWC: NDArray[np.float64], rng: np.random.Generator, flaw: float) -> NDArray[np.float64]:
    """Warp of up to 4 % of the side, 8-pixel blocks mixed in up to 60 %, noise of up to 36 grey levels."""
    size = len(pixels_HWC)
    steps = np.arange(size)
    shifts = [0.04 * size * flaw * _wave(steps * (3 + 2 * rng.random()) / size + rng.random()) for _ in range(2)]
    rows = np.clip(steps[:, None] + np.floor(shifts[0] + 0.5)[None, :], 0, size - 1).astype(np.intp)
    columns = np.clip(steps[None, :] + np.floor(shifts[1] + 0.5)[:, None], 0, size - 1).astype(np.intp)
    warped = pixels_HWC[rows, columns]
    mixed = warped + 0.6 * flaw * (_blocks(warped) - warped)
    noise = rng.integers(-128, 128, (size, size, 3), dtype=np.int16).astype(np.float64) * (36.0 / 128)
    return mixed + flaw * noise


def _wave(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """A wave of period 1 in -1..1 made of parabolas: within 6 % of a sine."""
    x = 2 * (phase % 1.0) - 1
    return 4 * x * (1 - np.abs(x))


def _blocks(pixels_HWC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every 8 x 8 block replaced by its mean; a last block that is cut by the border counts what it has."""
    starts = np.arange(0, len(pixels_HWC), _BLOCK)
    counts = np.diff(np.append(starts, len(pixels_HWC)))
    sums = np.add.reduceat(np.add.reduceat(pixels_HWC, starts, axis=0), starts, axis=1)
    means = sums / (counts[:, None] * counts[None, :])[:, :, None]
    return np.asarray(means.repeat(counts, axis=0).repeat(counts, axis=1))


def _pixels(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    width, height = draw.im.size
    return [(int(x * width + 0.5), int(y * height + 0.5)) for x, y in points]


def _fill(draw: ImageDraw.ImageDraw, box: _Box, colour: tuple[int, int, int]) -> None:
    (left, top), (right, bottom) = _pixels(draw, [box[:2], box[2:]])
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)


def _ellipse(draw: ImageDraw.ImageDraw, box: _Box, colour: tuple[int, int, int]) -> None:
    draw.ellipse(_pixels(draw, [box[:2], box[2:]]), fill=colour)


def _line(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    draw.line(_pixels(draw, [start, end]), fill=colour, width=_SUPERSAMPLE)


def _polygon(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    draw.polygon(_pixels(draw, points), fill=colour)
