"""A checkpoint that promises scores -> loading holds it to them.

Tests iqa_core/assessor/golden.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores, read_manifest, save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import TOLERANCE, differences, sample_scores
from iqa_core.assessor.load import describe, golden_of, load, own_limits
from iqa_core.assessor.manifest_writing import write_manifest
from iqa_core.assessor.protocol import Assessor
from iqa_core.assessor.samples import FEW, SAMPLES
from iqa_core.errors import CallerError
from iqa_core.questions import own_scales
from iqa_core.records import ImageLimits, Reason, Rejection
from tests.unlike import RUBRIC, TOML

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sealed(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "checkpoint"
    shutil.copytree(qwen, folder)
    write_manifest(folder, "interior-v2", "float32", limits=ImageLimits(min_side=16), threads=1)
    return folder


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Path:
    """A sealed checkpoint to be changed."""
    return Path(shutil.copytree(sealed, tmp_path / "checkpoint"))


def open_folder(folder: Path, rubric: str | None = None, **settings: Any) -> Assessor:
    config = AssessorConfig(checkpoint=str(folder), threads=1, **settings)
    return load(describe(config, rubric, own_limits(config)), config)


def manifest_of(folder: Path) -> CheckpointManifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def spoil(folder: Path, dimension: str, by: float) -> None:
    manifest = manifest_of(folder)
    first = manifest.golden[0]
    scores = {**first.scores, dimension: min(5.0, max(1.0, first.scores[dimension] + by))}
    golden = (GoldenScores(image=first.image, scores=scores), *manifest.golden[1:])
    save_manifest(folder, manifest.model_copy(update={"golden": golden}))


def test_a_sealed_checkpoint_says_what_it_is_and_loads(sealed: Path) -> None:
    manifest = manifest_of(sealed)
    assert [entry.image for entry in manifest.golden] == list(SAMPLES[:FEW])
    assert manifest.image_limits == ImageLimits(min_side=16)
    assert open_folder(sealed).preparer.limits == ImageLimits(min_side=16)
    config = AssessorConfig(checkpoint=str(sealed))
    assert dict(describe(config, None, own_limits(config)).fingerprint_parts) == manifest.fingerprint


def test_other_scores_than_promised_are_refused_with_image_and_numbers(folder: Path) -> None:
    expected = manifest_of(folder).golden[0].scores["layout"]
    spoil(folder, "layout", 0.002 if expected < 3 else -0.002)
    with pytest.raises(CallerError, match=r"room-0062: layout is \d\.\d{4}, expected \d\.\d{4} within 0\.001"):
        open_folder(folder)


def test_a_difference_within_the_tolerance_is_none(folder: Path) -> None:
    expected = manifest_of(folder).golden[0].scores["layout"]
    spoil(folder, "layout", 0.0005 if expected < 3 else -0.0005)
    assert open_folder(folder).rubric.id == "interior-v2"


@pytest.mark.parametrize(
    ("rubric", "settings"), [("interior-v1", {}), (None, {"dtype": "bfloat16"}), (None, {"max_pixels": 5000})]
)
def test_a_flag_that_changes_scores_puts_the_promise_out_of_force(
    folder: Path, rubric: str | None, settings: dict[str, Any]
) -> None:
    spoil(folder, "layout", 1.0 if manifest_of(folder).golden[0].scores["layout"] < 3 else -1.0)
    config = AssessorConfig(checkpoint=str(folder), **settings)
    assert golden_of(describe(config, rubric, ImageLimits())) == ()
    config = AssessorConfig(checkpoint=str(folder))
    assert golden_of(describe(config, None, ImageLimits())), "limits of encoded images change no score"


def test_files_that_assessor_toml_was_not_written_for_are_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(CallerError, match=r"not what its assessor\.toml was written for \(SHA-256 of tokenizer"):
        open_folder(folder)


def test_an_image_that_does_not_ship_is_refused(folder: Path) -> None:
    golden = (GoldenScores(image="room-0000", scores={"layout": 3.0}),)
    save_manifest(folder, manifest_of(folder).model_copy(update={"golden": golden}))
    with pytest.raises(CallerError, match="no bundled image 'room-0000'"):
        open_folder(folder)


def test_a_rejection_and_other_dimensions_are_differences() -> None:
    golden = [GoldenScores(image=image, scores={"layout": 3.0}) for image in ("a", "b", "c")]
    found: dict[str, Any] = {
        "a": Rejection(Reason.ASSESSOR_FAILED, "not finite"),
        "b": {"fun": 3.0},
        "c": {"layout": 3.0},
    }
    said = list(differences(golden, found, "float32"))
    assert len(said) == 2
    assert "rejected" in said[0]
    assert "layout, not of fun" in said[1]
    assert list(differences(golden[2:], {"c": {"layout": float("nan")}}, "float32")), "a score that is no number"


def test_bfloat16_keeps_its_promise_within_its_own_tolerance(qwen: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "rounded"))
    manifest = write_manifest(folder, "interior-v2", "bfloat16", threads=1)
    again = sample_scores(open_folder(folder), SAMPLES[:FEW])
    assert list(differences(manifest.golden, again, "bfloat16")) == []
    assert TOLERANCE["bfloat16"] == 0.05


def test_each_range_has_its_share_of_the_tolerance(qwen: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "unlike"))
    (folder / "unlike.toml").write_text(TOML)
    manifest = write_manifest(folder, "unlike.toml", "float32", threads=1)
    assert manifest.ranges == {"shown": (0, 1), "noise": (10, 1), "things": (0, 1)}
    open_folder(folder)
    golden = [GoldenScores(image="a", scores={"shown": 0.5, "noise": 5.0, "layout": 3.0, "things": 0.5})]
    for name, by in {"shown": 2.4e-4, "noise": 2.2e-3, "layout": 9.9e-4, "things": 2.4e-4}.items():
        for times in (1, 1.1):
            scores = {**golden[0].scores, name: golden[0].scores[name] + times * by}
            said = list(differences(golden, {"a": scores}, "float32", own_scales(RUBRIC.columns)))
            assert len(said) == (times > 1), (name, said)
