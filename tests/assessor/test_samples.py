"""The images that ship with the package: what they are is fixed, so that golden scores can hold."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from iqa_core.assessor.samples import FEW, SAMPLES, read_sample
from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.errors import CallerError

SEED = 2024


def test_every_sample_is_the_scene_that_its_name_says() -> None:
    for name in SAMPLES:
        scene = make_scene(SEED, int(name.removeprefix("room-")))
        np.testing.assert_array_equal(read_sample(name).pixels_HWC, scene.pixels_HWC)


def test_the_folder_holds_these_and_is_small() -> None:
    files = list(resources.files("iqa_core.assessor").joinpath("samples").iterdir())
    assert {file.name for file in files} == {f"{name}.png" for name in SAMPLES}
    assert sum(len(file.read_bytes()) for file in files) < 150_000


@pytest.mark.parametrize("names", [SAMPLES, SAMPLES[:FEW]])
def test_each_truth_goes_from_bad_to_good(names: tuple[str, ...]) -> None:
    truths = [make_scene(SEED, int(name.removeprefix("room-"))).truths for name in names]
    for dimension in DIMENSIONS:
        values = [truth[dimension] for truth in truths]
        assert max(values) - min(values) > 2.4, dimension


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(CallerError, match="room-0062"):
        read_sample("room-0000")
