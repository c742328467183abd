"""Places of images -> small JPEGs as data URIs, read by their locators; what cannot be had is left out."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence

from PIL import Image

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.originals import Locator, originals
from iqa_core.errors import RunError
from iqa_core.images import decode
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.storage import Storage

SIDE = 128
"""Pixels of the longer side: 4 to 8 kB each, so 300 of them are about 2 MB."""

QUALITY = 72

PATIENCE_S = 120.0
"""Seconds after which the page is written without the pictures that are not there yet."""

MAX_OUTAGES = 3
"""Failed fetches, retries included, after which the store is taken to be out of reach."""


def thumbnails(
    storage: Storage, wanted: Sequence[Locator], options: ReadOptions, limits: ImageLimits, side: int = SIDE
) -> Mapping[Locator, str]:
    """Locator -> data URI. Neighbours are asked for together; only images that were scored are to be among them.

    side: the longer one, in pixels.
    """
    ordered = sorted(set(wanted), key=lambda locator: (locator.source, locator.offset or 0, locator.row or 0))
    found: dict[Locator, str] = {}
    outages, deadline = 0, time.monotonic() + PATIENCE_S
    try:
        for locator, data in zip(ordered, originals(storage, ordered, options, limits), strict=True):
            if isinstance(data, Rejection):
                outages += data.reason == Reason.FETCH_FAILED
            elif (small := thumbnail(data, limits, side)) is not None:
                found[locator] = small
            if outages == MAX_OUTAGES or time.monotonic() > deadline:
                break
    except RunError:  # credentials were refused: a report without pictures is still of use
        pass
    return found


def thumbnail(data: bytes, limits: ImageLimits, side: int = SIDE) -> str | None:
    """A small JPEG of an encoded image, as a data URI; None where it cannot be decoded. side: as above."""
    decoded = decode(data, limits)
    if isinstance(decoded, Rejection):
        return None
    image = Image.fromarray(decoded.pixels_HWC)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
