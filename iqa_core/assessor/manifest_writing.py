"""A checkpoint folder -> its assessor.toml: rubric, fingerprint, and golden scores and texts of bundled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores, LimitName, save_manifest
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.golden import sample_results, text_digest
from iqa_core.assessor.load import describe, load_unverified
from iqa_core.assessor.samples import FEW, SAMPLES
from iqa_core.errors import CallerError, RunError
from iqa_core.questions import own_scales
from iqa_core.records import RATING, Assessment, ImageLimits, Reason, Rejection
from iqa_core.rubrics import AnyRubric, WrittenRubric, load_any_rubric


def write_manifest(
    folder: Path,
    rubric: str,
    dtype: Literal["float32", "bfloat16"],
    *,
    max_pixels: int | None = None,
    trained_on: Literal["sentence", "level"] = "sentence",
    domain: str | None = None,
    limits: ImageLimits = ImageLimits(),
    calibration: Calibration | None = None,
    images: Sequence[str] = SAMPLES[:FEW],
    **running: Any,
) -> CheckpointManifest:
    """Write assessor.toml into a complete checkpoint folder, replacing any other, and return it.

    rubric: name of a shipped one, or of a .toml file in the folder. dtype: what the model is to compute in. images:
    names of bundled images to score, calibration included. running: settings of AssessorConfig for that, such as device
    and threads.
    A written rubric has golden scores, and digests of texts, where it is greedy and computed in float32; images of
    which no answer is parsed have none.
    Raises CallerError when the folder cannot be loaded, or the calibration is for another rubric; RunError when the
    model fails on an image.
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
        calibration=calibration,
    )
    save_manifest(folder, plain)
    config = AssessorConfig(checkpoint=str(folder), **running)
    spec = describe(config, None, plain.image_limits)
    if spec.calibration != calibration:
        raise CallerError(f"checkpoint {folder}: its calibration was fitted under another rubric than {rubric}")
    assessor = load_unverified(spec, config)
    results = sample_results(assessor, images) if _promises(spec.rubric, dtype) else {}
    ends = {name: scale.range for name, scale in own_scales(own.columns).items() if scale.range != RATING}
    manifest = CheckpointManifest.model_validate(
        plain.model_dump()
        | {
            "fingerprint": dict(spec.fingerprint_parts),
            "ranges": {name: (found.worst, found.best) for name, found in ends.items()},
            "golden": [*_golden(results, own.names)],
        }
    )
    save_manifest(folder, manifest)
    return manifest


def _other_than_default(limits: ImageLimits) -> dict[LimitName, int]:
    names: tuple[LimitName, ...] = get_args(LimitName)
    return {name: getattr(limits, name) for name in names if getattr(limits, name) != getattr(ImageLimits(), name)}


def _promises(rubric: AnyRubric, dtype: str) -> bool:
    """Whether a checkpoint gives the same scores elsewhere: not with texts that are drawn, or are written in bfloat16.

    Draws depend on the limits of images too, and in bfloat16 the likeliest token on the machine.
    """
    return not isinstance(rubric, WrittenRubric) or (rubric.decoding.temperature == 0 and dtype == "float32")


def _golden(results: Mapping[str, Assessment | Rejection], dimensions: Sequence[str]) -> Iterator[GoldenScores]:
    for image, result in results.items():
        if isinstance(result, Rejection):
            if result.reason is not Reason.UNPARSABLE:
                raise RunError(
                    f"{image} gets no score: {result.detail}; the checkpoint has an assessor.toml without golden ones"
                )
            continue
        scores = {name: round(float(score), 4) for name, score in zip(dimensions, result.scores_K, strict=True)}
        yield GoldenScores(image=image, scores=scores, text_sha256=text_digest(result))
