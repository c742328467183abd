"""A mask of a picture <-> COCO's run-length encoding, as a list of counts or as the compressed string.

Runs go down the columns, from left to right. The first counts pixels outside of the mask, and may be 0. The string has
5 bits of a count in each character; from the fourth count on it holds the difference to the one two before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 5
"""Of a count in one character; a sixth says that more follow."""
MORE = 1 << BITS
SIGN = MORE >> 1
FIRST = 48
"""Code of the character that stands for no bits: `0`."""


def counts_of(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask, outside and inside in turn; they sum to its pixels."""
    pixels = np.asarray(mask_HW, np.bool_).ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    return np.diff(changes, prepend=0, append=len(pixels)).tolist()


def mask_of(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask (H, W) of these runs. Raises ValueError where they do not fill the picture."""
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"runs of {sum(counts)} pixels are no mask of {height} x {width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def compressed(counts: Iterable[int]) -> str:
    """The counts as COCO's string."""
    counts = list(counts)
    steps = [count - counts[i - 2] if i > 2 else count for i, count in enumerate(counts)]
    return "".join(map(_characters, steps))


def decompressed(text: str) -> list[int]:
    """The counts of COCO's string. Raises ValueError on what is no such string."""
    steps: list[int] = []
    step = shift = 0
    for character in text:
        code = ord(character) - FIRST
        if not 0 <= code < 2 * MORE:
            raise ValueError(f"{character!r} is no character of compressed runs")
        step |= (code & (MORE - 1)) << shift
        shift += BITS
        if not code & MORE:
            steps.append(step - (1 << shift) if code & SIGN else step)
            step = shift = 0
    if shift:
        raise ValueError("the last count is cut off")
    counts: list[int] = []
    for i, step in enumerate(steps):
        counts.append(step + counts[i - 2] if i > 2 else step)
    return counts


def area_of(counts: Sequence[int]) -> int:
    """Pixels inside of the mask."""
    return sum(counts[1::2])


def box_of(counts: Sequence[int], height: int) -> tuple[int, int, int, int]:
    """x, y, width and height of the smallest box around the mask, zeros where it is empty. height: of the picture."""
    ends = list(accumulate(counts))
    runs = [(begin, end) for begin, end in zip(ends[0::2], ends[1::2], strict=False) if end > begin]
    if not runs:
        return 0, 0, 0, 0
    left, right = runs[0][0] // height, (runs[-1][1] - 1) // height
    crosses = any(begin // height != (end - 1) // height for begin, end in runs)  # from one column into the next
    top = 0 if crosses else min(begin % height for begin, _ in runs)
    bottom = height - 1 if crosses else max((end - 1) % height for _, end in runs)
    return left, top, right + 1 - left, bottom + 1 - top


def _characters(step: int) -> str:
    """A number of either sign, its lowest bits first."""
    characters = []
    while True:
        low, step = step & (MORE - 1), step >> BITS
        is_last = step == (-1 if low & SIGN else 0)
        characters.append(chr(FIRST + low + (0 if is_last else MORE)))
        if is_last:
            return "".join(characters)
