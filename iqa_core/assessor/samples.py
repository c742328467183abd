"""A name -> one of ten small rooms that ship with the package: what a checkpoint is tried on before it is trusted.

Synthetic scenes (seed 2024, the number in the name is the index), chosen so that each of the four truths goes from bad
to good. They are stored, not drawn anew: a golden score must not hang on a version of the library that draws.
"""

from __future__ import annotations

from importlib import resources

from iqa_core.errors import CallerError
from iqa_core.images import decode
from iqa_core.records import ImageLimits, RgbImage

SAMPLES = tuple(f"room-{index:04d}" for index in (62, 617, 975, 130, 170, 190, 199, 246, 728, 1244))
"""The first few differ as much as ten do: warped and noisy, clean and bright, dark."""

FEW = 3
"""How many of them a quick look takes."""


def read_sample(name: str) -> RgbImage:
    """The image, 112 x 112. Raises CallerError on a name that is not in SAMPLES."""
    if name not in SAMPLES:
        raise CallerError(f"no bundled image {name!r}; there are {', '.join(SAMPLES)}")
    data = resources.files("iqa_core.assessor").joinpath("samples", f"{name}.png").read_bytes()
    image = decode(data, ImageLimits())
    assert isinstance(image, RgbImage)
    return image
