"""A checkpoint of a written rubric that promises numbers and texts -> loading holds it to the numbers first.

Tests iqa_core/assessor/golden.py and iqa_core/assessor/manifest_writing.py as far as texts go.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, read_manifest, save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import sample_results
from iqa_core.assessor.load import describe, golden_of, load
from iqa_core.assessor.manifest_writing import _golden, write_manifest
from iqa_core.assessor.protocol import Assessor
from iqa_core.assessor.samples import FEW, SAMPLES
from iqa_core.errors import CallerError, RunError
from iqa_core.records import Assessment, ImageLimits
from iqa_core.rubrics import load_any_rubric
from iqa_core.written.judging import NOT_FINITE
from tests.inspection.speaking import WRITING, save_writing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_writing(tmp_path_factory.mktemp("sealed"))
    write_manifest(folder, "writing.toml", "float32", threads=1)
    return folder


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Path:
    """A sealed checkpoint to be changed."""
    return Path(shutil.copytree(sealed, tmp_path / "checkpoint"))


def open_folder(folder: Path) -> Assessor:
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    return load(describe(config, None, ImageLimits()), config)


def promise(folder: Path, *, of: int, **changes: Any) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    golden = [*manifest.golden]
    golden[of] = golden[of].model_copy(update=changes)
    save_manifest(folder, manifest.model_copy(update={"golden": tuple(golden)}))


def test_numbers_and_texts_of_bundled_images_are_promised_and_kept(
    sealed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(sealed)
    assert manifest is not None
    assert [entry.image for entry in manifest.golden] == list(SAMPLES[:FEW])
    digests = {hashlib.sha256(f"Q: {entry.scores['quality']:.0f}".encode()).hexdigest() for entry in manifest.golden}
    assert {entry.text_sha256 for entry in manifest.golden} == digests
    open_folder(sealed)
    assert "in other words" not in caplog.text


def test_another_text_with_the_same_numbers_is_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    promise(folder, of=1, text_sha256="0" * 64)
    open_folder(folder)
    assert f"writes in other words about {SAMPLES[1]}\n" in caplog.text


def test_numbers_come_first(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    promise(folder, of=1, scores={"quality": 1.5}, text_sha256="0" * 64)
    with pytest.raises(CallerError, match=rf"{SAMPLES[1]}: quality is \d\.0000, expected 1\.5000 within 0\.001"):
        open_folder(folder)
    assert "in other words" not in caplog.text


def test_another_dtype_puts_the_promise_out_of_force_and_another_rendering_does_not(folder: Path) -> None:
    rounded = AssessorConfig(checkpoint=str(folder), dtype="bfloat16")
    assert golden_of(describe(rounded, None, ImageLimits())) == ()
    manifest = read_manifest(folder)
    assert manifest is not None
    save_manifest(folder, manifest.model_copy(update={"fingerprint": {**manifest.fingerprint, "prompt_tokens": "old"}}))
    config = AssessorConfig(checkpoint=str(folder))
    assert golden_of(describe(config, None, ImageLimits())) == manifest.golden


@pytest.mark.parametrize(
    ("dtype", "decoding"), [("bfloat16", ""), ("float32", "temperature = 1.0\n"), ("float32", 'stop = ["Q"]\n')]
)
def test_texts_that_may_differ_elsewhere_or_say_nothing_are_not_promised(
    dtype: Any, decoding: str, folder: Path
) -> None:
    """Rounded, drawn, or such that none is parsed."""
    (folder / "writing.toml").write_text(WRITING + decoding)
    manifest: CheckpointManifest = write_manifest(folder, "writing.toml", dtype, threads=1)
    assert manifest.golden == ()
    assert manifest.fingerprint["dtype"] == dtype
    open_folder(folder)


def calibration_of(folder: Path) -> Calibration:
    rubric = load_any_rubric(str(folder / "writing.toml"))
    return Calibration(
        rubric=rubric.id, rubric_sha256=rubric.digest, images=50, curves={"quality": ((1, 5), (1.5, 3.5))}
    )


def test_a_calibrated_checkpoint_promises_and_gives_the_scores_of_its_curves(sealed: Path, folder: Path) -> None:
    """In the words of one that is not calibrated, also where answers are drawn; not under another rubric."""
    plain = read_manifest(sealed)
    calibration = calibration_of(folder)
    manifest = write_manifest(folder, "writing.toml", "float32", calibration=calibration, threads=1)
    assert plain is not None
    assert manifest == read_manifest(folder)
    for old, new in zip(plain.golden, manifest.golden, strict=True):
        assert new.scores["quality"] == pytest.approx(1.5 + (old.scores["quality"] - 1) / 2)
        assert new.text_sha256 == old.text_sha256
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    parts = describe(config, None, ImageLimits()).fingerprint_parts
    assert parts == plain.fingerprint | {"calibration": calibration.digest}
    assert golden_of(describe(config, None, ImageLimits())) == manifest.golden
    (folder / "other.toml").write_text(WRITING.replace("layout of this room", "room"))
    other = describe(config, str(folder / "other.toml"), ImageLimits())
    assert other.calibration is None
    assert "calibration" not in other.fingerprint_parts
    (folder / "drawn.toml").write_text(f"{WRITING}samples = 4\ntemperature = 2.0\n")
    drawn = {}
    for name, place in (("plain", sealed), ("calibrated", folder)):
        config = AssessorConfig(checkpoint=str(place), threads=1)
        spec = describe(config, str(folder / "drawn.toml"), ImageLimits())
        [(_, drawn[name])] = sample_results(load(spec, config), SAMPLES[:1]).items()
    before, after = drawn["plain"], drawn["calibrated"]
    assert isinstance(before, Assessment)
    assert isinstance(after, Assessment)
    assert before.written == after.written
    assert after.scores_K == pytest.approx(1.5 + (before.scores_K - 1) / 2)
    assert after.stds_K == pytest.approx(before.stds_K / 2)


def test_a_calibration_that_assessor_toml_was_not_written_with_is_refused(folder: Path) -> None:
    manifest = write_manifest(folder, "writing.toml", "float32", calibration=calibration_of(folder), threads=1)
    assert manifest.calibration is not None
    edited = manifest.calibration.model_copy(update={"curves": {"quality": ((1, 5), (1, 5))}})
    plain = write_manifest(folder, "writing.toml", "float32", threads=1)
    for written, calibration in ((manifest, edited), (manifest, None), (plain, edited)):
        save_manifest(folder, written.model_copy(update={"calibration": calibration}))
        with pytest.raises(CallerError, match=r"not what its assessor\.toml was written for \(SHA-256 of calibration"):
            describe(AssessorConfig(checkpoint=str(folder)), None, ImageLimits())


def test_a_calibration_of_another_rubric_is_not_written_down(folder: Path) -> None:
    other = calibration_of(folder).model_copy(update={"rubric": "other"})
    with pytest.raises(CallerError, match=r"fitted under another rubric than writing\.toml"):
        write_manifest(folder, "writing.toml", "float32", calibration=other, threads=1)


def test_a_model_that_fails_is_no_promise() -> None:
    with pytest.raises(RunError, match="a gets no score: the model returned"):
        list(_golden({"a": NOT_FINITE}, ["quality"]))
