"""Settings -> the description of an assessor, which loads no weights -> the loaded assessor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.files import CheckpointDigests, digests, materialise, portable_name, read_json
from iqa_core.assessor.checkpoint.manifest import CheckpointManifest, GoldenScores, read_manifest
from iqa_core.assessor.checkpoint.system_prompt import system_prompt
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.fake import PREFIX, FakeAssessor, FakeOptions, FakePreparer
from iqa_core.assessor.golden import require_golden
from iqa_core.assessor.preparing.preparers import ModelPreparer, make_preparer
from iqa_core.assessor.protocol import Assessor, AssessorSpec
from iqa_core.differences import differences
from iqa_core.errors import CallerError, RunError
from iqa_core.levels import SCORING_VERSION
from iqa_core.records import ImageLimits
from iqa_core.rubrics import AnyRubric, Rubric, WrittenRubric, closed_set, load_any_rubric
from iqa_core.written.keys import NOISE
from iqa_core.written.parsing import PARSER

FAKE_RUBRIC = "interior-v1"

GENERATION_CONFIG = "generation_config.json"
"""File of a checkpoint with settings that transformers' `generate` takes where none are given."""

CALIBRATION = "calibration"
"""Part of the fingerprint of a checkpoint whose written scores are calibrated."""

OUTSIDE_PROMISE = ("image_limits", "prompt_tokens")
"""Parts of the fingerprint that may be others where golden scores hold: bundled images are not held to limits, and of a
prompt that libraries render otherwise, golden scores show whether it matters."""


def describe(
    config: AssessorConfig,
    rubric: str | None,
    limits: ImageLimits,
    storage_options: Mapping[str, Any] = MappingProxyType({}),
) -> AssessorSpec:
    """All that is known of an assessor before it is loaded. The checkpoint is fetched.

    torch is imported for a written rubric alone, whose prompt is rendered.
    rubric: what `load_any_rubric` takes; None takes the one of the checkpoint's assessor.toml. The returned rubric has
    the system prompt that is used: its own, else the one in args.json beside the weights.
    storage_options: for fsspec, where the checkpoint is a URI.
    Raises CallerError when the checkpoint or the rubric is missing, incomplete, or they do not belong together.
    """
    if config.checkpoint.startswith(PREFIX):
        return _describe_fake(config, rubric, limits)
    if config.is_served:
        return _describe_served(config, rubric, limits)
    folder = materialise(config.checkpoint, storage_options)
    manifest = read_manifest(folder)
    asked = load_any_rubric(rubric) if rubric is not None else _rubric_of(folder, manifest)
    system = system_prompt(asked, folder)
    chosen = system.within(asked)
    max_pixels = config.max_pixels or (manifest.max_pixels if manifest else None)
    found = digests(folder)
    if manifest is not None:
        _require_described(folder, manifest, found, None if rubric else chosen)
    dtype = dtype_of(config, manifest, folder)
    parts = _parts(chosen, limits, found.weights, found.tokenizer, dtype, max_pixels or "processor")
    preparer = make_preparer(folder, chosen, limits, max_pixels)
    parts |= _prompt_part(folder, chosen, preparer)
    calibration = _calibration_of(manifest, chosen)
    if calibration is not None:
        parts[CALIBRATION] = calibration.digest
    name = portable_name(config.checkpoint)
    domain = manifest.domain if manifest else None
    not_taken = read_json(folder / GENERATION_CONFIG) if isinstance(chosen, WrittenRubric) else None
    return AssessorSpec(name, chosen, system, preparer, parts, dict(storage_options), domain, not_taken, calibration)


def own_limits(config: AssessorConfig, storage_options: Mapping[str, Any] = MappingProxyType({})) -> ImageLimits:
    """Bounds on encoded images that the checkpoint was made with: those of assessor.toml, else the defaults.

    Raises CallerError when there is no such checkpoint.
    """
    if config.checkpoint.startswith(PREFIX) or config.is_served:
        return ImageLimits()
    manifest = read_manifest(materialise(config.checkpoint, storage_options))
    return manifest.image_limits if manifest else ImageLimits()


def load(spec: AssessorSpec, config: AssessorConfig) -> Assessor:
    """The described assessor, loaded on this node.

    Raises CallerError when it cannot be loaded, or does not give its golden scores; RunError when the checkpoint
    changed since it was described.
    """
    [assessor] = load_all([spec], config)
    return assessor


def load_all(specs: Sequence[AssessorSpec], config: AssessorConfig) -> list[Assessor]:
    """An assessor of each description, on one model in memory. They are one checkpoint's, under different rubrics.

    Each scores as it does when it is loaded alone. Raises as `load` does.
    """
    assessors = _loaded(specs, config)
    for assessor, spec in zip(assessors, specs, strict=True):
        require_golden(assessor, golden_of(spec), spec.fingerprint_parts["dtype"], spec.checkpoint)
    return assessors


def load_unverified(spec: AssessorSpec, config: AssessorConfig) -> Assessor:
    """The described assessor, as `load` returns it, without a check of its golden scores.

    Raises CallerError when it cannot be loaded, RunError when the checkpoint changed since it was described.
    """
    [assessor] = _loaded([spec], config)
    return assessor


def _loaded(specs: Sequence[AssessorSpec], config: AssessorConfig) -> list[Assessor]:
    if len(specs) > 1:
        rubrics_on_one_model(specs)
    fakes = [spec.preparer for spec in specs if isinstance(spec.preparer, FakePreparer)]
    if fakes:
        return [FakeAssessor(spec.rubric, preparer) for spec, preparer in zip(specs, fakes, strict=True)]
    if config.is_served:
        return [_load_served(spec, config) for spec in specs]
    preparers = [spec.preparer for spec in specs if isinstance(spec.preparer, ModelPreparer)]
    if len(preparers) < len(specs):
        raise TypeError(f"no backend takes what {type(specs[0].preparer).__name__} prepares")
    checkpoint, parts = specs[0].checkpoint, specs[0].fingerprint_parts
    folder = materialise(checkpoint, specs[0].storage_options)
    found = digests(folder)
    for spec in specs:
        known = spec.fingerprint_parts
        if (found.weights, found.tokenizer) != (known["weights"], known["tokenizer"]):
            raise RunError(f"checkpoint {checkpoint} is not the one that the run began with; start the run again")
    if isinstance(rubric := specs[0].rubric, WrittenRubric):
        from iqa_core.assessor.model.writing import WritingAssessor

        # an image is written about in the same words whether or not its scores are calibrated
        key = fingerprint({name: value for name, value in parts.items() if name != CALIBRATION})
        dtype, calibration = parts["dtype"], specs[0].calibration
        return [WritingAssessor.load(folder, rubric, preparers[0], dtype, key, config, calibration)]
    from iqa_core.assessor.model.backend import TransformersAssessor

    rubrics = [*zip(rubrics_on_one_model(specs), preparers, strict=True)]
    return [*TransformersAssessor.load(folder, rubrics, parts["dtype"], config)]


def golden_of(spec: AssessorSpec) -> tuple[GoldenScores, ...]:
    """Golden scores that the described assessor must give; none if it differs from theirs in a part of the fingerprint.

    Parts of OUTSIDE_PROMISE may differ.
    Raises CallerError when the checkpoint is gone or its assessor.toml is malformed.
    """
    if isinstance(spec.preparer, FakePreparer) or spec.fingerprint_parts.get("engine") == "openai":
        return ()
    manifest = read_manifest(materialise(spec.checkpoint, spec.storage_options))
    if manifest is None:
        return ()
    promised = {name: value for name, value in manifest.fingerprint.items() if name not in OUTSIDE_PROMISE}
    return manifest.golden if promised.items() <= spec.fingerprint_parts.items() else ()


def fingerprint(parts: Mapping[str, str]) -> str:
    """16 hex digits of a digest over all that determines a score."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()[:16]


def _describe_fake(config: AssessorConfig, rubric: str | None, limits: ImageLimits) -> AssessorSpec:
    chosen = load_any_rubric(rubric or FAKE_RUBRIC)
    preparer = FakePreparer(limits, FakeOptions.parse(config.checkpoint))
    parts = _parts(chosen, limits, "fake", "none", "float32", "processor")
    return AssessorSpec(config.checkpoint, chosen, system_prompt(chosen, None), preparer, parts)


def _describe_served(config: AssessorConfig, rubric: str | None, limits: ImageLimits) -> AssessorSpec:
    if rubric is None:
        raise CallerError(f"--assessor.engine {config.engine}: name the --rubric; no server says which one it knows")
    chosen = load_any_rubric(rubric)
    parts = _parts(chosen, limits, "", "", "", config.max_pixels or "none")
    return _served().described(config, chosen, limits, parts)


def _load_served(spec: AssessorSpec, config: AssessorConfig) -> Assessor:
    assessor: Assessor = _served().loaded(spec, config, fingerprint(spec.fingerprint_parts))
    return assessor


def _served() -> Any:
    """The module of served assessors. Raises CallerError where the extra that it needs is not installed."""
    if find_spec("httpx2") is None:
        raise CallerError("--assessor.engine openai:URL needs httpx2, which is missing: pip install 'iqa-ray[client]'")
    from iqa_core.assessor.served import assessor

    return assessor


def rubrics_on_one_model(specs: Sequence[AssessorSpec]) -> list[Rubric]:
    """Rubrics that can share a model. Raises CallerError when one of them is written."""
    return [closed_set(spec.rubric, "rubrics on one model", "serve it by itself") for spec in specs]


def _rubric_of(folder: Path, manifest: CheckpointManifest | None) -> AnyRubric:
    if manifest is None:
        raise CallerError(
            f"checkpoint {folder} has no assessor.toml, so its rubric is not known; name it with --rubric: "
            "a model must be asked in the words that it was trained on"
        )
    rubric = load_any_rubric(str(folder / manifest.rubric) if manifest.rubric.endswith(".toml") else manifest.rubric)
    if rubric.prompt_version != manifest.prompt_version:
        raise CallerError(
            f"checkpoint {folder} was trained on prompt version {manifest.prompt_version}, "
            f"but rubric {rubric.id} has version {rubric.prompt_version}; correct assessor.toml or name a --rubric"
        )
    return rubric


def _require_described(
    folder: Path, manifest: CheckpointManifest, found: CheckpointDigests, own_rubric: AnyRubric | None
) -> None:
    """Raises CallerError when assessor.toml was written for other files than those beside it."""
    here: dict[str, str | None] = asdict(found) | ({"rubric": own_rubric.digest} if own_rubric else {})
    written: dict[str, str | None] = {name: manifest.fingerprint.get(name, digest) for name, digest in here.items()}
    if manifest.fingerprint:  # curves that were added afterwards, too, were not there when golden scores were made
        written[CALIBRATION] = manifest.fingerprint.get(CALIBRATION)
        here[CALIBRATION] = manifest.calibration.digest if manifest.calibration else None
    if differing := differences(written, here):
        raise CallerError(
            f"checkpoint {folder}: what lies there is not what its assessor.toml was written for (SHA-256 of "
            f"{'; '.join(differing)}); fetch it again, or write assessor.toml anew"
        )


def dtype_of(config: AssessorConfig, manifest: CheckpointManifest | None, folder: Path) -> str:
    """float32 or bfloat16: from the flag, else assessor.toml, else config.json. Raises CallerError on another dtype."""
    if config.dtype != "auto":
        return config.dtype
    if manifest is not None:
        return manifest.dtype
    model = read_json(folder / "config.json")
    named = [source.get(key) for source in (model, model.get("text_config", {})) for key in ("dtype", "torch_dtype")]
    dtype = next((name for name in named if name), "nothing")
    if dtype not in ("float32", "bfloat16"):
        raise CallerError(
            f"checkpoint {folder} says {dtype} for its dtype; set --assessor.dtype to float32 or bfloat16"
        )
    return str(dtype)


def _parts(
    rubric: AnyRubric, limits: ImageLimits, weights: str, tokenizer: str, dtype: str, max_pixels: int | str
) -> dict[str, str]:
    return {
        "weights": weights,
        "tokenizer": tokenizer,
        "rubric": rubric.digest,
        "prompt_version": str(rubric.prompt_version),
        "image_limits": f"min_side={limits.min_side} max_pixels={limits.max_pixels} max_bytes={limits.max_bytes}",
        "max_pixels": str(max_pixels),
        "dtype": dtype,
        "scoring_version": str(SCORING_VERSION),
        **(_written_parts(rubric) if isinstance(rubric, WrittenRubric) else {}),
    }


def _written_parts(rubric: WrittenRubric) -> dict[str, str]:
    parts = {"decoding": rubric.decoding.describe(), "parser": str(PARSER), "engine": "transformers"}
    return {**parts, "noise": NOISE} if rubric.decoding.temperature else parts


def _calibration_of(manifest: CheckpointManifest | None, rubric: AnyRubric) -> Calibration | None:
    """The checkpoint's, if it is for this rubric."""
    found = manifest.calibration if manifest else None
    if found is None or not isinstance(rubric, WrittenRubric):
        return None
    return found if found.is_for(rubric) else None


def _prompt_part(folder: Path, rubric: AnyRubric, preparer: ModelPreparer) -> dict[str, str]:
    """What rendering a written rubric's prompt adds; transformers and torch are loaded for it.

    Raises CallerError where the prompt cannot be rendered, or its answer has no room.
    """
    if not isinstance(rubric, WrittenRubric):
        return {}
    from iqa_core.assessor.model.rendering import prompt_digest, require_room

    digest = prompt_digest(folder, rubric)
    require_room(folder, rubric, preparer)
    return {"prompt_tokens": digest}
