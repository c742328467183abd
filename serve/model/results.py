"""A model's outcomes for the images of one request -> a result for each, its reward among it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from iqa_core.assessor.load import fingerprint
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.fusion import FusionWeights, fuse, load_fusion
from iqa_core.grounding.batches import Grounded
from iqa_core.questions import own_scales
from iqa_core.records import Assessment, FreeAnswer, ImageHeader, Rejection

DECIMALS = 6
"""Decimals of the numbers in an answer: more than float32 holds of a score between 1 and 5."""


@dataclass(frozen=True, slots=True)
class Model:
    """An assessor behind the endpoint, as far as an ingress needs to know it."""

    spec: AssessorSpec
    fingerprint: str
    weights: FusionWeights

    @classmethod
    def of(cls, spec: AssessorSpec, fusion: Path | None = None) -> Model:
        """The model of a spec, with fusion weights from a TOML file or its rubric's own.

        Raises CallerError when the weights are for other dimensions.
        """
        names = spec.rubric.names
        columns = spec.rubric.columns
        weights = FusionWeights.of_columns(columns) if fusion is None else load_fusion(fusion)
        return cls(spec, fingerprint(spec.fingerprint_parts), weights.ordered_as(names, own_scales(columns)))


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """An image with its scores."""

    header: ImageHeader
    assessment: Assessment
    reward: float
    """Fused score of all dimensions, 1 (worst) to 5 (best), rounded to DECIMALS."""


@dataclass(frozen=True, slots=True)
class DescribedImage:
    """An image with the answer to a free question."""

    header: ImageHeader
    answer: FreeAnswer


@dataclass(frozen=True, slots=True)
class GroundedImage:
    """An image with local scores."""

    header: ImageHeader
    found: Grounded


@dataclass(frozen=True, slots=True)
class NoViews:
    """Stands for an image that was asked about parts of a model that cannot be asked so."""

    detail: str
    """A sentence for people."""


ImageResult: TypeAlias = ScoredImage | Rejection
"""What became of one image that was assessed."""
Description: TypeAlias = DescribedImage | Rejection
"""What became of one image that was described."""
Grounding: TypeAlias = GroundedImage | Rejection
"""What became of one image that was asked about parts."""
AnyResult: TypeAlias = ScoredImage | DescribedImage | GroundedImage | NoViews | Rejection
"""Any of them."""
Outcome: TypeAlias = Assessment | FreeAnswer | Grounded | NoViews | Rejection
"""What an assessor says of one image."""


def results_of(headers: Sequence[ImageHeader], outcomes: Sequence[Outcome], model: Model) -> list[AnyResult]:
    """One result per image, in order."""
    scores_NK = [outcome.scores_K for outcome in outcomes if isinstance(outcome, Assessment)]
    rewards = iter(fuse(scores_NK, model.weights).tolist())
    results: list[AnyResult] = []
    for header, outcome in zip(headers, outcomes, strict=True):
        if isinstance(outcome, Rejection):
            results.append(replace(outcome, header=header))
        elif isinstance(outcome, FreeAnswer):
            results.append(DescribedImage(header, outcome))
        elif isinstance(outcome, Grounded):
            results.append(GroundedImage(header, outcome))
        elif isinstance(outcome, NoViews):
            results.append(outcome)
        else:
            results.append(ScoredImage(header, outcome, round(next(rewards), DECIMALS)))
    return results
