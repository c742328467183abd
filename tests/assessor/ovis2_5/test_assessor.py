"""A released checkpoint through the whole assessor: described, prepared, loaded, scored."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import Ovis2_5Preparer, make_preparer
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, ImageHeader, ImageLimits, RgbImage
from iqa_core.rubrics import load_rubric
from tests.assessor.other_device import moved, other_device
from tests.assessor.ovis2_5.golden import DIMENSIONS, FOLDER, Golden, rubric_toml
from tests.assessor.tiny import make_images

pytestmark = pytest.mark.slow

ROOT = FOLDER.parents[2]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint with an assessor.toml and its rubric."""
    folder = Path(shutil.copytree(FOLDER, tmp_path_factory.mktemp("ovis") / "checkpoint"))
    (folder / "golden.toml").write_text(rubric_toml())
    (folder / "assessor.toml").write_text('rubric = "golden.toml"\nprompt_version = 1\ndtype = "float32"\n')
    return folder


@pytest.fixture(scope="session")
def assessor(folder: Path) -> TransformersAssessor:
    loaded = load(spec_of(folder), AssessorConfig(checkpoint=str(folder), threads=1))
    assert isinstance(loaded, TransformersAssessor)
    return loaded


def spec_of(folder: Path, **settings: Any) -> AssessorSpec:
    return describe(AssessorConfig(checkpoint=str(folder), threads=1, **settings), None, ImageLimits())


def as_image(picture: Image.Image) -> RgbImage:
    return RgbImage(np.asarray(picture), ImageHeader(picture.width, picture.height, "png", 1))


def test_scores_are_the_golden_ones(assessor: TransformersAssessor, golden: Golden) -> None:
    """Through the reader's preparer, the prompts of the rubric, a batch of unlike sizes; two of the four images."""
    cases = (0, 3)
    pixels = [assessor.preparer.prepare(as_image(golden.pictures[i])) for i in cases]
    for result, case in zip(assessor.assess(pixels), [golden.cases[i] for i in cases], strict=True):
        assert isinstance(result, Assessment)
        k = DIMENSIONS.index(case["dimension"])
        np.testing.assert_allclose(result.scores_K[k], case["score"], atol=1e-4)
        best_first = case["probabilities"]
        np.testing.assert_allclose(result.probs_K[k], best_first[::-1], atol=1e-4)


def test_logits_of_another_device_are_the_same(
    folder: Path, assessor: TransformersAssessor, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where no tensor may be left behind on the CPU."""
    pixels = [assessor.preparer.prepare(as_image(golden.pictures[i])) for i in (0, 3)]
    expected = assessor.level_logits(pixels)
    model = load_model(folder, "float32", "cpu", 1)
    with other_device(monkeypatch):
        asked = [(assessor.rubric, assessor.preparer)]
        [there] = TransformersAssessor.over(moved(model), load_processor(folder), asked, 10_000)
        found = there.level_logits(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_readers_prepare_what_the_processor_would(folder: Path, golden: Golden) -> None:
    preparer = spec_of(folder).preparer
    assert pickle.loads(pickle.dumps(preparer)) == preparer
    processor = golden.processor.image_processor
    for image in make_images((61, 97), (500, 500), (20, 300), (1500, 1700)):
        prepared = preparer.prepare(image)
        shape = preparer.shape(image.header)
        assert prepared.shape == (shape.height, shape.width, 3)
        np.testing.assert_array_equal(prepared, np.asarray(processor.resized(Image.fromarray(image.pixels_HWC))))


def test_tokens_are_counted_by_blocks_of_32_pixels(folder: Path) -> None:
    preparer = spec_of(folder).preparer
    small, large = (preparer.shape(ImageHeader(side, side, "png", 1)).tokens for side in (448, 512))
    assert large - small == 256 - 196


def test_max_pixels_replaces_the_bound(folder: Path) -> None:
    preparer = spec_of(folder, max_pixels=512 * 512).preparer
    assert isinstance(preparer, Ovis2_5Preparer)
    assert preparer.shape(ImageHeader(2000, 2000, "png", 1)).height == 512
    with pytest.raises(CallerError, match=r"200703 is below .* 200704"):
        spec_of(folder, max_pixels=200_703)


def test_bounds_of_the_processors_file_reach_the_readers(folder: Path, tmp_path: Path) -> None:
    bounded = Path(shutil.copytree(folder, tmp_path / "bounded"))
    settings = json.loads((bounded / "preprocessor_config.json").read_text())
    (bounded / "preprocessor_config.json").write_text(
        json.dumps({**settings, "min_pixels": 4096, "max_pixels": 16384, "resample": 3})
    )
    preparer = make_preparer(bounded, load_rubric("interior-v2"), ImageLimits(), None)
    assert isinstance(preparer, Ovis2_5Preparer)
    assert (preparer.min_pixels, preparer.max_pixels, preparer.resample) == (4096, 16384, 3)


def test_code_beside_the_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "coded"))
    for name in ("configuration_ovis2_5.py", "modeling_ovis2_5.py"):
        (copy / name).write_text("raise SystemExit('this ran')")
    config = AssessorConfig(checkpoint=str(copy), threads=1)
    assert load(describe(config, None, ImageLimits()), config).rubric.id == "golden"


def test_bfloat16_stays_close(assessor: TransformersAssessor, folder: Path) -> None:
    rounded = load(spec_of(folder, dtype="bfloat16"), AssessorConfig(checkpoint=str(folder), threads=1))
    pixels = [assessor.preparer.prepare(image) for image in make_images((448, 448))]
    for exact, close in zip(assessor.assess(pixels), rounded.assess(pixels), strict=True):
        assert isinstance(exact, Assessment)
        assert isinstance(close, Assessment)
        np.testing.assert_allclose(close.scores_K, exact.scores_K, atol=0.05)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"vit_config": {"patch_size": 14}}, "patch_size is 14"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize"),
    ],
)
def test_a_checkpoint_of_another_make_is_refused(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    content = json.loads((other / file).read_text())
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    (other / file).write_text(json.dumps(content))
    with pytest.raises(CallerError, match=message):
        load(spec_of(other), AssessorConfig(checkpoint=str(other), threads=1))


@pytest.mark.slow
def test_code_that_lies_in_the_checkpoint_is_neither_run_nor_asked_about(folder: Path, tmp_path: Path) -> None:
    """In a process of its own: what another test registered must not help."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('this code was run')")
    lines = f"from iqa_core.assessor.direct import load_assessor; load_assessor({str(copy)!r}, threads=1)"
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout + done.stderr
