"""A seed and an index -> a scene with one flaw in one place, and a row that says where: a truth to locate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iqa_core.demo.flaws import FlawedScene, cell, make_flawed_scene
from iqa_core.grounding.boxes import Box

FLAWS = "flaws.jsonl"
_GRIDS = (2, 3)
_STREAM = 78
"""Sets the random numbers of a place apart from those of the scene and its flaw."""


def make_placed_scene(seed: int, index: int, size: int) -> FlawedScene:
    """That flawed scene with its flaw in a cell of 2 x 2 or 3 x 3, each as likely as the others of its grid."""
    rng = np.random.Generator(np.random.PCG64([seed, index, _STREAM]))
    grid = _GRIDS[rng.integers(len(_GRIDS))]
    row, column = (int(part) for part in rng.integers(grid, size=2))
    return make_flawed_scene(seed, index, size, region=cell(row, column, grid))


def place_of(made: FlawedScene) -> dict[str, Any]:
    """What is wrong and where; the box's pixels are those of the flaw's mask, and no others."""
    box = Box.around(made.mask_HW)
    assert box is not None, "a cell of a scene of 64 pixels and more has some"
    x, y, width, height = box
    place = {"x": x, "y": y, "width": width, "height": height}
    return {"box_id": "flaw", "label": made.flaw.kind, **place, "strength": round(made.flaw.strength, 4)}


def write_places(output: Path, places: Sequence[Mapping[str, Any]]) -> None:
    """Write flaws.jsonl, a line per image. places: what `place_of` says, with the image's `source` and `key`."""
    (output / FLAWS).write_text("".join(json.dumps(place) + "\n" for place in places), encoding="utf-8")
