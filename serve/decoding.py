"""Encoded bytes of one request -> groups of images ready for an assessor, each rejection in its place.

Headers first: they say what an image will cost, so that pixels are allocated only within the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from iqa_core.images import preparing
from iqa_core.records import ImageHeader, PreparedShape, Preparer, Rejection


@dataclass(frozen=True, slots=True)
class Probed:
    """An image of which the header is read and the pixels are not."""

    data: bytes
    header: ImageHeader
    shape: PreparedShape

    @property
    def peak_bytes(self) -> int:
        """Held while it is decoded, at the most."""
        return 4 * self.header.width * self.header.height + self.prepared_bytes

    @property
    def prepared_bytes(self) -> int:
        """Held until it is answered."""
        return 3 * self.shape.width * self.shape.height


def probe(data: bytes | Rejection, preparer: Preparer) -> Probed | Rejection:
    """What an image will cost, or why it costs nothing."""
    if isinstance(data, Rejection):
        return data
    found = preparing.probe(data, preparer)
    return found if isinstance(found, Rejection) else Probed(data, *found)


def prepare(image: Probed, preparer: Preparer) -> Any | Rejection:
    """What the assessor takes, or the reason why there is nothing to take."""
    return preparing.prepare(image.data, preparer)


def groups(images: Sequence[Probed | Rejection], max_tokens: int, max_bytes: int) -> Iterator[list[int]]:
    """Places of the images that were not rejected, in groups that fit into one batch and into a budget of memory.

    One that is above a bound by itself is a group of its own.
    """
    group: list[int] = []
    tokens = size = 0
    for place, image in enumerate(images):
        if isinstance(image, Rejection):
            continue
        if group and (tokens + image.shape.tokens > max_tokens or size + image.peak_bytes > max_bytes):
            yield group
            group, tokens, size = [], 0, 0
        group.append(place)
        tokens += image.shape.tokens
        size += image.peak_bytes
    if group:
        yield group
