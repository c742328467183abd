"""The formats that are read: a line each, in the order in which they are tried."""

from __future__ import annotations

from iqa_core.images.containers.avif import AVIF
from iqa_core.images.containers.bmp import BMP
from iqa_core.images.containers.container import Format
from iqa_core.images.containers.gif import GIF
from iqa_core.images.containers.jpeg import JPEG
from iqa_core.images.containers.png import PNG
from iqa_core.images.containers.tiff import TIFF
from iqa_core.images.containers.webp import WEBP

FORMATS: tuple[Format, ...] = (
    JPEG,
    PNG,
    WEBP,
    GIF,
    TIFF,
    BMP,
    AVIF,
)
