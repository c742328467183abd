"""Encoded bytes of one request -> groups of images ready for an assessor, each rejection in its place.

Headers first: they say what an image will cost, so that pixels are allocated only within the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iqa_core.grounding.question import LocalQuestion
from iqa_core.images import preparing
from iqa_core.records import FreeQuestion, ImageHeader, PreparedShape, Preparer, Rejection

QUICK_BYTES = 8 * 1024
"""Bytes of a file that is probed on the event loop: 64 KiB of nothing but heads of parts take 15 ms (TIFF: 95 ms)."""


@dataclass(frozen=True, slots=True)
class Probed:
    """An image of which the header is read and the pixels are not."""

    data: bytes
    header: ImageHeader
    shape: PreparedShape
    peak_bytes: int
    """Memory held while it is decoded and prepared."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Slot of the rubric -> what the image is asked about with."""
    question: FreeQuestion | LocalQuestion | None = None
    """What it is asked instead of the rubric's questions about the whole image."""
    text_tokens: int = 0
    """What texts and question cost beside the image."""

    @classmethod
    def of(cls, data: bytes, found: preparing.Probe) -> Probed:
        """An image with its probe, which was made in this process or in a decoder."""
        return cls(data, found.header, found.shape, found.peak_bytes)

    @property
    def tokens(self) -> int:
        """What assessing it costs."""
        return self.shape.tokens + self.text_tokens

    @property
    def prepared_bytes(self) -> int:
        """Memory held until it is answered."""
        return 3 * self.shape.width * self.shape.height


def is_quick(data: bytes) -> bool:
    """Whether its header is read in 2 ms at the most, whatever is in it: a small JPEG or PNG."""
    return len(data) <= QUICK_BYTES and data.startswith((b"\xff\xd8\xff", b"\x89PNG"))


def probe(data: bytes, preparer: Preparer) -> Probed | Rejection:
    """What an image will cost, or why it costs nothing."""
    found = preparing.probe(data, preparer)
    return found if isinstance(found, Rejection) else Probed.of(data, found.probe)


def groups(
    images: Sequence[Probed | Rejection], max_tokens: int, max_images: int, max_bytes: int
) -> Iterator[list[int]]:
    """Places of the images that were not rejected, in groups that fit into one batch and into a budget of memory.

    One that is above a bound by itself is a group of its own.
    """
    group: list[int] = []
    tokens = size = 0
    for place, image in enumerate(images):
        if isinstance(image, Rejection):
            continue
        is_full = len(group) == max_images or tokens + image.tokens > max_tokens or size + image.peak_bytes > max_bytes
        if group and is_full:
            yield group
            group, tokens, size = [], 0, 0
        group.append(place)
        tokens += image.tokens
        size += image.peak_bytes
    if group:
        yield group
