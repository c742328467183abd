"""Bundled images -> what an assessor says of them, and how that differs from the golden scores of its checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from iqa_core.assessor.checkpoint.manifest import GoldenScores
from iqa_core.assessor.protocol import Assessor
from iqa_core.assessor.samples import read_sample
from iqa_core.errors import CallerError
from iqa_core.questions import LEVELS, ColumnScale, own_scales
from iqa_core.records import RATING, Assessment, Rejection
from iqa_core.slots import sample_texts

logger = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest difference of scores on 1 to 5, by dtype: ten times what other batches, threads and CPUs change (1e-4 and .02
for nearly all images), and far below what another prompt or image processing changes."""

LEAST = 1e-4
"""Tolerance on a range however narrow: golden scores are kept with four decimals."""

Scores = Mapping[str, float]
"""Dimension -> score."""


def sample_results(assessor: Assessor, names: Sequence[str]) -> dict[str, Assessment | Rejection]:
    """Name of a bundled image -> what the assessor says of it; slots have `sample_texts`.

    Raises CallerError on unknown names.
    """
    prepared = [assessor.preparer.prepare(read_sample(name)) for name in names]
    texts = sample_texts(assessor.rubric.slots, len(names))
    return dict(zip(names, assessor.assess(prepared, texts), strict=True))


def sample_scores(assessor: Assessor, names: Sequence[str]) -> dict[str, Scores | Rejection]:
    """The same as scores; see `scores_by_image`."""
    return scores_by_image(sample_results(assessor, names), assessor.rubric.names)


def scores_by_image(
    results: Mapping[str, Assessment | Rejection], dimensions: Sequence[str]
) -> dict[str, Scores | Rejection]:
    """Image -> its scores by dimension, or its rejection."""
    return {
        image: one if isinstance(one, Rejection) else dict(zip(dimensions, map(float, one.scores_K), strict=True))
        for image, one in results.items()
    }


def text_digest(result: Assessment) -> str | None:
    """SHA-256, hex, of the first text that was written; None where the rubric is not written."""
    return None if result.written is None else hashlib.sha256(result.written.answers[0].encode()).hexdigest()


def other_texts(golden: Sequence[GoldenScores], found: Mapping[str, Assessment | Rejection]) -> list[str]:
    """Images that are written about in other words than the golden ones."""
    return [
        entry.image
        for entry in golden
        if entry.text_sha256 is not None
        and isinstance(result := found[entry.image], Assessment)
        and text_digest(result) != entry.text_sha256
    ]


def differences(
    golden: Sequence[GoldenScores],
    found: Mapping[str, Scores | Rejection],
    dtype: str,
    scales: Mapping[str, ColumnScale] = MappingProxyType({}),
) -> Iterator[str]:
    """Scores that are not the golden ones within the tolerance, in words: image, dimension, both scores.

    scales: of the dimensions that are not five levels worth 1 to 5.
    """
    for entry in golden:
        scores = found[entry.image]
        if isinstance(scores, Rejection):
            yield f"{entry.image} is rejected ({scores.detail})"
            continue
        if set(entry.scores) != set(scores):
            yield f"{entry.image} has golden scores of {', '.join(entry.scores)}, not of {', '.join(scores)}"
            continue
        for name, expected in entry.scores.items():
            tolerance = _tolerance(scales.get(name, LEVELS), dtype)
            if not abs(scores[name] - expected) <= tolerance:
                yield f"{entry.image}: {name} is {scores[name]:.4f}, expected {expected:.4f} within {tolerance:g}"


def require_golden(assessor: Assessor, golden: Sequence[GoldenScores], dtype: str, checkpoint: str) -> None:
    """Hold an assessor to its golden scores; where only words are others, a warning names the images.

    Raises CallerError, which names every score that is not the golden one.
    """
    results = sample_results(assessor, [entry.image for entry in golden])
    found = scores_by_image(results, assessor.rubric.names)
    if faults := list(differences(golden, found, dtype, own_scales(assessor.rubric.columns))):
        raise CallerError(
            f"checkpoint {checkpoint} does not give the scores that its assessor.toml promises: {'; '.join(faults)}. "
            "Its files, this machine's libraries or this code differ from what it was made with; "
            f"`python -m iqa_core check --checkpoint {checkpoint}` looks closer"
        )
    if others := other_texts(golden, results):
        logger.warning(
            "checkpoint %s gives the scores that its assessor.toml promises, but writes in other words about %s",
            checkpoint,
            ", ".join(others),
        )


def _tolerance(scale: ColumnScale, dtype: str) -> float:
    """That of scores on 1 to 5, as a share of the scale's range."""
    return max(TOLERANCE[dtype] * scale.range.width / RATING.width, LEAST)
