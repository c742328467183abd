"""The seam: what the job, the endpoint and the tests know of an assessor, whichever model is behind it.

Assessor.preparer -> Preparer      runs where images are read: no torch, small, picklable
Preparer.shape(header) -> (h, w)   from the header alone, so that batches are fixed before anything is decoded
Preparer.prepare(image) -> uint8   resized pixels, ready to travel
Assessor.assess(pixels) -> one Assessment or Rejection per image, in order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from iqa_core.assessor.checkpoint.system_prompt import SystemPrompt
from iqa_core.records import Assessment, Preparer, Rejection
from iqa_core.rubrics import Rubric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Assessor(Protocol):
    """A model with its rubric, loaded and ready. Not thread-safe: one caller at a time."""

    @property
    def rubric(self) -> Rubric: ...

    @property
    def preparer(self) -> Preparer: ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Device and library versions: noted beside scores, not part of the fingerprint."""
        ...

    def assess(self, images: Sequence[NDArray[np.uint8]]) -> list[Assessment | Rejection]:
        """One result per prepared image, in order; the same image gets the same result in any batch.

        images: arrays (H, W, 3) uint8 as `preparer.prepare` returns them; sizes may differ. May be empty.
        A result that is not finite is a Rejection (`assessor_failed`), never a number.
        """
        ...


@dataclass(frozen=True, slots=True)
class AssessorSpec:
    """Everything about an assessor that can be known without loading it: cheap, picklable, no torch.

    The driver plans with it, readers prepare with it, and actors turn it into an `Assessor` with `load`.
    """

    checkpoint: str
    """Local folder, hub id, fsspec URI, `demo`, or `fake:...`."""
    rubric: Rubric
    """With the system prompt that is used, wherever that comes from."""
    system: SystemPrompt
    preparer: Preparer
    fingerprint_parts: Mapping[str, str]
    """Part name -> value; what determines a score (see `fingerprint`)."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """For fsspec, where the checkpoint is a URI; may hold secrets."""
    domain: str | None = None
    """Which images the checkpoint knows, where its assessor.toml says so."""

    @property
    def meant_for(self) -> dict[str, str]:
        """`rubric`, and `checkpoint` if it says so -> which images it is meant for, in one line for people."""
        own = {} if self.domain is None else {"checkpoint": self.domain}
        return {"rubric": self.rubric.domain, **own}
