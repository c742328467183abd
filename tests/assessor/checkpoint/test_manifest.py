"""assessor.toml: what is written is read again, and what breaks a rule is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores, read_manifest, save_manifest
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits

HEAD = 'rubric = "interior-v2"\nprompt_version = 2\ndtype = "float32"\n'
GOLDEN = '[[golden]]\nimage = "room-0062"\nscores = { layout = 2.5 }\n'


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    manifest = CheckpointManifest(
        rubric='my "own".toml',
        prompt_version=3,
        dtype="bfloat16",
        max_pixels=6272,
        domain='Drawings of "rooms".',
        trained_on="level",
        limits={"min_side": 16},
        fingerprint={"weights": "ab", "image_limits": "min_side=16"},
        calibration=Calibration(
            rubric='my "own"',
            rubric_sha256="ab" * 32,
            images=40,
            curves={"layout": ((1.0, 2.25, 5.0), (1.5, 2.0, 4.125)), "harmony": ((1.0, 5.0), (1.0, 4.0))},
        ),
        golden=(GoldenScores(image="room-0062", scores={"layout": 2.5, "harmony": 4.9321}),),
    )
    save_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert manifest.image_limits == ImageLimits(min_side=16)
    assert [path.name for path in tmp_path.iterdir()] == ["assessor.toml"]


def test_what_is_at_its_default_is_not_written() -> None:
    assert CheckpointManifest(rubric="interior-v2", prompt_version=2, dtype="float32").to_toml() == HEAD


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[limits]\nmin_sid = 3", "min_sid"),
        ("[limits]\nmin_side = 0", "greater than or equal to 1"),
        (GOLDEN, "need the .fingerprint."),
        ('[fingerprint]\nweights = "ab"\n' + GOLDEN.replace("2.5", "5.5"), "less than or equal to 5"),
        ('trained_on = "words"', "trained_on"),
        ("[calibration]\nimages = 0", "calibration.images: Input should be greater than or equal to 1"),
    ],
)
def test_what_breaks_a_rule_is_refused(tmp_path: Path, more: str, message: str) -> None:
    (tmp_path / "assessor.toml").write_text(HEAD + more)
    with pytest.raises(CallerError, match=message):
        read_manifest(tmp_path)


def test_no_file_is_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


def test_golden_scores_lie_in_the_ranges_that_stand_beside_them(tmp_path: Path) -> None:
    golden = (GoldenScores(image="room-0062", scores={"shown": 0.25, "noise": 9.5, "layout": 5.0}),)
    head = CheckpointManifest(
        rubric="unlike.toml", prompt_version=1, dtype="float32", fingerprint={"weights": "ab"},
        ranges={"shown": (0, 1), "noise": (10, 1)}, golden=golden,
    )  # fmt: skip
    save_manifest(tmp_path, head)
    assert read_manifest(tmp_path) == head
    file = tmp_path / "assessor.toml"
    for good, bad in (("0.2500", "1.5"), ("9.5000", "0.5"), ("5.0000", "5.5")):
        file.write_text(head.to_toml().replace(good, bad))
        with pytest.raises(CallerError, match="should be greater than or equal to"):
            read_manifest(tmp_path)
