"""What an image does to a model's preparer: that image's rejection, the same from its header and from its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iqa_core.images.preparing import PREPARED_BYTES, Preparable, prepare, probe
from iqa_core.records import ImageHeader, ImageLimits, PreparedShape, Reason, Rejection, RgbImage
from tests.bad_images import HEIGHT, WIDTH, bad_images, encoded, picture

HEADER = ImageHeader(WIDTH, HEIGHT, "png", 1)
PNG = encoded(picture(), "PNG")


@dataclass(frozen=True)
class Preparer:
    """Every picture in so many rows."""

    rows: Any = 8
    limits: ImageLimits = ImageLimits()

    def shape(self, header: ImageHeader) -> PreparedShape:
        return PreparedShape(self.rows + 0, header.width, 5)

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        return len(texts)

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        return image.pixels_HWC[: self.rows]


def test_an_image_is_probed_and_prepared() -> None:
    found = probe(PNG, Preparer())
    assert isinstance(found, Preparable)
    assert (found.probe.header, found.probe.shape) == (HEADER, PreparedShape(8, WIDTH, 5))
    np.testing.assert_array_equal(prepare(PNG, Preparer()), np.asarray(picture())[:8])


def test_what_a_header_does_to_a_preparer_is_said_of_it_in_either_way() -> None:
    raised = Rejection(Reason.CORRUPT, "preparing it failed with TypeError", HEADER)
    assert probe(PNG, Preparer(rows="8")) == prepare(PNG, Preparer(rows="8")) == raised
    rows = PREPARED_BYTES // (WIDTH * 3) + 1
    for found in (probe(PNG, Preparer(rows)), prepare(PNG, Preparer(rows))):
        assert isinstance(found, Rejection)
        assert found.reason is Reason.TOO_LARGE
        assert str(rows * WIDTH * 3) in found.detail
        assert found.header == HEADER
    assert not isinstance(probe(PNG, Preparer(rows - 1)), Rejection)


def test_what_preparing_would_hold_is_bounded_and_counted() -> None:
    class Wide(Preparer):
        work_bytes: int = 0

        def shape(self, header: ImageHeader) -> PreparedShape:
            return PreparedShape(8, header.width, 5, self.work_bytes)

    preparer = Wide()
    plain = probe(PNG, preparer)
    assert isinstance(plain, Preparable)
    assert plain.probe.peak_bytes > 7 * WIDTH * HEIGHT, "Pillow's picture and the pixels"
    Wide.work_bytes = PREPARED_BYTES
    counted = probe(PNG, preparer)
    assert isinstance(counted, Preparable)
    assert counted.probe.peak_bytes == 3 * WIDTH * HEIGHT + PREPARED_BYTES
    Wide.work_bytes += 1
    for found in (probe(PNG, preparer), prepare(PNG, preparer)):
        assert isinstance(found, Rejection)
        assert found.reason is Reason.TOO_LARGE
        assert str(PREPARED_BYTES + 1) in found.detail


def test_pixels_that_a_preparer_cannot_take_are_the_images_matter() -> None:
    class Raising(Preparer):
        def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
            raise OverflowError

    assert prepare(PNG, Raising()) == Rejection(Reason.CORRUPT, "preparing it failed with OverflowError", HEADER)
    assert not isinstance(probe(PNG, Raising()), Rejection)


def test_what_is_wrong_with_a_file_stays_what_it_is() -> None:
    for bad in bad_images()[:40]:
        if isinstance(probed := probe(bad.data, Preparer()), Rejection):
            assert prepare(bad.data, Preparer()) == probed


def test_what_the_header_alone_does_to_a_preparer_comes_before_damaged_pixels() -> None:
    damaged = [bad.data for bad in bad_images() if isinstance(probe(bad.data, Preparer()), Preparable)]
    damaged = [data for data in damaged if isinstance(prepare(data, Preparer()), Rejection)]
    assert damaged
    for data in damaged:
        found = prepare(data, Preparer(rows="8"))
        assert found == probe(data, Preparer(rows="8"))
        assert isinstance(found, Rejection)
        assert found.detail == "preparing it failed with TypeError"


def test_the_state_of_the_machine_is_no_rejection() -> None:
    class Poor(Preparer):
        def shape(self, header: ImageHeader) -> PreparedShape:
            raise MemoryError

    for call in (probe, prepare):
        with pytest.raises(MemoryError):
            call(PNG, Poor())
