"""A checkpoint folder -> its assessor.toml: rubric, fingerprint, and golden scores of bundled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores, LimitName, save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import sample_scores
from iqa_core.assessor.load import describe, load_unverified
from iqa_core.assessor.samples import FEW, SAMPLES
from iqa_core.errors import RunError
from iqa_core.questions import own_scales
from iqa_core.records import RATING, ImageLimits, Reason, Rejection
from iqa_core.rubrics import WrittenRubric, load_any_rubric


def write_manifest(
    folder: Path,
    rubric: str,
    dtype: Literal["float32", "bfloat16"],
    *,
    max_pixels: int | None = None,
    trained_on: Literal["sentence", "level"] = "sentence",
    domain: str | None = None,
    limits: ImageLimits = ImageLimits(),
    images: Sequence[str] = SAMPLES[:FEW],
    **running: Any,
) -> CheckpointManifest:
    """Write assessor.toml into a complete checkpoint folder, replacing any other, and return it.

    rubric: name of a shipped one, or of a .toml file in the folder. dtype: what the model is to compute in. images:
    names of bundled images to score. running: settings of AssessorConfig for that, such as device and threads.
    A written rubric has golden scores where it is written greedily in float32, of the images whose answers are parsed:
    elsewhere another device may write another number.
    Raises CallerError when the folder cannot be loaded, RunError when an image gets no score.
    """
    own = load_any_rubric(str(folder / rubric) if rubric.endswith(".toml") else rubric)
    plain = CheckpointManifest(
        rubric=rubric,
        prompt_version=own.prompt_version,
        dtype=dtype,
        max_pixels=max_pixels,
        trained_on=trained_on,
        domain=domain,
        limits=_other_than_default(limits),
    )
    save_manifest(folder, plain)
    config = AssessorConfig(checkpoint=str(folder), **running)
    spec = describe(config, None, plain.image_limits)
    if isinstance(own, WrittenRubric) and (dtype != "float32" or own.decoding.temperature):
        images = ()
    scores = sample_scores(load_unverified(spec, config), images)
    scores = {name: found for name, found in scores.items() if not _is_unparsable(found)}
    ends = {name: scale.range for name, scale in own_scales(own.columns).items() if scale.range != RATING}
    manifest = CheckpointManifest.model_validate(
        plain.model_dump()
        | {
            "fingerprint": dict(spec.fingerprint_parts),
            "ranges": {name: (found.worst, found.best) for name, found in ends.items()},
            "golden": [_golden(name, found) for name, found in scores.items()],
        }
    )
    save_manifest(folder, manifest)
    return manifest


def _other_than_default(limits: ImageLimits) -> dict[LimitName, int]:
    names: tuple[LimitName, ...] = get_args(LimitName)
    return {name: getattr(limits, name) for name in names if getattr(limits, name) != getattr(ImageLimits(), name)}


def _is_unparsable(found: Mapping[str, float] | Rejection) -> bool:
    return isinstance(found, Rejection) and found.reason is Reason.UNPARSABLE


def _golden(image: str, scores: Mapping[str, float] | Rejection) -> GoldenScores:
    if isinstance(scores, Rejection):
        raise RunError(
            f"{image} gets no score: {scores.detail}; the checkpoint has an assessor.toml without golden ones"
        )
    return GoldenScores(image=image, scores={name: round(score, 4) for name, score in scores.items()})
