"""Scores that a model writes -> the scores that are given: a strictly rising curve per attribute, in assessor.toml.

An order of images is the same before and after; the scale is that of the opinions that the curves were fitted to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from iqa_core.errors import CallerError
from iqa_core.fusion import Curve
from iqa_core.records import RATING, Assessment
from iqa_core.rubrics import AnyRubric

Points = tuple[tuple[float, ...], tuple[float, ...]]
"""Scores and what becomes of them."""


class Calibration(BaseModel):
    """Curves of the attributes of one written rubric; it says nothing about what is written under another."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rubric: str
    """Id of the rubric."""
    rubric_sha256: Annotated[str, Field(min_length=64, max_length=64)]
    """Its digest, hex."""
    images: int = Field(ge=1)
    """Validation images that the curves were fitted on. For people."""
    curves: Annotated[dict[str, Points], Field(min_length=1)]
    """Attribute -> ascending scores from 1 to 5, and as many ascending ones that are given, from 1 to 5; straight lines
    between them. An attribute without a curve is given as it is written."""

    @model_validator(mode="after")
    def _curves_keep_every_order(self) -> Self:
        for name, (scores, given) in self.curves.items():
            try:
                Curve(scores, given)
            except CallerError as error:
                raise ValueError(f"{name}: {error}") from None
            if (scores[0], scores[-1]) != (RATING.low, RATING.high):
                raise ValueError(f"{name}: a curve goes from the score {RATING.low:g} to {RATING.high:g}")
            if not all(low < high for low, high in pairwise(given)):
                raise ValueError(f"{name}: what is given must rise, or images would change places: {list(given)}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256, hex, over the rubric and the curves: all of it that determines a score."""
        content = [self.rubric, self.rubric_sha256, sorted(self.curves.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def is_for(self, rubric: AnyRubric) -> bool:
        """Whether this is the rubric that the curves were fitted under."""
        return (rubric.id, rubric.digest) == (self.rubric, self.rubric_sha256)

    def given(self, written: Assessment, attributes: Sequence[str]) -> Assessment:
        """The assessment on the scale of opinions, from the means over samples; spreads grow with the curve's slope.

        attributes: in the order of the scores. A score beyond 1 or 5 is given as the end's, and no spread is larger
        than that of two samples at both ends.
        """
        scores_K, stds_K = written.scores_K.astype(np.float64), written.stds_K.astype(np.float64)
        for k, name in enumerate(attributes):
            if (curve := self._made.get(name)) is not None:
                own = slice(k, k + 1)
                steeper = curve.steepness(scores_K[own])
                stds_K[own] = np.minimum(stds_K[own] * steeper, RATING.max_sample_std)  # NaN stays
                scores_K[own] = curve(scores_K[own])
        return replace(written, scores_K=scores_K.astype(np.float32), stds_K=stds_K.astype(np.float32))

    @cached_property
    def _made(self) -> Mapping[str, Curve]:
        return {name: Curve(*points) for name, points in self.curves.items()}
