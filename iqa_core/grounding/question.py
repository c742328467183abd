"""What is asked about the parts of one image."""

from __future__ import annotations

from dataclasses import dataclass

from iqa_core.grounding.boxes import Box


@dataclass(frozen=True, slots=True)
class LocalQuestion:
    """Which parts of an image are asked about, and in which dimensions."""

    names: tuple[str, ...]
    """In the rubric's order."""
    cells: int
    """Along each side of the image."""
    boxes: tuple[Box, ...] = ()
    """In pixels of the upright image."""

    @property
    def num_views(self) -> int:
        """Parts that are asked about at most, the whole image among them."""
        return 1 + self.cells**2 + len(self.boxes)
