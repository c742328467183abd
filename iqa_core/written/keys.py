"""What a sample is a function of -> the key of the noise by which its tokens are drawn. No torch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOISE = "gumbel-splitmix64-1"
"""Name of the noise; part of the fingerprint of sampled answers, and another one whenever its values change."""


def key_of(*parts: str | int) -> int:
    """A signed key of 64 bits: the first 8 bytes of a SHA-256 over the parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def sample_keys(fingerprint: str, pixels_HWC: NDArray[np.uint8], samples: int, seed: int) -> list[int]:
    """Keys of an image's samples: of its pixels as they are prepared, and of nothing else that is in the batch."""
    digest = hashlib.sha256(repr(pixels_HWC.shape).encode())
    digest.update(pixels_HWC.tobytes())
    image = digest.hexdigest()
    return [key_of(fingerprint, image, number, seed) for number in range(samples)]
