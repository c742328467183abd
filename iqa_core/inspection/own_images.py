"""A folder of the user's images -> paths taken evenly from it, and the pixels of each, bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from iqa_core.assessor.direct import encoded
from iqa_core.assessor.preparing.preparers import resized, scaled_down
from iqa_core.corpus.sources import IMAGE_EXTENSIONS, extension
from iqa_core.errors import CallerError
from iqa_core.images import decode
from iqa_core.images.distortions import Pixels
from iqa_core.images.in_memory import ImageLike
from iqa_core.records import ImageLimits, Rejection

MAX_PIXELS = 1024 * 1024
"""A larger image is scaled down before it is spoilt: noise on 12 megapixels is gone when a model sees one of them."""


def images_in(folder: Path, limit: int, flag: str) -> list[Path]:
    """At most `limit` images below a folder, evenly from the sorted list.

    flag: that names the folder. Raises CallerError when there is no image.
    """
    if not folder.is_dir():
        raise CallerError(f"{flag} {folder} is no folder")
    if limit < 1:
        raise CallerError(f"--limit {limit} leaves no image; give 1 or more")
    found = sorted(path for path in folder.rglob("*") if extension(path.name) in IMAGE_EXTENSIONS)
    if not found:
        raise CallerError(f"{flag} {folder} holds no image ({', '.join(sorted(IMAGE_EXTENSIONS))})")
    picks = np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)
    return [found[i] for i in picks]


def read_bounded(image: ImageLike, limits: ImageLimits) -> Pixels | Rejection:
    """The image, scaled down to MAX_PIXELS, or why it cannot be read."""
    data = encoded(image)
    decoded = data if isinstance(data, Rejection) else decode(data, limits)
    if isinstance(decoded, Rejection):
        return decoded
    pixels_HWC = decoded.pixels_HWC
    height, width = scaled_down(pixels_HWC.shape[0], pixels_HWC.shape[1], MAX_PIXELS)
    return resized(pixels_HWC, height, width, Image.Resampling.BICUBIC)
