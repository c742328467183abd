"""Encoded bytes of one request -> groups of images ready for an assessor, each rejection in its place.

Headers first: they say what an image will cost, so that pixels are allocated only within the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iqa_core.images import preparing
from iqa_core.records import ImageHeader, PreparedShape, Preparer, Rejection

QUICK_BYTES = 8 * 1024
"""64 KiB of nothing but the heads of parts take 15 ms (TIFF: 95 ms)."""


@dataclass(frozen=True, slots=True)
class Probed:
    """An image of which the header is read and the pixels are not."""

    data: bytes
    header: ImageHeader
    shape: PreparedShape

    @property
    def pixels(self) -> int:
        """Held while it is decoded."""
        return max(self.header.width * self.header.height, self.prepared_pixels)

    @property
    def peak_bytes(self) -> int:
        """Held by whoever decodes it, at the highest: RGBA on white takes the most, 17 bytes a pixel."""
        return 2 * len(self.data) + 18 * self.header.width * self.header.height + 3 * self.prepared_pixels

    @property
    def prepared_pixels(self) -> int:
        """Held until it is answered."""
        return self.shape.width * self.shape.height


def is_quick(data: bytes) -> bool:
    """Whether its header is read in 2 ms at the most, whatever is in it: a small JPEG or PNG."""
    return len(data) <= QUICK_BYTES and data.startswith((b"\xff\xd8\xff", b"\x89PNG"))


def probe(data: bytes, preparer: Preparer) -> Probed | Rejection:
    """What an image will cost, or why it costs nothing."""
    found = preparing.probe(data, preparer)
    return found if isinstance(found, Rejection) else Probed(data, *found)


def groups(images: Sequence[Probed | Rejection], max_tokens: int, max_pixels: int) -> Iterator[list[int]]:
    """Places of the images that were not rejected, in groups that fit into one batch and into a budget of pixels."""
    group: list[int] = []
    tokens = pixels = 0
    for place, image in enumerate(images):
        if isinstance(image, Rejection):
            continue
        if group and (tokens + image.shape.tokens > max_tokens or pixels + image.pixels > max_pixels):
            yield group
            group, tokens, pixels = [], 0, 0
        group.append(place)
        tokens += image.shape.tokens
        pixels += image.pixels
    if group:
        yield group
