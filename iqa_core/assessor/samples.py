"""A name -> one of ten small rooms that ship with the package, on which a checkpoint is tried before it is trusted.

They are synthetic scenes (seed 2024, the number in the name is the index), chosen so that each of the four truths goes
from bad to good. They are stored, not drawn anew: golden scores must not depend on the version of the drawing library.
"""

from __future__ import annotations

from importlib import resources

from iqa_core.errors import CallerError
from iqa_core.images import decode
from iqa_core.records import ImageLimits, RgbImage

SAMPLES = tuple(f"room-{index:04d}" for index in (62, 617, 975, 130, 170, 190, 199, 246, 728, 1244))
"""Names of the bundled images. The first three differ as much as all ten: warped and noisy, clean and bright, dark."""

FEW = 3
"""Number of them, from the first on, that become golden scores by default."""


def read_sample(name: str) -> RgbImage:
    """The image, 112 x 112. Raises CallerError on a name that is not in SAMPLES."""
    if name not in SAMPLES:
        raise CallerError(f"no bundled image {name!r}; there are {', '.join(SAMPLES)}")
    data = resources.files("iqa_core.assessor").joinpath("samples", f"{name}.png").read_bytes()
    image = decode(data, ImageLimits())
    assert isinstance(image, RgbImage)
    return image
