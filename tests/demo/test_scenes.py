"""Scenes -> repeatable pixels whose four truths are uniform, independent, and there to be measured."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from iqa_core.demo.scenes import DIMENSIONS, Scene, make_scene
from iqa_core.errors import CallerError

pytestmark = pytest.mark.slow


GOLDEN_SHA256 = "ca492cdfbdb85d3f62c5ac1fdfe13a153f52be843b44561cb834732e63e5b8b5"
"""Pixels of seed 7, index 12, from the version of the generator that the shipped checkpoint was trained on."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(11, index) for index in range(400)]


def truths_of(scenes: list[Scene], name: str) -> np.ndarray:
    return np.array([scene.truths[name] for scene in scenes])


def correlation(scenes: list[Scene], measured: list[float], name: str) -> float:
    return float(spearmanr(measured, truths_of(scenes, name)).statistic)


def saturation(scene: Scene) -> float:
    """Mean over the pixels of (max - min) / max of the channels."""
    pixels = scene.pixels_HWC.astype(float)
    return float(((pixels.max(2) - pixels.min(2)) / (pixels.max(2) + 1)).mean())


def light_fault(scene: Scene) -> float:
    """How far the mean brightness of any of 4 x 4 fields of the wall and floor is from its usual value."""
    fields = scene.pixels_HWC.mean(2).reshape(4, 28, 4, 28).mean((1, 3))
    return float(np.abs(fields - 140).max())


def roughness(scene: Scene) -> float:
    """Median difference of neighbours in the upper corner, where the wall is plain."""
    corner = scene.pixels_HWC[:8].astype(float)
    return float(np.median(np.abs(np.diff(corner, axis=1))))


def floating(scene: Scene) -> float:
    """Upright edges above where furniture that stands on the floor is tall, relative to those at the floor."""
    edges = np.abs(np.diff(scene.pixels_HWC.astype(float).mean(2), axis=1))
    return float(edges[44:60].mean() / edges[66:90].mean())


def test_a_scene_is_the_same_in_every_version_of_this_code() -> None:
    assert hashlib.sha256(make_scene(7, 12).pixels_HWC.tobytes()).hexdigest() == GOLDEN_SHA256


def test_a_scene_is_the_same_in_another_process() -> None:
    code = "import hashlib; from iqa_core.demo.scenes import make_scene; s = make_scene(3, 4); "
    code += "print(hashlib.sha256(s.pixels_HWC.tobytes()).hexdigest(), dict(s.truths))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    scene = make_scene(3, 4)
    assert printed.strip() == f"{hashlib.sha256(scene.pixels_HWC.tobytes()).hexdigest()} {dict(scene.truths)}"


def test_seed_and_index_both_matter() -> None:
    digests = {make_scene(seed, index).pixels_HWC.tobytes() for seed in range(3) for index in range(3)}
    assert len(digests) == 9


@pytest.mark.parametrize("size", [64, 112, 150, 256])
def test_any_size_has_the_same_truths(size: int) -> None:
    scene = make_scene(5, 6, size)
    assert scene.pixels_HWC.shape == (size, size, 3)
    assert scene.pixels_HWC.dtype == np.uint8
    assert scene.truths == make_scene(5, 6).truths


def test_truths_are_in_range_and_uniform(scenes: list[Scene]) -> None:
    for name in DIMENSIONS:
        truths = truths_of(scenes, name)
        assert truths.min() >= 1
        assert truths.max() <= 5
        assert kstest(truths, "uniform", args=(1, 4)).pvalue > 0.01


def test_truths_are_independent(scenes: list[Scene]) -> None:
    table = np.corrcoef([truths_of(scenes, name) for name in DIMENSIONS])
    assert np.abs(table - np.eye(len(DIMENSIONS))).max() < 0.15  # 3 standard errors of 400 scenes


def test_harmony_is_seen_in_the_saturation(scenes: list[Scene]) -> None:
    assert correlation(scenes, [saturation(scene) for scene in scenes], "harmony") < -0.5


def test_lighting_is_seen_in_the_brightness(scenes: list[Scene]) -> None:
    assert correlation(scenes, [light_fault(scene) for scene in scenes], "lighting") < -0.5


def test_distortion_is_seen_in_the_roughness_of_the_wall(scenes: list[Scene]) -> None:
    assert correlation(scenes, [roughness(scene) for scene in scenes], "distortion") < -0.8


def test_layout_is_seen_in_what_floats(scenes: list[Scene]) -> None:
    intact = [scene for scene in scenes if scene.truths["distortion"] > 3]
    assert correlation(intact, [floating(scene) for scene in intact], "layout") < -0.4


@pytest.mark.parametrize(("seed", "index", "size"), [(1, 1, 63), (-1, 0, 112), (0, -1, 112)])
def test_what_is_out_of_bounds_is_the_callers_mistake(seed: int, index: int, size: int) -> None:
    with pytest.raises(CallerError):
        make_scene(seed, index, size)
