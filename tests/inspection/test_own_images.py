"""A folder of images -> some of them, and their pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from iqa_core.errors import CallerError
from iqa_core.inspection.own_images import images_in, read_bounded
from iqa_core.records import ImageLimits, Reason, Rejection


def test_images_are_taken_evenly_and_a_useless_request_is_refused(tmp_path: Path) -> None:
    for index in range(10):
        (tmp_path / f"{index}.png").touch()
    (tmp_path / "notes.txt").touch()
    assert [path.name for path in images_in(tmp_path, 4, "--ladder")] == ["0.png", "3.png", "6.png", "9.png"]
    assert len(images_in(tmp_path, 99, "--ladder")) == 10
    for folder, limit, message in ((tmp_path / "no", 3, "--ladder .*no folder"), (tmp_path, 0, "--limit 0")):
        with pytest.raises(CallerError, match=message):
            images_in(folder, limit, "--ladder")
    (tmp_path / "void").mkdir()
    with pytest.raises(CallerError, match="holds no image"):
        images_in(tmp_path / "void", 3, "--ladder")


def test_a_large_image_is_made_smaller_first(tmp_path: Path) -> None:
    Image.new("RGB", (2048, 1536), (9, 9, 9)).save(tmp_path / "large.png")
    pixels = read_bounded(tmp_path / "large.png", ImageLimits())
    assert not isinstance(pixels, Rejection)
    assert pixels.shape[0] * pixels.shape[1] <= 1024 * 1024
    assert pixels.shape[1] / pixels.shape[0] == pytest.approx(2048 / 1536, abs=0.01)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = [read_bounded(tmp_path / name, ImageLimits()) for name in ("cut.png", "none.png")]
    assert [one.reason for one in found if isinstance(one, Rejection)] == [Reason.TRUNCATED, Reason.MISSING]
