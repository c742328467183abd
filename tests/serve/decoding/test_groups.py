"""What of an image is read on the event loop: so little that nobody waits for it."""

from __future__ import annotations

import pytest

from serve.decoding.groups import QUICK_BYTES, is_quick
from tests.corpora import tiny_png
from tests.images.test_inspection import COSTLY, cost_s


@pytest.mark.parametrize("kind", ["jpeg segments", "jpeg fill bytes", "png chunks", "png pieces"])
def test_the_header_of_an_image_that_is_quick_is_read_in_milliseconds(kind: str) -> None:
    pieces = max(number for number in range(100, 2_100, 25) if is_quick(COSTLY[kind](number)))
    assert len(COSTLY[kind](pieces)) > 0.9 * QUICK_BYTES
    assert cost_s(COSTLY[kind](pieces), 0.01, tries=8) <= 0.01


@pytest.mark.parametrize("kind", ["tiff pages", "bmp runs", "gif blocks", "comments"])
def test_only_jpeg_and_png_are_quick(kind: str) -> None:
    assert not is_quick(COSTLY[kind](100))
    assert is_quick(tiny_png(1))
